"""What an agent counts of the commands that it carries out."""

from collections.abc import Iterable
from typing import Final

from inferx.core.events import PhaseTiming
from inferx.core.units import NS_PER_S
from inferx.exec.metrics.families import REASONS_KEPT
from inferx.exec.metrics.histogram import LATENCY_S, Histogram

__all__ = ["DONE", "AgentCounts"]

DONE: Final = "done"
"""The outcome of what did not fail; of what did, it is the step that failed."""


class AgentCounts:
    """One agent's."""

    def __init__(self) -> None:
        self.commands: dict[tuple[str, str], int] = {}
        """By command and outcome."""
        self.phases: dict[tuple[str, str], Histogram] = {}
        """Seconds of each step, by command and step."""
        self.moved: dict[tuple[str, str], int] = {}
        """Bytes of each step, likewise."""
        self.scrape_errors = 0

    def performed(self, command: str, phases: Iterable[PhaseTiming], error: str) -> None:
        """A command is carried out, or has failed in the step `error`."""
        key = command, error or DONE
        if key in self.commands or len(self.commands) < REASONS_KEPT * 2:
            self.commands[key] = self.commands.get(key, 0) + 1
        for phase in phases:
            step = command, phase.phase
            histogram = self.phases.get(step)
            if histogram is None:
                if len(self.phases) >= REASONS_KEPT * 2:
                    continue
                histogram = self.phases[step] = Histogram(LATENCY_S)
            histogram.observe(phase.duration_ns / NS_PER_S)
            self.moved[step] = self.moved.get(step, 0) + phase.moved_bytes

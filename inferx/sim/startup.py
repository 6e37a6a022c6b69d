"""An operation of a pod under way: its stages one after another, their bytes over shared links.

What the stages are, a profile says; this carries them out. Stages that overlap begin together and
are waited for together. Every run is known to its node, which ends it when it is lost.
"""

from collections.abc import Callable
from dataclasses import dataclass

from inferx.core.events import PhaseTiming
from inferx.core.units import NS_PER_S
from inferx.sim.device import UNCAPPED, Flow, Link, NodeDevices

__all__ = ["Run", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """A stage made ready for one pod: what to wait for, then what to send where."""

    name: str
    delay_ns: int
    cap_bytes_per_s: int
    parts: tuple[tuple[tuple[Link, ...], int], ...]
    overlap: bool
    told: bool = True
    """Whether it is among the phases that are told at the end."""

    def unloaded_ns(self) -> int:
        """Return its time if nothing else moves: equal parts share what they have in common."""
        crossed: dict[Link, int] = {}
        for path, _ in self.parts:
            for link in path:
                crossed[link] = crossed.get(link, 0) + 1
        transfer_ns = 0
        for path, size in self.parts:
            rate = min((link.bytes_per_s // crossed[link] for link in path), default=UNCAPPED)
            rate = max(1, min(rate, self.cap_bytes_per_s))
            transfer_ns = max(transfer_ns, -(-size * NS_PER_S // rate))
        return self.delay_ns + transfer_ns


class Run:
    """An operation under way on a node."""

    __slots__ = ("_devices", "_done", "_pending", "_steps", "_under_way", "_watches", "ended")

    def __init__(
        self,
        devices: NodeDevices,
        steps: list[Step],
        done: Callable[[tuple[PhaseTiming, ...]], object],
    ) -> None:
        self._devices = devices
        self._done = done
        self._steps = steps
        self._watches: list[_Watch] = []
        self._pending = 0
        self.ended = False
        devices.running[self] = None
        if steps:
            self._advance()
        else:
            devices.clock.after(0, self._nothing_to_do)

    def abort(self) -> None:
        """End it at once: its shares of the links are free and `done` is not called."""
        if self.ended:
            return
        self._end()
        for watch in self._watches:
            for flow in watch.flows:
                flow.abort()

    def stage_ended(self) -> None:
        """Count down the stages that run side by side. Its stages call this."""
        self._pending -= 1
        if self._pending:
            return
        if len(self._watches) < len(self._steps):
            self._advance()
            return
        self._end()
        told = zip(self._watches, self._steps, strict=True)
        self._done(tuple(watch.timing() for watch, step in told if step.told))

    def _advance(self) -> None:
        """Begin the next stage, and those that it overlaps."""
        first = len(self._watches)
        last = first
        while self._steps[last].overlap and last + 1 < len(self._steps):
            last += 1
        self._pending = last + 1 - first
        for step in self._steps[first : last + 1]:
            self._watches.append(_Watch(self, self._devices, step))

    def _nothing_to_do(self) -> None:
        if not self.ended:
            self._end()
            self._done(())

    def _end(self) -> None:
        self.ended = True
        del self._devices.running[self]


class _Watch:
    """One stage of a run."""

    __slots__ = ("_began_ns", "_devices", "_ended_ns", "_pending", "_run", "_step", "flows")

    def __init__(self, run: Run, devices: NodeDevices, step: Step) -> None:
        self._run = run
        self._devices = devices
        self._step = step
        self._began_ns = self._ended_ns = devices.clock.now_ns()
        self._pending = len(step.parts)
        self.flows: list[Flow] = []
        devices.clock.after(step.delay_ns, self._transfer)

    def timing(self) -> PhaseTiming:
        """Return what the stage took."""
        moved_bytes = sum(flow.moved_bytes for flow in self.flows)
        return PhaseTiming(self._step.name, self._ended_ns - self._began_ns, moved_bytes)

    def _transfer(self) -> None:
        if self._run.ended:
            return
        cap = self._step.cap_bytes_per_s
        clock = self._devices.clock
        for path, size in self._step.parts:
            flow = Flow(clock, path, size_bytes=size, cap_bytes_per_s=cap, done=self._landed)
            self.flows.append(flow)
        if not self.flows:
            self._end()

    def _landed(self, _flow: Flow) -> None:
        self._pending -= 1
        if not self._pending:
            self._end()

    def _end(self) -> None:
        self._ended_ns = self._devices.clock.now_ns()
        self._run.stage_ended()

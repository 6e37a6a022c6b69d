"""Times the steps of one action, and says which of them failed."""

import time
from collections.abc import Generator
from contextlib import contextmanager

from inferx.core.events import PhaseTiming
from inferx.exec.agent.ports import AgentError

__all__ = ["Phases"]


class Phases:
    """The steps of one action, in the order in which they ended."""

    def __init__(self) -> None:
        self.timings: list[PhaseTiming] = []
        self._began = time.perf_counter_ns()
        self.offsets_ns: list[int] = []
        """When each of them began, from the action's own beginning."""

    @contextmanager
    def step(self, name: str, moved_bytes: int = 0) -> Generator[None]:
        """Time a step; whatever goes wrong in it is an `AgentError` of that phase.

        A step that failed is timed as well: how long it took to fail is worth knowing.
        """
        began = time.perf_counter_ns()
        try:
            yield
        except AgentError as error:
            error.phase = error.phase or name
            raise
        except OSError as error:
            what = error.filename or ""
            reason = error.strerror or str(error)
            raise AgentError(
                f"{name}: {what}: {reason}" if what else f"{name}: {reason}", phase=name
            ) from error
        finally:
            took = time.perf_counter_ns() - began
            self.offsets_ns.append(began - self._began)
            self.timings.append(PhaseTiming(name, took, moved_bytes))

    def as_tuple(self) -> tuple[PhaseTiming, ...]:
        """Return the steps so far."""
        return tuple(self.timings)

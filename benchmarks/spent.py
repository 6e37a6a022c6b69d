"""Where a run's time goes: a sampling profiler by module, which slows what it looks at very little.

A timer of the process's own CPU time interrupts it; the innermost frame of Python then names the
module that spends. A callback of SimPy's loop is its own module's time, the loop itself is SimPy's.
"""

import signal
from collections import Counter
from collections.abc import Callable
from types import FrameType

__all__ = ["ROOMS", "spent"]

SAMPLE_S = 0.001

ROOMS: tuple[tuple[str, str], ...] = (
    ("inferx/core/machine/router.py", "router"),
    ("inferx/core/machine/", "scheduler"),
    ("inferx/core/", "state, view and estimates"),
    ("inferx/policy/", "policies"),
    ("inferx/sim/clock.py", "SimPy's loop and its timers"),
    ("simpy/", "SimPy's loop and its timers"),
    ("inferx/sim/serving.py", "serving of tokens"),
    ("inferx/sim/sharing.py", "serving of tokens"),
    ("inferx/sim/driver.py", "driver: arrivals, dispatch, links"),
    ("inferx/sim/link.py", "driver: arrivals, dispatch, links"),
    ("inferx/sim/", "nodes, ledger and record"),
)
"""Part of a path -> what its time is called; the first that fits counts."""


def _room(frame: FrameType | None) -> str:
    while frame is not None:
        path = frame.f_code.co_filename
        for part, name in ROOMS:
            if part in path:
                return name
        # A library's time is its caller's.
        frame = frame.f_back
    return "elsewhere"


def spent(call: Callable[[], object]) -> dict[str, float]:
    """Return the share of CPU time that `call` spends in each room, largest first."""
    seen: Counter[str] = Counter()

    def take(_signal: int, frame: FrameType | None) -> None:
        seen[_room(frame)] += 1

    before = signal.signal(signal.SIGPROF, take)
    signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)
    try:
        call()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    total = sum(seen.values())
    return {room: count / total for room, count in seen.most_common()}

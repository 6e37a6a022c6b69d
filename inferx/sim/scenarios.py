"""Small worlds that try a policy: crowded, mixed, failing, empty. Each runs in well under a second.

They are made from named random streams, so they are the same everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from inferx.core.rng import stream
from inferx.core.types import FunctionSpec
from inferx.core.units import GIB, NS_PER_MS, NS_PER_S
from inferx.sim.faults import Fault, Faults
from inferx.sim.link import LinkModel
from inferx.sim.profile import Profile
from inferx.sim.workload.trace import Trace, make_trace
from inferx.sim.world import World
from inferx.spec.cluster import load_cluster

__all__ = ["LARGE", "SCENARIOS", "Scenario", "hungry", "large"]

LARGE: Final = (64, 1_024)
"""GPUs of the clusters on which decisions are timed."""
_SIZES_GIB: Final = (6, 12, 24, 40)
_MILLI: Final = (150, 250, 500, 1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One try."""

    name: str
    world: Callable[[Profile], World]
    trace: Callable[[], Trace]


def _function(name: str, size: int, **more: object) -> FunctionSpec:
    spec = FunctionSpec(
        name=name,
        milli_gpu=_MILLI[size],
        hbm_bytes=_SIZES_GIB[size] * GIB,
        device_bytes=_SIZES_GIB[size] * GIB * 3 // 4,
        host_bytes=2 * GIB,
        weight_bytes=_SIZES_GIB[size] * GIB // 2,
        slots=4,
    )
    return msgspec.structs.replace(spec, **more)


def _functions(count: int) -> tuple[FunctionSpec, ...]:
    return tuple(_function(f"f{index:02}", index % len(_SIZES_GIB)) for index in range(count))


def _many_pods(function: FunctionSpec, slots: int) -> FunctionSpec:
    """Let a function have pods enough that somebody must route."""
    return msgspec.structs.replace(function, max_replica=4, slots=slots)


def _trace(name: str, requests: int, functions: int, *, every_s: float) -> Trace:
    """Bursts of plain requests; popular functions come first."""
    rng = stream(0, f"scenario/{name}")
    gaps = rng.gamma(0.3, every_s / 0.3, requests)
    arrival = np.cumsum(np.rint(gaps * NS_PER_S).astype(np.int64))
    share = 1.0 / np.arange(1, functions + 1)
    return make_trace(
        arrival - arrival[:1],
        function=rng.choice(functions, requests, p=share / share.sum()),
        duration_ns=rng.integers(50 * NS_PER_MS, 4 * NS_PER_S, requests),
        names=tuple(f"f{index:02}" for index in range(functions)),
    )


def _on(
    cluster: str, functions: tuple[FunctionSpec, ...], **more: object
) -> Callable[[Profile], World]:
    def world(profile: Profile) -> World:
        return World(
            nodes=load_cluster(cluster),
            functions=functions,
            profile=profile,
            **more,  # type: ignore[arg-type]  # each scenario names fields of World
        )

    return world


def _no_requests() -> Trace:
    return make_trace(np.zeros(0, np.int64), names=("f00",))


_TWO_GPUS: Final = _function("pair", 3, gpus=2)
_ONLY_H100: Final = _function("h100-only", 1, gpu_type="H100")
_LOST: Final = Faults(
    fault=(
        Fault(node="g6e.12xlarge-0", at_s=60, kind="lost", back_after_s=60),
        Fault(node="g6e.12xlarge-1", at_s=240, kind="spot", back_after_s=30),
    )
)
_LOSSY: Final = LinkModel(jitter_ns=5 * NS_PER_MS, loss=0.02, duplicate=0.02)

SCENARIOS: Final = (
    Scenario(
        name="no requests",
        world=_on("g6e.12xlarge=1", _functions(1)),
        trace=_no_requests,
    ),
    Scenario(
        name="one function",
        world=_on("g6e.12xlarge=1", _functions(1)),
        trace=lambda: _trace("one function", 60, 1, every_s=10.0),
    ),
    Scenario(
        name="crowded",
        world=_on("g6e.12xlarge=1", _functions(16)),
        trace=lambda: _trace("crowded", 300, 16, every_s=2.0),
    ),
    Scenario(
        name="nothing prepared",
        world=_on("g6e.12xlarge=1", _functions(6), prepared="none"),
        trace=lambda: _trace("nothing prepared", 80, 6, every_s=6.0),
    ),
    Scenario(
        name="two GPU models, pods of two GPUs",
        world=_on("p5.4xlarge=2,g6e.12xlarge=1", (*_functions(8), _TWO_GPUS, _ONLY_H100)),
        trace=lambda: _trace("mixed", 200, 10, every_s=3.0),
    ),
    Scenario(
        name="nodes lost and back",
        world=_on("g6e.12xlarge=2", _functions(12), faults=_LOST),
        trace=lambda: _trace("lost", 200, 12, every_s=2.0),
    ),
    Scenario(
        name="starts that fail",
        world=_on("g6e.12xlarge=1", _functions(8), faults=Faults(start_failures=0.2)),
        trace=lambda: _trace("failing", 120, 8, every_s=4.0),
    ),
    Scenario(
        name="three routers, lossy links",
        world=_on("g6e.12xlarge=1", _functions(8), routers=3, link=_LOSSY),
        trace=lambda: _trace("lossy", 200, 8, every_s=2.0),
    ),
    Scenario(
        name="several pods a function",
        world=_on("g6e.12xlarge=2", tuple(_many_pods(f, 2) for f in _functions(2))),
        trace=lambda: _trace("several", 400, 2, every_s=0.4),
    ),
)


def hungry() -> Scenario:
    """One GPU; a second function is asked for when the first one's requests have ended.

    Whatever a policy prefers, the second must be served some day: nothing else wants the GPU.
    """
    one = load_cluster("p5.4xlarge=1")[0].hbm_bytes
    first, second = (
        msgspec.structs.replace(_function(name, 3), hbm_bytes=one * 9 // 10) for name in "ab"
    )
    arrival = np.arange(0, 1_800, 5, dtype=np.int64) * NS_PER_S
    return Scenario(
        name="a second function on one GPU",
        world=_on("p5.4xlarge=1", (first, second)),
        trace=lambda: make_trace(
            arrival,
            function=(arrival >= 120 * NS_PER_S).astype(np.int32),
            duration_ns=np.full(len(arrival), NS_PER_S // 2),
            names=("a", "b"),
        ),
    )


def large(gpus: int) -> Scenario:
    """A cluster of eight-GPU nodes with three functions a GPU and many arrivals.

    The most popular function may have several pods, so that requests are routed.
    """
    first, *rest = _functions(3 * gpus)
    functions = (_many_pods(first, 1), *rest)
    return Scenario(
        name=f"{gpus:,} GPUs",
        world=_on(f"p5.48xlarge={gpus // 8}", functions),
        trace=lambda: _trace(f"large {gpus}", 400, len(functions), every_s=0.5),
    )

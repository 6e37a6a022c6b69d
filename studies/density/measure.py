"""Runs points; one row of numbers each."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import msgspec
import numpy as np

from inferx.core.types import FunctionSpec, NodeSpec, Tier
from inferx.core.units import GIB, NS_PER_S
from inferx.load import load_bundle
from inferx.policy import plain
from inferx.policy.basics import FixedHold
from inferx.policy.compose import Scored
from inferx.policy.default import SoonestReady
from inferx.sim.driver import simulate
from inferx.sim.metrics import quantile_ns
from inferx.sim.profile import load_profile
from inferx.sim.record import Cause, Outcome, RunRecord, SpanRow
from inferx.sim.workload.trace import Trace, chunks_of
from inferx.sim.world import World
from studies.density.causes import attribute
from studies.density.points import TARGET_S, Point, load_of, node_of, shape
from studies.density.workload import bursts, visits, window_ns

BURSTS = (1, 2, 4, 8, 12, 16, 24, 32)
BURST_TIMES = 12
BURST_APART_S = 300.0
"""Longer than a pod is held, so that each burst finds every function suspended."""
SUSPENDS = replace(
    plain.bundle(),
    name="suspends",
    placement=Scored((("soonest ready", 1.0, SoonestReady()),)),
    keep_alive=FixedHold(NS_PER_S, Tier.DRAM),
)
"""What the bursts run: starts go where those of `default` go; who is idle is soon suspended.

`default` itself would leave pods on idle GPUs, or kill them and wait for copies from disk: a burst
would tell how many of these were done, and not what the node does with suspended pods.
"""


def run(point: Point, trace: Trace) -> RunRecord:
    """Simulate a trace on the point's node."""
    node = node_of(point)
    one = shape(point.model, point.node)
    functions: tuple[FunctionSpec, ...] = tuple(
        msgspec.structs.replace(one, name=name) for name in trace.names
    )
    world = World(
        nodes=(node,),
        functions=functions,
        profile=load_profile(point.profile),
        prepared="nvme",
        merge_ns=0,
    )
    bundle = SUSPENDS if point.policy == SUSPENDS.name else load_bundle(point.policy)
    return simulate(world, chunks_of(trace), bundle, seed=point.seed)


def measure(point: Point) -> dict:
    """Run one point and return its row."""
    record = run(point, visits(point))
    _, from_ns, to_ns = window_ns(point)
    q, node, one = record.requests, node_of(point), shape(point.model, point.node)
    seen = (q.arrived_ns >= from_ns) & (q.arrived_ns < to_ns)
    done = seen & (q.outcome == Outcome.FINISHED)
    cold = done & (q.cause != Cause.WARM)
    ttft_ns = q.first_ns - q.arrived_ns
    why = attribute(record, point, from_ns, to_ns)
    return asdict(point) | {
        "gpus": node.gpus,
        "per_gpu": point.functions / node.gpus,
        "load": load_of(point),
        "fit_in_dram": node.host_bytes / (one.device_bytes + one.host_bytes),
        "hbm_gib": one.hbm_bytes / GIB,
        "requests": int(seen.sum()),
        "refused_pct": _pct(int((seen & (q.outcome == Outcome.REFUSED)).sum()), int(seen.sum())),
        "busy_pct": busy_pct(record.spans, node, from_ns, to_ns),
        "cold": int(cold.sum()),
        "cold_pct": _pct(int(cold.sum()), int(done.sum())),
        "cold_from": {
            cause.name.lower(): int((cold & (q.cause == cause)).sum())
            for cause in Cause
            if cause is not Cause.WARM
        },
        "cold_ttft_p50_s": _quantile_s(ttft_ns[cold], 500),
        "cold_ttft_p99_s": _quantile_s(ttft_ns[cold], 990),
        "cold_slow_pct": _pct(int((ttft_ns[cold] > TARGET_S * NS_PER_S).sum()), int(cold.sum())),
        "ttft_p50_s": _quantile_s(ttft_ns[done], 500),
        "ttft_p99_s": _quantile_s(ttft_ns[done], 990),
        "parts_s": why.mean_s,
        "slow": why.slow(),
        "pcie_gb": record.link_bytes.get("pcie", 0) / 1e9,
        "nvme_gb": record.link_bytes.get("nvme", 0) / 1e9,
    }


def measure_bursts(point: Point) -> list[dict]:
    """Run bursts of rising size; return the time to the first token by size, worst and median."""
    trace = bursts(point, BURSTS, BURST_TIMES, BURST_APART_S)
    q = run(point, trace).requests
    ttft_s = (q.first_ns - q.arrived_ns) / NS_PER_S
    rows = []
    at, size = np.unique(q.arrived_ns[point.functions :], return_counts=True)
    for wanted in BURSTS:
        of_size = np.isin(q.arrived_ns, at[size == wanted])
        of_size[: point.functions] = False
        cold = of_size & (q.cause != Cause.WARM)
        each = [ttft_s[cold & (q.arrived_ns == t)].max() for t in at[size == wanted]]
        rows.append(
            asdict(point)
            | {
                "burst": wanted,
                "cold": int(cold.sum()),
                "median_s": float(np.median(ttft_s[cold])),
                "last_s": float(np.median(each)),
                "worst_s": float(max(each)),
            }
        )
    return rows


def busy_pct(spans: Sequence[SpanRow], node: NodeSpec, from_ns: int, to_ns: int) -> float:
    """Return the share of a window in which a GPU had a request in service, over all GPUs."""
    busy_ns = 0
    for gpu in range(node.gpus):
        until = from_ns
        for begin, end in sorted(
            (s.from_ns, s.to_ns) for s in spans if s.gpu == gpu and s.state == "working"
        ):
            begin_ns, end_ns = max(begin, until), min(end, to_ns)
            if end_ns > begin_ns:
                busy_ns += end_ns - begin_ns
                until = end_ns
    return 100.0 * busy_ns / (node.gpus * (to_ns - from_ns))


def _pct(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0


def _quantile_s(ns: np.ndarray, per_mille: int) -> float | None:
    value = quantile_ns(np.sort(ns), per_mille)
    return None if value is None else value / NS_PER_S

"""Who asks for what, when: a roll call, then visitors; or bursts."""

import numpy as np

from inferx.core.rng import stream
from inferx.core.units import NS_PER_S
from inferx.sim.profile import load_profile
from inferx.sim.workload.trace import Trace, make_trace
from studies.density.points import PAUSE_S, TOKENS_IN, TOKENS_OUT, Point, node_of, service_s

ROLL_CALL_S = 10.0
"""Every function is asked for once, this far apart, before the visitors come: each has been up."""
COLD_ROLL_CALL_S = 240.0
"""The same, times GPUs, where a first start is cold: those on one GPU go one after another."""
REQUESTS = 20_000
"""About as many are sent by visitors, so that fast models do not take all of the time."""
SPAN_S = (300.0, 10_800.0)
WARMUP = 0.25
"""Share of the visitors' time that is not measured."""


def roll_call_s(point: Point) -> float:
    """Return how far apart functions are first asked for: longer than a node needs for a start."""
    restores = load_profile(point.profile).offers("restore")
    return ROLL_CALL_S if restores else COLD_ROLL_CALL_S / node_of(point).gpus


def window_ns(point: Point) -> tuple[int, int, int]:
    """Return when visitors come, when measuring begins, and when both end."""
    alone = service_s(point.model, point.node)
    rate = point.functions * point.visitors / (alone + PAUSE_S)
    span_s = min(max(REQUESTS / rate, SPAN_S[0]), SPAN_S[1])
    begin_s = (point.functions + 12) * roll_call_s(point)
    end_s = begin_s + span_s
    measured_s = begin_s + WARMUP * span_s
    return int(begin_s * NS_PER_S), int(measured_s * NS_PER_S), int(end_s * NS_PER_S)


def visits(point: Point) -> Trace:
    """Draw Poisson visits over equally popular functions; requests of one follow each other."""
    rng = stream(point.seed, "study.density")
    alone = service_s(point.model, point.node)
    begin_ns, _, end_ns = window_ns(point)
    begin_s, end_s = begin_ns / NS_PER_S, end_ns / NS_PER_S
    lasts_s = point.spell * (alone + PAUSE_S)
    # Visits that began before the window are part of it: it opens in the steady state.
    count = rng.poisson(point.functions * point.visitors * (end_s - begin_s + lasts_s) / lasts_s)
    start = rng.uniform(begin_s - lasts_s, end_s, count)
    who = rng.integers(point.functions, size=count)
    gap = alone + rng.exponential(PAUSE_S, (count, point.spell))
    at = (start[:, None] + np.cumsum(gap, axis=1) - gap[:, :1]).ravel()
    function = np.repeat(who, point.spell)
    kept = (at >= begin_s) & (at < end_s)
    called = np.arange(point.functions)
    return _trace(
        np.concatenate([called * roll_call_s(point), at[kept]]),
        np.concatenate([called, function[kept]]),
        point,
    )


def bursts(point: Point, sizes: tuple[int, ...], times: int, apart_s: float) -> Trace:
    """Draw bursts: so many functions, chosen at random, are asked for at the same instant.

    Each size comes `times` times; after the roll call, `apart_s` apart, in rising size.
    """
    rng = stream(point.seed, "study.bursts")
    begin_s = (point.functions + 12) * roll_call_s(point)
    called = np.arange(point.functions)
    at, who = [called * roll_call_s(point)], [called]
    for index, size in enumerate(size for size in sizes for _ in range(times)):
        who.append(rng.choice(point.functions, size, replace=False))
        at.append(np.full(size, begin_s + (index + 1) * apart_s))
    return _trace(np.concatenate(at), np.concatenate(who), point)


def _trace(at_s: np.ndarray, function: np.ndarray, point: Point) -> Trace:
    rng = stream(point.seed, "study.tokens")
    order = np.argsort(at_s, kind="stable")
    rows = len(order)
    return make_trace(
        arrival_ns=(at_s[order] * NS_PER_S).astype(np.int64),
        function=function[order].astype(np.int32),
        input_tokens=np.full(rows, TOKENS_IN, np.int32),
        output_tokens=np.maximum(1, rng.geometric(1 / TOKENS_OUT, rows)).astype(np.int32),
        names=[f"f{i:04d}" for i in range(point.functions)],
    )

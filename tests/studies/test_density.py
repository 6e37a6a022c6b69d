"""The density study: what it attributes adds up, and its floors are what a lone start takes."""

import numpy as np
import pytest

from inferx.core.types import Tier
from inferx.sim.record import Cause
from studies.density.causes import attribute
from studies.density.floors import lone_start_s, prefill_s
from studies.density.measure import run
from studies.density.points import MECHANISMS, MODELS, NODES, Point, load_of, packed, points
from studies.density.workload import bursts, visits, window_ns

NODE, MODEL, MECHANISM = "g6e.12xlarge", "8b", "criu-pinned"


@pytest.fixture(scope="module")
def crowded():
    """A node with more visitors than slices: room, turns and disk all cost time."""
    point = packed(Point("pack", NODE, MODEL, MECHANISM, 1), 1.25)
    return point, run(point, visits(point))


def test_the_parts_of_a_cold_ttft_add_up_to_it(crowded):
    point, record = crowded
    _, from_ns, to_ns = window_ns(point)
    q = record.requests
    cold = (q.cause != Cause.WARM) & (q.finished_ns >= 0)
    cold &= (q.arrived_ns >= from_ns) & (q.arrived_ns < to_ns)
    parts = attribute(record, point, from_ns, to_ns).seconds
    ttft_s = (q.first_ns - q.arrived_ns)[cold] / 1e9
    assert len(parts) == cold.sum() > 100
    assert (parts >= 0).all()
    # A message of the control plane takes half a millisecond, and is nobody's part.
    assert np.abs(parts.sum(axis=1) - ttft_s).max() < 0.01


def test_a_lone_start_takes_its_floor():
    point = Point("burst", NODE, MODEL, MECHANISM, 4, policy="suspends")
    q = run(point, bursts(point, (1,), 3, 900.0)).requests
    floor_s = lone_start_s(NODE, MODEL, MECHANISM)[Tier.DRAM] + prefill_s(NODE, MODEL)
    ttft_s = (q.first_ns - q.arrived_ns)[4:] / 1e9
    assert (q.cause[4:] == Cause.RESUME).all()
    assert ttft_s == pytest.approx(floor_s, abs=0.01)


def test_packing_gives_the_load_that_was_asked_for():
    point = packed(Point("pack", NODE, MODEL, MECHANISM, 1), 1.0)
    assert load_of(point) == pytest.approx(1.0, rel=0.05)


def test_hopeless_mechanisms_get_fewer_points():
    keys = [(n, m, p) for n in NODES for m in MODELS for p in MECHANISMS]
    slow, fast = dict.fromkeys(keys, 3.0), dict.fromkeys(keys, 1.0)
    assert len(points(slow)) < len(points(fast))

"""The reference's eviction as a policy of one slot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_cluster import GIB, add, cluster, function, want

from inferx.core.rng import stream
from inferx.core.view import ClusterView
from inferx.load import LoadError, load_bundle
from inferx.policy import Defer, Evict, GpuId, PodId, Tier


def evict(c, f, **settings):
    made = load_bundle("lru-prefix", settings)
    return made.eviction.evict(want(c, f), ClusterView(c, snapshots=True), stream(1, "t"))


@pytest.mark.parametrize(("trim", "victims"), [(False, (0, 1)), (True, (1,))])
def test_the_walk_kills_what_does_not_help_unless_trimmed(trim, victims):
    """FindNode4Pod's pass 2, by hand: A is idle longest but on the other GPU; B makes the room."""
    sizes = {"A": 20, "B": 72, "C": 60, "D": 60}
    c = cluster([function(name, gib, milli=100) for name, gib in sizes.items()], nodes=1, gpus=2)
    for pod, (f, gpu, since) in enumerate([(0, 0, 1), (1, 1, 2), (2, 0, 3)]):
        add(c, pod, f, [gpu], idle_since=since)
    plan = Evict((GpuId(1),), tuple((PodId(pod), Tier.ABSENT) for pod in victims))
    assert evict(c, 3, trim=trim) == plan


def naive_walk(c, f):
    """Gather idle pods of others by age; stop at the first node where they free enough."""
    gone = {}
    idle = [pod for pod in c.pods.values() if c.columns.idle[pod.row] and pod.function != f]
    for pod in sorted(idle, key=lambda pod: (pod.idle_since_ns, pod.id)):
        gone.setdefault(pod.node, []).append(pod)
        for gpu in range(c.first_gpu[pod.node], c.first_gpu[pod.node + 1]):
            here = [p for p in gone[pod.node] if gpu in p.gpus]
            hbm = c.gpu_hbm_open[gpu] + sum(c.functions[p.function].hbm_bytes for p in here)
            milli = c.gpu_milli_open[gpu] + sum(c.functions[p.function].milli_gpu for p in here)
            if hbm >= c.functions[f].hbm_bytes and milli >= c.functions[f].milli_gpu:
                return Evict((GpuId(gpu),), tuple((p.id, Tier.ABSENT) for p in gone[pod.node]))
    return Defer("no victims suffice")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), max_size=16))
def test_the_walk_is_the_loop_ties_included(pods):
    sizes = [10, 20, 40, 70]  # Multiples of a slot: the reference's rounding does not show.
    c = cluster([function(f"f{gib}", gib, 240) for gib in [*sizes, 60]], nodes=2, gpus=2)
    for pod, (f, gpu, since) in enumerate(pods):
        if c.gpu_hbm_open[gpu] >= sizes[f] * GIB and c.gpu_milli_open[gpu] >= 240:
            add(c, pod, f, [gpu], idle_since=since)
    if not ClusterView(c, snapshots=True).fits(want(c, 4)).any():
        assert evict(c, 4) == naive_walk(c, 4)


def test_contexts_out_of_range_are_refused():
    with pytest.raises(LoadError, match="contexts_per_gpu is 0"):
        load_bundle("lru-prefix", {"contexts_per_gpu": 0})

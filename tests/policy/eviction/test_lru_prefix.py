"""The reference's eviction as a policy of one slot."""

import numpy as np
import pytest
from crowd import crowds
from hypothesis import given
from hypothesis import strategies as st
from small_cluster import add, cluster, function, want

from inferx.core.rng import stream
from inferx.core.view import ClusterView
from inferx.load import LoadError, load_bundle
from inferx.policy import Defer, Evict, GpuId, PodId, Tier

SLOT = 256 << 20


def evict(c, f, **settings):
    made = load_bundle("lru-prefix", settings)
    return made.eviction.evict(want(c, f), ClusterView(c, snapshots=True), stream(1, "t"))


@pytest.mark.parametrize(("trim", "victims"), [(False, (0, 1)), (True, (1,))])
def test_the_walk_kills_what_does_not_help_unless_trimmed(trim, victims):
    """InferX at 875cb0f, `ixshare/src/scheduler/scheduler_handler.rs`, FindNode4Pod, line 3444.

    Its pass 2 by hand: A is idle longest but on the other GPU; B makes the room.
    """
    sizes = {"A": 20, "B": 72, "C": 60, "D": 60}
    c = cluster([function(name, gib, milli=100) for name, gib in sizes.items()], nodes=1, gpus=2)
    for pod, (f, gpu, since) in enumerate([(0, 0, 1), (1, 1, 2), (2, 0, 3)]):
        add(c, pod, f, [gpu], idle_since=since)
    plan = Evict((GpuId(1),), tuple((PodId(pod), Tier.ABSENT) for pod in victims))
    assert evict(c, 3, trim=trim) == plan


def naive_walk(c, asked, contexts, *, trim):
    """Take idle pods of others by age; stop where a node has room by both accounts."""
    free = {g: [int(c.gpu_hbm_total[g]) // SLOT, contexts, 1] for g in range(c.gpu_count)}

    def give(pod, sign):
        for g in pod.gpus:
            parts = (-(-c.functions[pod.function].hbm_bytes // SLOT), 1, len(pod.gpus) > 1)
            free[g] = [have + sign * part for have, part in zip(free[g], parts, strict=True)]

    for pod in c.pods.values():
        give(pod, -1)
    gone, ready = {}, c.fn_ready.tolist()
    need = (-(-asked.hbm_bytes // SLOT), 1, asked.gpus > 1)
    for pod in sorted(c.pods.values(), key=lambda pod: (pod.idle_since_ns, pod.id)):
        if ready[pod.function] <= c.functions[pod.function].min_replica:
            continue
        ready[pod.function] -= 1
        give(pod, 1)
        left = gone.setdefault(pod.node, [])
        left.append(pod)
        here = np.flatnonzero(c.gpu_node == pod.node).tolist()
        on = [g for g in here if all(f >= n for f, n in zip(free[g], need, strict=True))]
        on = on[: asked.gpus]
        milli = {g: sum(c.functions[p.function].milli_gpu for p in left if g in p.gpus) for g in on}
        fits = all(c.gpu_milli_open[g] + milli[g] >= asked.milli_gpu for g in on)
        if len(on) == asked.gpus and fits:
            kept = [p for p in left if not trim or set(p.gpus) & set(on)]
            return Evict(tuple(on), tuple((p.id, Tier.ABSENT) for p in kept))
    return Defer("no victims suffice")


@pytest.mark.parametrize("gpus", [1, 2])
@given(st.data())
def test_the_walk_is_the_loop_ties_included(gpus, data):
    c, age = data.draw(crowds(gpus))
    for pod in c.pods.values():
        pod.idle_since_ns = int(age[pod.id])
        c.touch(pod)
    contexts, trim = data.draw(st.sampled_from([1, 2, 9])), data.draw(st.booleans())
    if not ClusterView(c, snapshots=True).fits(want(c, 4)).any():
        plan = evict(c, 4, contexts_per_gpu=contexts, trim=trim)
        assert plan == naive_walk(c, want(c, 4), contexts, trim=trim)


def test_contexts_out_of_range_are_refused():
    with pytest.raises(LoadError, match="contexts_per_gpu is 0"):
        load_bundle("lru-prefix", {"contexts_per_gpu": 0})

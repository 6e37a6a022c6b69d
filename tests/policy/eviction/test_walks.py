"""Victims taken in turn on every node at once, against one release after another."""

import numpy as np
import pytest
from crowd import crowds
from hypothesis import given
from hypothesis import strategies as st
from small_cluster import GIB, add, cluster, function, suspend, want

from inferx.core.rng import stream
from inferx.core.view import ClusterView
from inferx.load import load_bundle
from inferx.policy import Evict, GpuId
from inferx.policy.parts.walks import walks


def naive_walk(asked, view, rows, node):
    """Release pods of a node until GPUs enough fit; then keep the last ones that need not go."""
    ids, mine, on = view.pods.id, [], view.gpus.node == node
    with view.trial() as trial:
        for row in [row for row in rows if view.pods.node[row] == node]:
            trial.release(int(ids[row]))
            mine.append(row)
            room = np.flatnonzero(trial.fits(asked) & on)
            if len(room) >= asked.gpus:
                break
        else:
            return None
    targets, kept = room[: asked.gpus], list(mine)
    for row in reversed(mine):
        rest = [other for other in kept if other != row]
        with view.trial() as trial:
            for other in rest:
                trial.release(int(ids[other]))
            kept = rest if trial.fits(asked)[targets].all() else kept
    return targets.tolist(), kept


@pytest.mark.parametrize("gpus", [1, 2])
@given(st.data())
def test_all_nodes_at_once_are_one_after_another(gpus, data):
    c, rank = data.draw(crowds(gpus))
    for pod in list(c.pods.values()):
        if len(pod.gpus) == 1 and data.draw(st.integers(0, 3)) == 0:
            suspend(c, pod)
    for node in range(2):
        c.node_host_open[node] = data.draw(st.sampled_from([-4, 0, 3, 40])) * GIB
    view, asked = ClusterView(c, snapshots=True), want(c, 4)
    rows = np.flatnonzero(view.pods.idle)
    rows = rows[np.argsort(rank[rows], kind="stable")]
    loops = [naive_walk(asked, view, rows.tolist(), node) for node in range(2)]
    assert list(walks(asked, view, rows)) == [found for found in loops if found is not None]


def test_where_it_fits_already_nobody_leaves():
    c = cluster([function("a", 20), function("gang", 20, gpus=2)], nodes=1, gpus=2)
    add(c, 0, 0, [0])
    view = ClusterView(c, snapshots=True)
    plan = load_bundle("plain").eviction.evict(want(c, 1), view, stream(1, "t"))
    assert plan == Evict((GpuId(0), GpuId(1)), ())

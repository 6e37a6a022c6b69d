"""Crowded clusters for policies that evict, and the best plan by brute force."""

from itertools import combinations

import msgspec
import numpy as np
from hypothesis import strategies as st
from small_cluster import GIB, add, cluster, function


def naive_plan(asked, c, rows, cost, unit):
    """Every subset of candidates on every node: the least (cost, victims, place, latest spared)."""
    best, pods, need = None, c.columns, asked.gpus
    for place in range(c.gpu_count if need == 1 else len(c.nodes)):
        gpus = [g for g in range(c.gpu_count) if (g if need == 1 else c.gpu_node[g]) == place]
        here = [r for r in rows if set(pods.gpu[r].tolist()) & set(gpus)]
        for size in range(len(here) + 1):
            for gone in combinations(here, size):
                of = [int(pods.function[r]) for r in gone]
                if any(c.fn_ready[f] - of.count(f) < c.functions[f].min_replica for f in of):
                    continue
                room = []
                for g in gpus:
                    on = [r for r in gone if g in pods.gpu[r]]
                    units = sum(int(pods.hbm_bytes[r]) // unit for r in on)
                    lacks = -((int(c.gpu_hbm_open[g]) - asked.hbm_bytes) // unit)
                    milli = int(c.gpu_milli_open[g]) + sum(int(pods.milli_gpu[r]) for r in on)
                    room += [g] * (units >= lacks and milli >= asked.milli_gpu)
                spared = sum(1 << here.index(r) for r in gone)
                rank = (sum(int(cost[r]) for r in gone), size, place, spared)
                if len(room) >= need and (best is None or rank < best[0]):
                    best = (rank, tuple(room[:need]), gone)
    return best


@st.composite
def crowds(draw, gpus):
    """Two nodes of two GPUs full of idle pods, some on both GPUs of their node, and a newcomer.

    Returns the cluster and a cost for each of up to 16 pods; the newcomer is function 4.
    """
    sizes = draw(st.lists(st.sampled_from([7, 10, 20, 33, 60]), min_size=4, max_size=4))
    functions = [
        msgspec.structs.replace(
            function(f"f{i}", gib, milli=draw(st.sampled_from([100, 250, 500]))),
            hbm_bytes=gib * GIB + draw(st.sampled_from([0, 1, GIB // 3])),
            gpus=1 + (i == 0),
            min_replica=int(i == 3),
        )
        for i, gib in enumerate(sizes)
    ]
    new = function("new", draw(st.sampled_from([30, 50, 79])), draw(st.sampled_from([100, 900])))
    c = cluster([*functions, msgspec.structs.replace(new, gpus=gpus)], nodes=2, gpus=2)
    pod = 0
    for at in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=14)):
        f, gpu = at
        on = [gpu - gpu % 2, gpu - gpu % 2 + 1] if f == 0 else [gpu]
        spec = functions[f]
        if all(
            c.gpu_hbm_open[g] >= spec.hbm_bytes and c.gpu_milli_open[g] >= spec.milli_gpu
            for g in on
        ):
            add(c, pod, f, on)
            pod += 1
    cost = np.array(draw(st.lists(st.integers(1, 4), min_size=16, max_size=16)))
    return c, cost

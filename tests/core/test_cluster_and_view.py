"""The books and what policies see of them, each index against a naive rescan.

INV-1 capacity, INV-9 nobody writes through a view.
"""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import small_cluster
from hypothesis import given, settings
from kernel_rules import walk
from kernel_world import FUNCTIONS, NODES, World, function, node, want_of

from inferx.core.cluster import Cluster
from inferx.core.lifecycle import PodState
from inferx.core.pod import Pod
from inferx.core.types import ANY_NODE, FunctionId, GpuId, NodeId, PodId, Tier, Want
from inferx.core.units import FOREVER_NS, GIB, NS_PER_S
from inferx.core.view import ClusterView
from inferx.core.whynot import filter_counts, why_not
from inferx.load import load_bundle
from inferx.policy.basics import FixedHold, NeverEvict, NoPrewarm
from inferx.policy.compose import BestFit, Scored


def empty(nodes=NODES, functions=FUNCTIONS) -> tuple[Cluster, ClusterView]:
    c = Cluster(nodes, functions)
    for n in range(len(nodes)):
        c.set_schedulable(NodeId(n), yes=True)
    return c, ClusterView(c, snapshots=True)


def slow_fits(w: Want, c: Cluster) -> list[bool]:
    """What `view.fits` should say, GPU by GPU."""
    own = {p.node for p in c.by_function[w.function].values() if p.state is PodState.STANDBY}
    ok = []
    for gpu in range(c.gpu_count):
        n = int(c.gpu_node[gpu])
        room = c.gpu_milli_open[gpu] >= w.milli_gpu and c.gpu_hbm_open[gpu] >= w.hbm_bytes
        kind = w.gpu_type in ("Any", c.nodes[n].gpu_type) and w.node in (ANY_NODE, n)
        host = c.node_host_open[n] >= w.host_bytes or n in own
        ok.append(bool(room and kind and host and c.gpu_schedulable[gpu]))
    for n in range(len(c.nodes)):
        mine = range(c.first_gpu[n], c.first_gpu[n + 1])
        if sum(ok[g] for g in mine) < w.gpus:
            for g in mine:
                ok[g] = False
    return ok


def slow_tier(f: int, n: int, c: Cluster) -> int:
    pods = [p for p in c.by_function[f].values() if p.node == n]
    if any(p.state is PodState.STANDBY for p in pods):
        return Tier.DRAM
    if c.nvme[n, f]:
        return Tier.NVME
    return Tier.REMOTE if c.remote[c.node_platform[n], f] else Tier.ABSENT


UNDER_WAY = (PodState.CREATING, PodState.RESTORING, PodState.RESUMING)


def copies_over(pod: Pod) -> bool:
    return pod.state is PodState.RESTORING and not pod.gpus


@pytest.mark.parametrize("block", range(4))
def test_every_index_is_what_a_rescan_finds(block: int) -> None:
    for seed in range(block * 10, block * 10 + 10):
        world = walk(seed, 40).world
        c, view = world.cluster, world.scheduler.view
        c.check(list(world.scheduler.fleet.disks.arriving))
        for f in range(len(c.functions)):
            pods = [p for p in c.pods.values() if p.function == f]
            assert list(view.pod_ids(FunctionId(f))) == [p.id for p in pods]
            starting = (PodState.INIT, PodState.CREATING, PodState.RESTORING, PodState.RESUMING)
            assert view.functions.ready[f] == sum(p.state is PodState.READY for p in pods)
            assert view.functions.starting[f] == sum(p.state in starting for p in pods)
            leaving = (PodState.STANDBY, PodState.SUSPENDING)
            assert view.functions.standby[f] == sum(p.state in leaving for p in pods)
            copied = [p.state is PodState.STANDBY or copies_over(p) for p in pods]
            assert view.functions.copies[f] == sum(copied)
            for state in PodState:
                there = [p.node for p in pods if p.state is state]
                assert view.nodes_in(FunctionId(f), state) == there
            lacks = world.scheduler._demand.lacks[f].values()
            assert view.functions.queued[f] == sum(lacks)
            for at in (ANY_NODE, 0):
                w = want_of(c, f, at=at)
                assert view.fits(w).tolist() == slow_fits(w, c)
                assert view.eligible(w)[view.fits(w)].all()
                with view.trial() as trial:
                    assert trial.fits(w).tolist() == slow_fits(w, c)
            if world.bundles[-1].snapshots:
                tiers = [slow_tier(f, n, c) for n in range(len(c.nodes))]
                assert view.node_tier(FunctionId(f)).tolist() == tiers
                ready = {p.node for p in pods if p.state is PodState.READY}
                hot = [Tier.HBM if n in ready else t for n, t in enumerate(tiers)]
                assert view.tier(FunctionId(f)).tolist() == [hot[n] for n in c.gpu_node]
                restore = view.node_restore_ns(FunctionId(f))
                assert restore.tolist() == [
                    view.start_ns(FunctionId(f), Tier(t), NodeId(n)) for n, t in enumerate(tiers)
                ]
                assert view.restore_ns(FunctionId(f)).tolist() == restore[c.gpu_node].tolist()
        table = view.pods
        rows = [(int(i), row) for row, i in enumerate(table.id) if i >= 0]
        assert [i for i, _ in rows] == list(c.pods)
        for i, row in rows:
            pod = c.pods[PodId(i)]
            spec = c.functions[pod.function]
            assert (pod.row, int(table.state[row])) == (row, pod.state)
            assert (table.function[row], table.node[row]) == (pod.function, pod.node)
            assert tuple(g for g in table.gpu[row].tolist() if g >= 0) == pod.gpus
            assert table.milli_gpu[row] == spec.milli_gpu
            assert table.hbm_bytes[row] == spec.hbm_bytes
            assert table.host_bytes[row] == pod.host_charged
            assert table.leased_slots[row] == pod.leased_slots
            assert table.idle[row] == (pod.state is PodState.READY and not pod.leases)
            assert table.idle_since_ns[row] == pod.idle_since_ns
            assert table.ready_ns[row] == pod.ready_ns
            assert table.ready[row] == (pod.state is PodState.READY)
            assert table.standby[row] == (pod.state is PodState.STANDBY)
        for gpu in range(c.gpu_count):
            holders = [p for p in c.pods.values() if p.holds_gpu and gpu in p.gpus]
            assert view.gpus.pods[gpu] == len(holders)
            begun = [p for p in c.pods.values() if p.state in UNDER_WAY and gpu in p.gpus]
            assert view.gpus.starting[gpu] == len(begun)
        for row in range(len(c.nodes)):
            begun = [p for p in c.pods.values() if p.state in UNDER_WAY and p.node == row]
            assert view.nodes.starting[row] == sum(bool(p.gpus) for p in begun)
        for source in (Tier.ABSENT, Tier.REMOTE, Tier.NVME, Tier.DRAM):
            best = view.starts_ns(source).min(axis=0).tolist()
            assert view.best_starts_ns(source).tolist() == best


def test_inv_9_no_array_of_a_view_can_be_written() -> None:
    world = World(load_bundle("default"))
    for f in range(len(FUNCTIONS)):
        world.arrive(f)
    world.run(20 * NS_PER_S)
    view = world.scheduler.view
    seen = 0
    for table in (view.gpus, view.nodes, view.pods, view.functions):
        for name in dir(table):
            array = getattr(table, name)
            if name.startswith("_") or not isinstance(array, np.ndarray):
                continue
            seen += 1
            # What is computed for the call may be scribbled on: it is nobody else's.
            own = array.flags.owndata and array.base is None
            if not own:
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0
                assert not array.flags.writeable
    assert seen > 30
    before = world.cluster.gpu_milli_open.copy(), world.cluster.gpu_hbm_open.copy()
    for f in range(len(FUNCTIONS)):
        w = want_of(world.cluster, f)
        for mask in (view.fits(w), view.eligible(w), view.tier(FunctionId(f))):
            mask[...] = 0
        view.restore_ns(FunctionId(f))[...] = 0
    np.testing.assert_array_equal(before[0], world.cluster.gpu_milli_open)
    np.testing.assert_array_equal(before[1], world.cluster.gpu_hbm_open)
    assert world.cluster.gpu_schedulable.all()


# -- columns ---
@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=300), st.randoms(use_true_random=False))
def test_rows_grow_and_are_compacted_in_pod_order(adds: list[int], rng) -> None:
    c, view = empty()
    for at, f in enumerate(adds):
        c.add_pod(PodId(at), FunctionId(f), (GpuId(0),), NodeId(0))
        while len(c.pods) > 1 and rng.random() < 0.55:
            pod = c.pods[rng.choice(list(c.pods))]
            c.enter(pod, PodState.GONE)
            c.remove(pod)
        live = [int(i) for i in view.pods.id if i >= 0]
        assert live == list(c.pods)
        for pod in c.pods.values():
            assert view.pods.id[pod.row] == pod.id
            assert view.pods.function[pod.row] == pod.function
        assert c.columns.dead <= max(33, c.columns.count // 2 + 1)
    c.check()


def test_columns_grow_by_doubling_and_keep_what_they_hold() -> None:
    c, view = empty()
    for i in range(150):
        c.add_pod(PodId(i), FunctionId(2), (GpuId(0), GpuId(1)), NodeId(0))
    assert len(c.columns.id) == 256
    assert view.pods.id.tolist() == list(range(150))
    assert view.pods.gpu.shape == (150, 8)
    assert (view.pods.gpu[:, :3] == [0, 1, -1]).all()


def test_without_snapshots_only_suspended_pods_are_warm() -> None:
    c, _ = empty()
    c.remote[:] = True
    c.nvme[0] = True
    cold = ClusterView(c, snapshots=False)
    assert cold.node_tier(FunctionId(0)).tolist() == [Tier.ABSENT] * 3
    assert ClusterView(c, snapshots=True).node_tier(FunctionId(0)).tolist() == [
        Tier.NVME,
        Tier.REMOTE,
        Tier.REMOTE,
    ]


# -- capacity ---
def test_a_claim_hides_capacity_and_turns_into_a_charge() -> None:
    c, view = empty()
    pod = c.add_pod(PodId(0), FunctionId(1), (GpuId(0),), NodeId(0))
    c.claim(pod)
    assert (int(c.gpu_milli_charged[0]), int(c.gpu_milli_open[0])) == (0, 0)
    assert view.nodes.host_bytes_free[0] == 96 * GIB
    assert not view.fits(want_of(c, 0))[0]
    c.check()
    c.charge_gpus(pod)
    assert not pod.claims
    assert (int(c.gpu_milli_charged[0]), int(c.gpu_milli_open[0])) == (1000, 0)
    # The promise of host memory ends with the claim: it is charged apart.
    assert view.nodes.host_bytes_free[0] == 100 * GIB
    c.charge_host(pod, 4 * GIB)
    c.check()
    c.release_gpus(pod)
    c.charge_host(pod, 0)
    c.check()
    assert view.fits(want_of(c, 0))[0]


def test_a_claim_can_be_withdrawn() -> None:
    c, _ = empty()
    pod = c.add_pod(PodId(0), FunctionId(2), (GpuId(0), GpuId(1)), NodeId(0))
    c.claim(pod)
    c.unclaim(pod)
    c.check()
    assert c.gpu_milli_open.tolist() == [1000] * 5


def test_inv_1_overcommitted_capacity_is_an_error_of_ours() -> None:
    c, _ = empty()
    pods = [c.add_pod(PodId(i), FunctionId(1), (GpuId(0),), NodeId(0)) for i in range(2)]
    c.charge_gpus(pods[0])
    with pytest.raises(AssertionError, match="overcommitted"):
        c.charge_gpus(pods[1])
    c, _ = empty()
    pod = c.add_pod(PodId(0), FunctionId(1), (GpuId(0),), NodeId(0))
    with pytest.raises(AssertionError, match="host memory"):
        c.charge_host(pod, 101 * GIB)
    c, _ = empty([node(nvme_bytes=GIB)], [function()])
    with pytest.raises(AssertionError, match="disk"):
        c.charge_nvme(NodeId(0), FunctionId(0))


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("gpu_milli_charged", "milli"),
        ("gpu_hbm_charged", "HBM"),
        ("gpu_milli_open", "open milli"),
        ("node_host_charged", "host"),
        ("node_nvme_free", "disk"),
        ("fn_ready", "fn_ready"),
        ("fn_copies", "copies"),
        ("gpu_starting", "starts on GPUs"),
        ("node_starting", "starts on nodes"),
    ],
)
def test_inv_1_the_check_finds_a_wrong_book(column: str, told: str) -> None:
    c, _ = empty()
    c.check()
    getattr(c, column)[0] += 1
    with pytest.raises(AssertionError, match=told):
        c.check()


# -- what-if ---
def test_a_trial_predicts_what_really_happens_and_leaves_no_trace() -> None:
    for seed in range(20):
        world = walk(seed, 30).world
        c, view = world.cluster, world.scheduler.view
        before = c.gpu_milli_open.copy(), c.gpu_hbm_open.copy(), c.node_host_open.copy()
        ready = [p for p in c.pods.values() if p.state is PodState.READY]
        with view.trial() as trial:
            for pod in ready:
                trial.release(pod.id)
            for pod in reversed(ready):
                trial.undo()
                assert trial.host_bytes_free(pod.node) <= c.node_host_total[pod.node]
            for f in range(len(FUNCTIONS)):
                np.testing.assert_array_equal(trial.fits(want_of(c, f)), view.fits(want_of(c, f)))
            for pod in ready:
                trial.release(pod.id)
            predicted = [trial.fits(want_of(c, f)) for f in range(len(FUNCTIONS))]
        for one, two in zip(
            before, (c.gpu_milli_open, c.gpu_hbm_open, c.node_host_open), strict=True
        ):
            np.testing.assert_array_equal(one, two)
        for pod in ready:
            c.release_gpus(pod)
            c.charge_host(pod, 0)
        for f, mask in enumerate(predicted):
            np.testing.assert_array_equal(mask, view.fits(want_of(c, f)))


def test_a_trial_of_suspending_and_placing_counts_host_memory() -> None:
    world = World(load_bundle("plain"), on_disk=[5])
    world.arrive(5)
    world.run(6 * NS_PER_S)
    c, view = world.cluster, world.scheduler.view
    (pod,) = [p for p in c.pods.values() if p.function == 5]
    free = int(c.node_host_open[pod.node])
    trial = view.trial()
    trial.suspend(pod.id)
    assert trial.host_bytes_free(pod.node) == free - 30 * GIB
    trial.place(want_of(c, 1), (pod.gpus[0],))
    assert trial.host_bytes_free(pod.node) == free - 34 * GIB
    assert not trial.fits(want_of(c, 0))[pod.gpus[0]]
    trial.undo()
    assert trial.fits(want_of(c, 0))[pod.gpus[0]]


# -- gangs, types, why not ---
def test_a_gang_fits_only_where_one_node_has_room_for_all_of_it() -> None:
    c, view = empty()
    assert view.fits(want_of(c, 2)).tolist() == [True, True, True, True, False]
    pod = c.add_pod(PodId(0), FunctionId(1), (GpuId(1),), NodeId(0))
    c.charge_gpus(pod)
    assert view.fits(want_of(c, 2)).tolist() == [False, False, True, True, False]


def test_a_want_of_a_type_fits_only_there() -> None:
    c, view = empty()
    assert view.fits(want_of(c, 4)).tolist() == [False] * 4 + [True]
    w = Want(FunctionId(0), 1, 1, 1, 1, "nowhere to be had", ANY_NODE, FOREVER_NS)
    assert not view.fits(w).any()
    assert view.spec(FunctionId(4)).name == "only-b"


def test_why_not_counts_each_gpu_once_and_names_the_pod_that_could_leave() -> None:
    functions = [FUNCTIONS[2], FUNCTIONS[1], function("tiny", milli_gpu=1000, hbm_bytes=GIB)]
    stays = replace(
        load_bundle("default"),
        placement=Scored((("best fit", 1.0, BestFit()),)),
        eviction=NeverEvict(),
        keep_alive=FixedHold(FOREVER_NS, Tier.ABSENT),
        prewarm=NoPrewarm(),
    )
    world = World(stays, nodes=[node("a-0")], functions=functions, on_disk=[1, 2])
    c, view = world.cluster, world.scheduler.view
    pair, large, tiny = (want_of(c, f) for f in range(3))
    assert filter_counts(large, view) == (2, {})
    assert why_not(large, view).counterfactual == ""
    world.arrive(1)
    world.run(5 * NS_PER_S)
    assert filter_counts(pair, view) == (
        0,
        {"memory": 1, "host memory, or too few GPUs on the node": 1},
    )
    assert why_not(pair, view).counterfactual == "would fit on a node with 2 GPUs that have room"
    world.arrive(2)
    world.run(5 * NS_PER_S)
    told = why_not(tiny, view)
    assert (told.feasible, told.filtered) == (0, {"compute": 2})
    # The first pod has been given back by now, the second still serves.
    (idle,) = c.by_function[1].values()
    assert told.counterfactual == f"would fit on GPU {idle.gpus[0]} if the idle pod {idle.id} left"
    world.arrive(1)
    world.run(NS_PER_S)
    assert "busy pod" in why_not(large, view).counterfactual
    c.set_schedulable(NodeId(0), yes=False)
    told = why_not(large, view)
    assert told.filtered == {"not schedulable": 2}
    assert told.counterfactual == "no single pod's leaving would make room"


def test_a_view_tells_rates_of_arrival() -> None:
    c, view = empty()
    c.now_ns = NS_PER_S
    c.arrivals.learn(0, 1, c.now_ns, within_ns=NS_PER_S)
    c.now_ns = 2 * NS_PER_S
    c.arrivals.learn(0, 4, c.now_ns, within_ns=NS_PER_S)
    assert view.arrivals_per_s(FunctionId(0)) == pytest.approx(view.functions.arrivals_per_s[0])
    assert view.functions.last_arrival_ns.tolist()[:2] == [2 * NS_PER_S, 0]
    assert view.now_ns == 2 * NS_PER_S


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(0, 40),
    st.data(),
)
def test_a_disk_takes_the_snapshots_that_fit_as_one_by_one(sizes, disk, data) -> None:
    functions = [function(device_bytes=size - 1, host_bytes=1) for size in sizes]
    c = Cluster([node(nvme_bytes=disk)], functions)
    order = data.draw(st.permutations(range(len(sizes))))
    there, free = set(), disk
    for f in order:
        if sizes[f] <= free:
            there.add(f)
            free -= sizes[f]
    c.hold_snapshots(NodeId(0), np.array(order))
    assert set(np.flatnonzero(c.nvme[0])) == there
    c.check()
    gone = data.draw(st.sets(st.sampled_from(range(len(sizes))))) & there
    c.lose_snapshots(NodeId(0), np.array(sorted(gone), np.int64))
    assert set(np.flatnonzero(c.nvme[0])) == there - gone
    c.check()


def test_start_up_times_of_all_functions_are_those_of_each():
    c = small_cluster.cluster([small_cluster.function(f"f{i}", 5 + 7 * i) for i in range(4)])
    view = ClusterView(c, snapshots=True)
    for learned in range(3):
        for tier in (Tier.ABSENT, Tier.REMOTE, Tier.NVME, Tier.DRAM):
            many = view.starts_ns(tier)
            assert many.shape == (1, 4)
            one = [view.start_ns(FunctionId(f), tier, NodeId(0)) for f in range(4)]
            assert many[0].tolist() == one
            assert one == [c.starts.start_ns(tier, 0, spec) for spec in c.functions]
        c.starts.learn(Tier.NVME, 0, c.functions[learned], (3 + learned) * NS_PER_S)

"""The default bundle: prices, and what is bought and sold at them, against loops and by example."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_rules import walk
from small_cluster import GIB, add, cluster, function, suspend, want

from inferx.core.lifecycle import PodState
from inferx.core.machine.proposals import check_evict
from inferx.core.rng import stream
from inferx.core.view import ClusterView
from inferx.load import load_bundle
from inferx.policy import (
    Defer,
    Demote,
    Evict,
    FunctionId,
    GpuId,
    NodeId,
    Place,
    PodId,
    Promote,
    Tier,
)
from inferx.policy.default import CheapestRoom, SoonestReady, UntilWanted, Worth
from inferx.policy.parts.host_market import HostMemoryMarket
from inferx.policy.parts.room_ahead import LIKELY, NO_PLACE_S, RoomAhead, place_saves
from inferx.policy.parts.waiting import KILL_S, comes_back, far_s, ready_s, waiting_s


def learn_starts(c, *, resume_s, restore_s):
    """Let every start from host memory, and every one from below, have taken so long."""
    for _ in range(200):
        c.starts.learn(Tier.DRAM, 0, c.functions[0], int(resume_s * 1e9))
        for tier in (Tier.NVME, Tier.REMOTE):
            c.starts.learn(tier, 0, c.functions[0], int(restore_s * 1e9))


def ask(c, f, *, every_s, until_s):
    """Let a function be asked for at an even pace."""
    for at in np.arange(every_s, until_s + 1e-9, every_s):
        c.arrivals.learn(f, 1, int(at * 1e9), within_ns=10**9)


def market(lanes=1):
    return HostMemoryMarket(lanes=lanes, outlook_s=86_400.0, waits=0.05)


def test_those_who_come_during_a_start_wait_half_of_it_on_average():
    rng = stream(1, "test")
    rate, start_s, runs = 0.7, 6.0, 20_000
    total = runs * start_s
    for _ in range(runs):
        total += (start_s - rng.uniform(0.0, start_s, rng.poisson(rate * start_s))).sum()
    assert float(waiting_s(np.array(rate), np.array(start_s))) == pytest.approx(
        total / runs, rel=0.01
    )


@pytest.mark.parametrize("seed", range(12))
def test_gpus_rank_by_the_starts_before_theirs(seed):
    c = walk(seed, 40).world.cluster
    view = ClusterView(c, snapshots=True)
    starting = (PodState.CREATING, PodState.RESTORING, PodState.RESUMING)
    pods = [pod for pod in c.pods.values() if pod.state in starting and pod.gpus]
    for f in range(len(c.functions)):
        alone = view.node_restore_ns(FunctionId(f)) / 1e9
        ready = []
        for gpu, node in enumerate(c.gpu_node):
            on = sum(gpu in pod.gpus for pod in pods)
            beside = sum(pod.node == node for pod in pods)
            ready.append(alone[node] * (1 + on + 0.1 * beside))
        assert ready_s(FunctionId(f), view) == pytest.approx(ready)
        fitting = [ready[gpu] for gpu in np.flatnonzero(view.fits(want(c, f)))]
        best = min(fitting, default=0.0)
        score = SoonestReady().score(want(c, f), view)
        assert score == pytest.approx([min(1.0, best / one) for one in ready])


def crowd(data):
    """A random cluster of idle pods, a few GPUs fuller than others; the last function is wanted.

    Host memory may be short, and a pod of the wanted function suspended there.
    """
    sizes = data.draw(st.lists(st.sampled_from([10, 20, 30, 40]), min_size=5, max_size=7))
    spread = [data.draw(st.sampled_from([1, 1, 2])) for _ in sizes[:-1]] + [1]
    functions = [function(f"f{i}", gib, gpus=spread[i]) for i, gib in enumerate(sizes)]
    c = cluster(functions, nodes=2, gpus=2)
    pod = 0
    for f in range(len(sizes) - 1):
        ask(c, f, every_s=data.draw(st.sampled_from([1.0, 3.0, 10.0])), until_s=30.0)
        for _ in range(data.draw(st.integers(0, 3))):
            gpu = data.draw(st.integers(0, 3))
            on = [gpu] if spread[f] == 1 else [gpu // 2 * 2, gpu // 2 * 2 + 1]
            hbm = c.functions[f].hbm_bytes
            if (c.gpu_hbm_open[on] >= hbm).all() and (c.gpu_milli_open[on] >= 200).all():
                add(c, pod, f, on, idle_since=pod * 10**9)
                pod += 1
    c.nvme[data.draw(st.integers(0, 1)), :] = True
    c.now_ns = 31 * 10**9
    wanted = len(sizes) - 1
    gpu = data.draw(st.integers(-1, 3))
    if gpu >= 0 and c.gpu_hbm_open[gpu] >= c.functions[wanted].hbm_bytes:
        suspend(c, add(c, pod, wanted, [gpu]))
    c.node_host_open[:] = [data.draw(st.sampled_from([0, 2, 6, 12, 400])) * GIB for _ in range(2)]
    return c, wanted


def loop_cheapest(w, view, worth):
    """Every GPU's victims by worth a share until there is room, or one alone; the least price."""
    pods, gpus, cost = view.pods, view.gpus, worth.cost(view)
    ready, best = ready_s(w.function, view), None
    for g in range(len(gpus.node)):
        rows = [r for r in np.flatnonzero(pods.idle) if g in pods.gpu[r]]
        share = {
            r: max(pods.hbm_bytes[r] / gpus.hbm_bytes_total[g], pods.milli_gpu[r] / 1000)
            for r in rows
        }
        lacks = w.hbm_bytes - gpus.hbm_bytes_free[g], w.milli_gpu - gpus.milli_free[g]
        node = gpus.node[g]
        returns = (pods.standby & (pods.function == w.function) & (pods.node == node)).any()
        host = (0 if returns else w.host_bytes) - view.nodes.host_bytes_free[node]
        sets = [[r] for r in rows]
        rows.sort(key=lambda r: cost[r] / share[r])
        sets += [rows[: n + 1] for n in range(len(rows))]
        for some in sets:
            enough = (
                pods.hbm_bytes[some].sum() >= lacks[0]
                and pods.milli_gpu[some].sum() >= lacks[1]
                and pods.host_bytes[some].sum() >= host
            )
            price = cost[some].sum()
            price += max(1, view.functions.queued[w.function]) * (ready[g] + KILL_S)
            if enough and (best is None or price < best - 1e-12):
                best = price
    return best


@given(st.data())
def test_cheapest_room_is_what_a_loop_over_gpus_finds(data):
    c, f = crowd(data)
    view, worth = ClusterView(c, snapshots=True), Worth(60.0)
    w = want(c, f)
    found = CheapestRoom(worth).cheapest(w, view)
    loop = loop_cheapest(w, view, worth)
    assert (found is None) == (loop is None)
    plan = CheapestRoom(worth).evict(w, view, stream(1, "t"))
    assert isinstance(plan, Defer) or check_evict(w, plan, c) is None
    if found is not None:
        assert found[0] == pytest.approx(loop)
        assert isinstance(plan, Evict)


def test_a_victim_is_killed_where_its_state_would_take_the_wanted_pods_host_memory():
    c = cluster([function("a", 60, 800), function("b", 60, 800)], nodes=1, gpus=1)
    learn_starts(c, resume_s=1.0, restore_s=20.0)
    ask(c, 0, every_s=0.5, until_s=30.0)
    c.nvme[:, :] = True
    c.now_ns = 31 * 10**9
    add(c, 0, 0, [0])
    view, room = ClusterView(c, snapshots=True), load_bundle("default").eviction
    for free_gib, to in ((32, Tier.DRAM), (31, Tier.NVME), (0, Tier.NVME)):
        c.node_host_open[0] = free_gib * GIB
        plan = room.evict(want(c, 1), view, stream(1, "t"))
        assert plan == Evict((GpuId(0),), ((PodId(0), to),))
        check_evict(want(c, 1), plan, c)


def test_a_gang_finds_room_by_the_same_worth():
    c = cluster([function("a", 60, 800), function("pair", 60, 1000, gpus=2)], nodes=1, gpus=2)
    add(c, 0, 0, [0])
    add(c, 1, 0, [1])
    plan = load_bundle("default").eviction.evict(
        want(c, 1), ClusterView(c, snapshots=True), stream(1, "t")
    )
    assert plan.gpus == (GpuId(0), GpuId(1))
    assert {pod for pod, _ in plan.victims} == {PodId(0), PodId(1)}
    c.pods[PodId(0)].leases[1] = None
    c.touch(c.pods[PodId(0)])
    plan = load_bundle("default").eviction.evict(
        want(c, 1), ClusterView(c, snapshots=True), stream(1, "t")
    )
    assert isinstance(plan, Defer)


def test_a_victim_with_a_copy_is_killed_and_one_without_that_is_asked_for_is_suspended():
    c = cluster([function("a", 60, 800), function("b", 60, 800)], nodes=1, gpus=2)
    learn_starts(c, resume_s=1.0, restore_s=20.0)
    ask(c, 0, every_s=0.5, until_s=30.0)
    c.nvme[:, :] = True
    c.now_ns = 31 * 10**9
    add(c, 0, 0, [0])
    view, bundle = ClusterView(c, snapshots=True), load_bundle("default")
    add(c, 1, 1, [1], state=PodState.CREATING)
    asked = want(c, 1)
    plan = bundle.eviction.evict(asked, view, stream(1, "t"))
    assert plan == Evict((GpuId(0),), ((PodId(0), Tier.DRAM),))
    copy = c.add_pod(PodId(2), FunctionId(0), (), NodeId(0))
    c.enter(copy, PodState.RESTORING)
    plan = bundle.eviction.evict(asked, view, stream(1, "t"))
    assert plan == Evict((GpuId(0),), ((PodId(0), Tier.NVME),))


def test_a_start_waits_for_a_victim_where_that_is_cheaper_than_the_free_gpu():
    c = cluster([function("a", 60, 800), function("rare", 60, 800)], nodes=2, gpus=1)
    learn_starts(c, resume_s=1.0, restore_s=60.0)
    c.nvme[:, :] = True
    suspend(c, add(c, 0, 0, [0]))
    add(c, 1, 1, [0])
    view, bundle = ClusterView(c, snapshots=True), load_bundle("default")
    # Node 1 is free, but the state of `a` lies on node 0, behind a pod that nobody asks for.
    answer = bundle.placement.place(want(c, 0), view, stream(1, "t"))
    assert answer == Defer("cheaper behind a victim")
    assert bundle.eviction.evict(want(c, 0), view, stream(1, "t")).gpus == (GpuId(0),)
    for second in range(1, 200):
        c.arrivals.learn(1, 5, second * 10**9, within_ns=10**9)
    c.now_ns = 200 * 10**9
    assert bundle.placement.place(want(c, 0), view, stream(1, "t")) == Place((GpuId(1),))
    assert bundle.placement.explain(want(c, 0), view).feasible == 1


def test_starts_spread_over_gpus_however_long_one_takes():
    c = cluster([function("a", 10), function("b", 10)], nodes=1, gpus=2)
    learn_starts(c, resume_s=1.0, restore_s=90.0)
    c.nvme[:, :] = True
    add(c, 0, 1, [0])
    add(c, 1, 1, [0], state=PodState.CREATING)
    view, bundle = ClusterView(c, snapshots=True), load_bundle("default")
    # GPU 0 is the fuller one, which is the better fit, but a start is under way there.
    assert bundle.placement.place(want(c, 0), view, stream(1, "t")) == Place((GpuId(1),))


def test_the_most_asked_for_comes_into_host_memory_first_then_the_rest():
    c = cluster([function("rare"), function("often")], nodes=1)
    c.remote[:, :] = True
    ask(c, 1, every_s=1.0, until_s=10.0)
    c.now_ns = 11 * 10**9
    view = ClusterView(c, snapshots=True)
    assert market().promote(view, stream(1, "t")) == [Promote(FunctionId(1), NodeId(0), Tier.DRAM)]
    assert [m.function for m in market(lanes=2).promote(view, stream(1, "t"))] == [1, 0]


def test_nothing_is_copied_that_saves_less_than_its_bytes_cost():
    c = cluster([function("a")], nodes=1)
    c.remote[:, :] = True
    never = HostMemoryMarket(lanes=4, outlook_s=1.0, waits=1.0)
    assert never.promote(ClusterView(c, snapshots=True), stream(1, "t")) == []


def test_those_worth_least_leave_when_memory_runs_short():
    c = cluster([function("rare"), function("often")], nodes=1)
    ask(c, 1, every_s=1.0, until_s=10.0)
    c.now_ns = 11 * 10**9
    for pod in (0, 1):
        suspend(c, add(c, pod, pod, [pod]))
    c.node_host_open[0] = int(0.04 * c.node_host_total[0])
    moves = market().promote(ClusterView(c, snapshots=True), stream(1, "t"))
    assert moves[0] == Demote(FunctionId(0), NodeId(0), Tier.DRAM)


def full(copies_of_first):
    """Two full nodes: copies of `first` or `other` on each; `new`, asked for often, has none."""
    c = cluster([function("first"), function("other"), function("new")], nodes=2, gpus=1)
    c.remote[:, :] = True
    ask(c, 2, every_s=1.0, until_s=10.0)
    c.now_ns = 11 * 10**9
    for node in range(2):
        suspend(c, add(c, node, 0 if node < copies_of_first else 1, [node]))
    c.node_host_open[:] = (0.05 * c.node_host_total + 1 * GIB).astype(np.int64)
    return c


def test_a_function_without_a_copy_displaces_the_last_of_several():
    c = full(copies_of_first=2)
    moves = market().promote(ClusterView(c, snapshots=True), stream(1, "t"))
    assert moves == [Demote(FunctionId(0), NodeId(0), Tier.DRAM)]
    # While one leaves, it may be for this: nobody else is sent away there.
    c.enter(c.pods[PodId(0)], PodState.TERMINATING)
    moves = market().promote(ClusterView(c, snapshots=True), stream(1, "t"))
    assert moves == [Demote(FunctionId(0), NodeId(1), Tier.DRAM)]


def test_nobody_is_displaced_by_what_is_worth_hardly_more():
    c = full(copies_of_first=1)
    for f in (0, 1):
        ask(c, f, every_s=1.0, until_s=10.0)
    assert market().promote(ClusterView(c, snapshots=True), stream(1, "t")) == []


def test_a_settled_market_is_not_looked_at_before_something_changes():
    c = full(copies_of_first=1)
    for f in (0, 1):
        ask(c, f, every_s=1.0, until_s=10.0)
    ours, view = market(), ClusterView(c, snapshots=True)
    assert ours.promote(view, stream(1, "t")) == []
    assert ours.promote(view, stream(1, "t")) == ()
    c.node_host_open[0] += 100 * GIB
    assert ours.promote(view, stream(1, "t"))


def test_a_copy_that_does_not_come_is_asked_for_ever_less_often():
    c = cluster([function("a")], nodes=1)
    c.nvme[:, :] = True
    ours, asked = market(), []
    for second in range(1, 1_000):
        c.now_ns = second * 10**9
        if ours.promote(ClusterView(c, snapshots=True), stream(1, "t")):
            asked.append(second)
    # Looked for each minute; missed for the sixth time it waits 64 s, then 128 s and 256 s.
    assert asked == [1, 60, 120, 180, 240, 300, 420, 600, 900]


def test_a_copy_that_came_ends_the_wait_of_its_function_alone():
    c = cluster([function("comes"), function("never")], nodes=1)
    c.nvme[:, :] = True
    ours, asked = market(lanes=2), {0: [], 1: []}
    for second in range(1, 20):
        c.now_ns = second * 10**9
        c.node_host_open[0] -= 1  # Not settled: it is looked at each second.
        for move in ours.promote(ClusterView(c, snapshots=True), stream(1, "t")):
            asked[move.function].append(second)
        if second == 9:
            copy = suspend(c, add(c, 0, 0, [0]))
        elif second == 11:
            c.enter(copy, PodState.TERMINATING)
    # Missed for the first time it waits 2 s, then 4 s and 8 s.
    assert asked == {0: [1, 4, 9, 12, 15], 1: [1, 4, 9, 18]}


def test_a_function_starts_from_where_its_state_lies():
    c = cluster([function("disk"), function("store"), function("nowhere")], nodes=1)
    c.nvme[:, 0] = True
    c.remote[:, 1] = True
    view = ClusterView(c, snapshots=True)
    loop = [
        view.starts_ns(tier)[0, f] / 1e9
        for f, tier in enumerate((Tier.NVME, Tier.REMOTE, Tier.ABSENT))
    ]
    assert far_s(view).tolist() == loop


def test_a_victim_without_a_snapshot_is_suspended_rather_than_snapshotted():
    c = cluster([function("a", 60, 800), function("b", 60, 800)], nodes=1, gpus=1)
    c.remote[:, :] = True
    add(c, 0, 0, [0])
    view, bundle = ClusterView(c, snapshots=True), load_bundle("default")
    plan = bundle.eviction.evict(want(c, 1), view, stream(1, "t"))
    assert plan == Evict((GpuId(0),), ((PodId(0), Tier.DRAM),))
    c.nvme[0, 0] = True
    plan = bundle.eviction.evict(want(c, 1), view, stream(1, "t"))
    assert plan == Evict((GpuId(0),), ((PodId(0), Tier.NVME),))


def test_no_more_victims_than_the_room_needs_where_nobody_is_asked_for():
    c = cluster([function("a", 20, 200), function("b", 20, 200)], nodes=1, gpus=1)
    c.nvme[:, :] = True
    for pod in range(4):
        add(c, pod, 0, [0], idle_since=pod)
    c.now_ns = 6 * 86_400 * 10**9
    view, bundle = ClusterView(c, snapshots=True), load_bundle("default")
    plan = bundle.eviction.evict(want(c, 1), view, stream(1, "t"))
    assert plan == Evict((GpuId(0),), ((PodId(0), Tier.NVME),))


@pytest.mark.parametrize("name", ["default", "plain"])
def test_the_last_pod_that_a_function_is_promised_stays(name):
    promised = msgspec.structs.replace(function("a", 60, 800), min_replica=1)
    c = cluster([promised, function("b", 60, 800)], nodes=1, gpus=2)
    c.nvme[:, :] = True
    add(c, 0, 0, [0])
    view, bundle = ClusterView(c, snapshots=True), load_bundle(name)
    add(c, 1, 1, [1], state=PodState.CREATING)
    assert isinstance(bundle.eviction.evict(want(c, 1), view, stream(1, "t")), Defer)
    c.enter(c.pods[PodId(1)], PodState.READY)
    c.touch(c.pods[PodId(1)])
    plan = bundle.eviction.evict(want(c, 1), view, stream(1, "t"))
    assert [pod for pod, _ in plan.victims] == [PodId(1)]


# -- room ahead of requests ---
def test_a_place_saves_what_the_starts_that_find_none_would_have_waited():
    rng, within_s, runs = stream(1, "places"), 2.5, 40_000
    for rate, places in ((0.2, 0), (1.0, 1), (2.0, 4)):
        starts = rng.poisson(rate * within_s, runs)
        found = rate * NO_PLACE_S * float((starts > places).mean())
        assert place_saves(rate, places, within_s) == pytest.approx(found, rel=0.05)


def loop_moves(view, period_s):
    """Node by node, the pods that cost least for their room go while a place saves more."""
    f, pods, gone = view.functions, view.pods, []
    asked = {i: r for i, r in enumerate(f.arrivals_per_s) if f.last_arrival_ns[i] > 0}
    away = {i: r for i, r in asked.items() if not f.ready[i] + f.starting[i]}
    away = {i: max(r, 1 / 86_400) for i, r in away.items() if f.specs[i].gpus == 1}
    size = [
        quantile(away, lambda i, k=k: getattr(f.specs[i], k)) for k in ("milli_gpu", "hbm_bytes")
    ]
    near = view.starts_ns(Tier.DRAM).min(axis=0) / 1e9
    for node in range(len(view.nodes.specs)):
        on = [int(pods.function[r]) for r in np.flatnonzero(pods.standby & (pods.node == node))]
        there = [int(pods.function[r]) for r in np.flatnonzero(pods.standby)]
        starts = sum(away.get(i, 0.0) / there.count(i) for i in on)
        room = {g: min(view.gpus.milli_free[g] / size[0], view.gpus.hbm_bytes_free[g] / size[1])
                for g in np.flatnonzero(view.gpus.node == node)}  # fmt: skip
        leaving = [PodState.TERMINATING, PodState.SUSPENDING]
        have = sum(r >= 1 for r in room.values())
        have += int((np.isin(pods.state, leaving) & (pods.node == node)).sum())
        rows = [r for r in np.flatnonzero(pods.idle & (pods.node == node)) if pods.gpu[r, 1] < 0]
        makes = {
            r: min(1.0, pods.milli_gpu[r] / size[0], pods.hbm_bytes[r] / size[1]) for r in rows
        }
        rate = {r: max(f.arrivals_per_s[pods.function[r]], 1 / 86_400) for r in rows}
        cost = {r: rate[r] * waiting_s(rate[r], near[pods.function[r]]) / makes[r] for r in rows}
        for r in sorted(rows, key=lambda r: cost[r]):
            if room[pods.gpu[r, 0]] < 1:
                if place_saves(starts, have, period_s + NO_PLACE_S) <= cost[r]:
                    break
                gone.append((int(pods.function[r]), node))
                room[pods.gpu[r, 0]] += makes[r]
                have += room[pods.gpu[r, 0]] >= 1
    return gone


def quantile(weights, value):
    """The value that `LIKELY` of the weight is not above."""
    reached, total = 0.0, sum(weights.values())
    for i in sorted(weights, key=value):
        reached += weights[i]
        if reached >= LIKELY * total - 1e-12:
            return value(i)
    raise AssertionError


@given(st.data())
def test_room_ahead_is_what_a_loop_over_nodes_makes(data):
    c, _ = crowd(data)
    pod = 100
    for f in range(len(c.functions)):
        away = not c.by_function[f]
        if away and data.draw(st.booleans()):
            ask(c, f, every_s=data.draw(st.sampled_from([0.1, 0.7, 5.0])), until_s=30.0)
            gpu = int(c.gpu_hbm_open.argmax())
            if c.functions[f].gpus == 1 and c.gpu_hbm_open[gpu] >= c.functions[f].hbm_bytes:
                suspend(c, add(c, pod, f, [gpu]))
                pod += 1
    view = ClusterView(c, snapshots=True)
    moves = RoomAhead(1.0).moves(view)
    away = (view.functions.ready + view.functions.starting == 0).any()
    asked = any(view.functions.last_arrival_ns[f] for f in range(len(c.functions) - 1))
    if away and asked:
        try:
            expected = loop_moves(view, 1.0)
        except AssertionError:  # Nobody is away that was asked for.
            expected = []
        assert [(m.function, m.node) for m in moves] == expected
    assert all(move.tier is Tier.HBM for move in moves)


def test_a_pod_on_its_way_to_host_memory_is_waited_for_if_that_is_sooner():
    c = cluster([function("a"), function("b")], nodes=1)
    learn_starts(c, resume_s=1.0, restore_s=9.0)
    c.nvme[0, :] = True
    view = ClusterView(c, snapshots=True)
    assert not comes_back(want(c, 0), view)
    pod = add(c, 1, 0, [0])
    c.enter(pod, PodState.SUSPENDING)
    assert comes_back(want(c, 0), view)
    assert not comes_back(want(c, 1), view)
    bundle = load_bundle("default")
    for slot in (bundle.placement.place, bundle.eviction.evict):
        assert slot(want(c, 0), view, stream(1, "t")) == Defer("a pod comes back")
    learn_starts(c, resume_s=8.0, restore_s=9.0)
    assert not comes_back(want(c, 0), ClusterView(c, snapshots=True))


def test_who_must_go_is_suspended_unless_a_copy_is_there():
    c = cluster([function("a")], nodes=1)
    add(c, 1, 0, [0])
    view = ClusterView(c, snapshots=True)
    assert UntilWanted().retain(FunctionId(0), Tier.HBM, view).then is Tier.DRAM
    suspend(c, add(c, 2, 0, [1]))
    assert UntilWanted().retain(FunctionId(0), Tier.HBM, view).then is Tier.NVME
    assert UntilWanted().retain(FunctionId(0), Tier.DRAM, view).then is Tier.ABSENT

"""The kernel's check of proposals: each broken rule is told, and nothing is charged for it."""

import numpy as np
import pytest
from kernel_world import FUNCTIONS, NODES, function, want_of

from inferx.core.cluster import Cluster
from inferx.core.errors import PolicyError
from inferx.core.lifecycle import PodState
from inferx.core.machine.proposals import (
    check_evict,
    check_move,
    check_place,
    check_retain,
    check_targets,
)
from inferx.core.machine.room import room_by_draining
from inferx.core.pod import Pod
from inferx.core.protocols import Demote, Evict, Place, Promote, Retain
from inferx.core.types import FunctionId, GpuId, NodeId, PodId, Tier
from inferx.core.units import FOREVER_NS, GIB

G = GpuId
MORE = (
    *FUNCTIONS,
    function("hungry", host_bytes=90 * GIB, device_bytes=6 * GIB),
    function("fat", hbm_bytes=60 * GIB),
)


@pytest.fixture
def c() -> Cluster:
    c = Cluster(NODES, MORE)
    for n in range(len(NODES)):
        c.set_schedulable(NodeId(n), yes=True)
    return c


def pod(c: Cluster, f: int, gpus: tuple[int, ...], state: PodState = PodState.READY) -> Pod:
    new = c.add_pod(
        PodId(len(c.pods)), FunctionId(f), tuple(map(G, gpus)), NodeId(int(c.gpu_node[gpus[0]]))
    )
    if state is PodState.INIT:
        return new
    c.charge_gpus(new)
    c.charge_host(new, MORE[f].host_bytes)
    c.enter(new, PodState.CREATING)
    c.enter(new, PodState.READY)
    if state is PodState.STANDBY:
        c.enter(new, PodState.SUSPENDING)
        c.release_gpus(new)
        c.charge_host(new, MORE[f].host_bytes + MORE[f].device_bytes)
        c.move(new, ())
        c.enter(new, PodState.STANDBY)
    return new


def refused(c: Cluster, check, *arguments: object) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        check(*arguments)
    c.check()
    return caught.value


@pytest.mark.parametrize(
    ("f", "gpus", "told"),
    [
        (0, (), "1 distinct GPUs"),
        (2, (0, 0), "2 distinct GPUs"),
        (0, (99,), "no GPU 99"),
        (0, (-1,), "no GPU -1"),
        (4, (0,), "not a B"),
        (2, (1, 2), "not of the one node"),
        (1, (1,), "GPU 1 is too full"),
        (7, (1,), "GPU 1 is too full"),
        (6, (2,), "too little host memory"),
    ],
)
def test_a_broken_placement_is_refused(c: Cluster, f: int, gpus: tuple, told: str) -> None:
    pod(c, 5, (1,))
    error = refused(c, check_place, want_of(c, f), Place(gpus), c)
    assert told in error.check
    assert error.slot == "placement"


def test_a_placement_on_a_closed_or_an_unwanted_node_is_refused(c: Cluster) -> None:
    assert "not of the one" in refused(c, check_place, want_of(c, 0, at=1), Place((G(0),)), c).check
    c.set_schedulable(NodeId(0), yes=False)
    assert "no new pods" in refused(c, check_place, want_of(c, 0), Place((G(0),)), c).check
    check_place(want_of(c, 0, at=1), Place((G(2),)), c)


def test_a_suspended_pod_brings_its_host_memory(c: Cluster) -> None:
    pod(c, 6, (0,), PodState.STANDBY)
    # There is no room for a second process, and none is needed.
    check_place(want_of(c, 6), Place((G(1),)), c)


def test_broken_evictions_are_refused(c: Cluster) -> None:
    ready, init = pod(c, 1, (0,)), pod(c, 0, (1,), PodState.INIT)
    suspended = pod(c, 5, (1,), PodState.STANDBY)
    busy = pod(c, 5, (2,))
    w = want_of(c, 1)

    def told(gpus: tuple[int, ...], *victims: tuple[int, Tier]) -> str:
        error = refused(c, check_evict, w, Evict(tuple(map(G, gpus)), victims), c)
        assert error.slot == "eviction"
        return error.check

    assert "no GPUs and no victims" in told(())
    assert "is not there" in told((0,), (99, Tier.NVME))
    assert "named twice" in told((0,), (ready.id, Tier.NVME), (ready.id, Tier.NVME))
    assert "is INIT" in told((0,), (init.id, Tier.NVME))
    assert "cannot sink to HBM" in told((0,), (ready.id, Tier.HBM))
    assert "cannot sink to DRAM" in told((0,), (suspended.id, Tier.DRAM))
    assert "1 distinct GPUs" in told((0, 1), (ready.id, Tier.NVME))
    assert "stays too full" in told((2,), (ready.id, Tier.NVME))
    ready.blocks = busy.id
    assert "is READY" in told((0,), (ready.id, Tier.NVME))
    ready.blocks = PodId(-1)
    # Legal ones, with and without GPUs.
    check_evict(w, Evict((G(0),), ((ready.id, Tier.DRAM),)), c)
    check_evict(w, Evict((), ((suspended.id, Tier.NVME),)), c)


def test_an_eviction_counts_what_suspended_victims_take_of_host_memory(c: Cluster) -> None:
    victim = pod(c, 1, (0,))
    w = want_of(c, 6)
    # 100 GiB, the victim's 4: it frees them if it goes to disk, and takes 40 more if it does not.
    check_evict(w, Evict((G(0),), ((victim.id, Tier.NVME),)), c)
    error = refused(c, check_evict, w, Evict((G(0),), ((victim.id, Tier.DRAM),)), c)
    assert "too little host memory" in error.check
    # The wanted function's own suspended pod brings its memory, unless it is to leave as well.
    own = pod(c, 6, (1,), PodState.STANDBY)
    check_evict(w, Evict((G(0),), ((victim.id, Tier.NVME),)), c)
    keeper = pod(c, 0, (2,))
    error = refused(
        c, check_evict, w, Evict((G(2),), ((own.id, Tier.NVME), (keeper.id, Tier.NVME))), c
    )
    assert "too little host memory" in error.check


@pytest.mark.parametrize(
    ("hold", "then", "at"),
    [(-1, Tier.NVME, Tier.HBM), (0, Tier.HBM, Tier.HBM), (0, Tier.DRAM, Tier.DRAM)],
)
def test_a_broken_hold_is_refused(hold: int, then: Tier, at: Tier) -> None:
    with pytest.raises(PolicyError, match="keep_alive policy: a hold >= 0 and a tier below"):
        check_retain(Retain(hold, then), at)
    check_retain(Retain(FOREVER_NS, Tier.ABSENT), at)


@pytest.mark.parametrize(
    "move",
    [
        Promote(FunctionId(-1), NodeId(0), Tier.HBM),
        Promote(FunctionId(0), NodeId(9), Tier.HBM),
        Promote(FunctionId(0), NodeId(0), Tier.REMOTE),
        Demote(FunctionId(99), NodeId(0), Tier.NVME),
        Demote(FunctionId(0), NodeId(0), Tier.REMOTE),
    ],
)
def test_a_broken_move_is_refused(c: Cluster, move: Promote | Demote) -> None:
    assert refused(c, check_move, move, c).slot == "prewarm"


def test_targets_are_one_for_each_function(c: Cluster) -> None:
    check_targets(None, c)
    check_targets(np.zeros(len(MORE), np.int32), c)
    assert refused(c, check_targets, np.zeros(3, np.int32), c).slot == "scaling"


# -- the kernel's own last resort ---
def test_room_is_made_where_the_fewest_leased_slots_are_in_the_way(c: Cluster) -> None:
    one, two = pod(c, 1, (0,)), pod(c, 1, (2,))
    pod(c, 1, (1,))
    pod(c, 1, (3,))
    for each in c.pods.values():
        each.leased_slots = 1
    two.leased_slots = 0
    w = want_of(c, 7)
    plan = room_by_draining(w, c, grace_ns=0)
    assert plan == Evict((G(2),), ((two.id, Tier.NVME),))
    check_evict(w, plan, c)
    # Where its node is said, there.
    plan = room_by_draining(want_of(c, 7, at=0), c, grace_ns=0)
    assert plan == Evict((G(0),), ((one.id, Tier.NVME),))


def test_room_for_a_gang_clears_several_gpus_of_one_node(c: Cluster) -> None:
    for gpu in range(4):
        pod(c, 1, (gpu,))
    plan = room_by_draining(want_of(c, 2), c, grace_ns=0)
    assert plan is not None
    assert plan.gpus == (0, 1)
    assert [p for p, _ in plan.victims] == [0, 1]


def test_room_in_host_memory_is_made_by_dropping_suspended_pods(c: Cluster) -> None:
    suspended = pod(c, 1, (0,), PodState.STANDBY)
    w = want_of(c, 6, at=0)
    plan = room_by_draining(w, c, grace_ns=0)
    assert plan is not None
    assert (suspended.id, Tier.NVME) in plan.victims
    check_evict(w, plan, c)


def test_room_is_not_made_of_pods_that_have_just_become_ready(c: Cluster) -> None:
    fresh, settled = pod(c, 1, (0,)), pod(c, 1, (1,))
    c.now_ns = fresh.ready_ns = 100
    settled.leased_slots = 1
    w = want_of(c, 7, at=0)
    assert room_by_draining(w, c, grace_ns=0) == Evict((G(0),), ((fresh.id, Tier.NVME),))
    assert room_by_draining(w, c, grace_ns=100) == Evict((G(1),), ((settled.id, Tier.NVME),))
    assert room_by_draining(w, c, grace_ns=101) is None


def test_room_in_host_memory_is_made_of_live_pods_where_no_suspended_one_helps(c: Cluster) -> None:
    pod(c, 0, (0,))
    c.charge_host(c.pods[PodId(0)], 12 * GIB)
    plan = room_by_draining(want_of(c, 6, at=0), c, grace_ns=0)
    assert plan is not None
    assert plan.victims == ((0, Tier.NVME),)
    check_evict(want_of(c, 6, at=0), plan, c)


def test_there_is_no_room_where_pods_of_its_own_or_in_mid_action_are_in_the_way(c: Cluster) -> None:
    pod(c, 7, (0,))
    starting = pod(c, 7, (1,), PodState.INIT)
    c.charge_gpus(starting)
    c.enter(starting, PodState.CREATING)
    assert room_by_draining(want_of(c, 7, at=0), c, grace_ns=0) is None
    # Nothing is in the way: that is placement's business.
    assert room_by_draining(want_of(c, 0, at=1), c, grace_ns=0) is None
    c.set_schedulable(NodeId(1), yes=False)
    assert room_by_draining(want_of(c, 1, at=1), c, grace_ns=0) is None
    # A gang of which one half could be cleared.
    pod(c, 1, (2,))
    c.set_schedulable(NodeId(1), yes=True)
    busy = pod(c, 1, (3,), PodState.INIT)
    c.charge_gpus(busy)
    c.enter(busy, PodState.CREATING)
    assert room_by_draining(want_of(c, 2, at=1), c, grace_ns=0) is None


def test_there_is_no_room_where_host_memory_is_held_by_pods_that_stay(c: Cluster) -> None:
    for n, gpu in ((0, 0), (1, 2)):
        keeper = pod(c, 0, (gpu,), PodState.INIT)
        c.charge_host(keeper, 50 * GIB if n == 0 else 10 * GIB)
    pod(c, 1, (1,))
    assert room_by_draining(want_of(c, 6), c, grace_ns=0) is None

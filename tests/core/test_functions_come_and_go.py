"""Functions are defined, changed and retired under machines that run."""

import msgspec
import pytest
from kernel_world import NODES, World, function

from inferx.core.commands import Refuse, RefuseLease
from inferx.core.errors import LocalProtocolError
from inferx.core.events import (
    FunctionDefined,
    FunctionRetired,
    LeaseAsked,
    NodeJoined,
    RequestArrived,
    RequestCancelled,
)
from inferx.core.machine.router import Router
from inferx.core.machine.scheduler import Scheduler
from inferx.core.rng import stream
from inferx.core.types import NO_FUNCTION, FunctionId, NodeId, RequestId, RouterId, Tier
from inferx.core.units import GIB, NS_PER_S
from inferx.load import load_bundle

S = NS_PER_S
F, G = FunctionId(0), FunctionId(1)


def world(**more) -> World:
    return World(load_bundle("plain"), nodes=NODES[:1], functions=(function("f"),), **more)


def router() -> Router:
    return Router(RouterId(0), (function("f"),), load_bundle("plain"), stream(1, "x"))


def scheduler(bundle: str = "default") -> Scheduler:
    functions = (function("f"),)
    return Scheduler(NODES[:1], functions, load_bundle(bundle), stream(1, "x"))


def test_a_function_that_is_defined_later_is_served() -> None:
    w = world()
    w.run(S)
    w.define(function("g", slots=1))
    w.arrive(1)
    w.arrive(0)
    w.settle()
    w.check_rest()
    assert set(w.ended.values()) == {"finished"}
    assert w.scheduler.view.functions.slots.tolist() == [2, 1]
    assert w.scheduler.view.functions.ready.tolist() == [1, 1]


def test_a_policy_of_whole_gpus_gives_them_to_later_functions_too() -> None:
    s = scheduler("dedicated")
    s.step(0, (FunctionDefined(G, function("g")),))
    assert s.view.functions.milli_gpu.tolist() == [1000, 1000]


def test_serving_rules_change_and_what_pods_hold_does_not() -> None:
    s, r = scheduler(), router()
    wider = function("f", max_replica=7, queue_len=1)
    s.step(0, (FunctionDefined(F, wider),))
    assert s.view.spec(F).max_replica == 7
    r.step(0, (FunctionDefined(F, wider), RequestArrived(RequestId(1), F)))
    step = r.step(0, (RequestArrived(RequestId(2), F),))
    assert step.commands == (Refuse(RequestId(2), "queue full"),)
    with pytest.raises(AssertionError, match="what a pod holds cannot change"):
        s.step(0, (FunctionDefined(F, function("f", hbm_bytes=GIB)),))


def test_ids_of_functions_leave_no_gap() -> None:
    for machine in (scheduler(), router()):
        with pytest.raises(LocalProtocolError, match="function 3 is defined, expected"):
            machine.step(0, (FunctionDefined(FunctionId(3), function("g")),))


def test_a_retired_function_ends_what_it_runs_and_keeps_nothing() -> None:
    w = world(on_disk=[0])
    w.arrive(0)
    w.run(5 * S)
    assert w.serving
    w.retire(0)
    w.retire(0)
    w.settle()
    w.check_rest()
    assert w.ended == {0: "finished"}
    assert not w.cluster.pods
    assert not w.cluster.nvme.any()
    w.tell_scheduler(LeaseAsked(RouterId(0), F, 1, 0, 0, 99))
    assert any("scheduler -> RefuseLease" in line for line in w.log)


def test_a_node_that_comes_back_drops_its_snapshots_of_what_was_retired_meanwhile() -> None:
    functions = (function("f"), function("g"))
    w = World(load_bundle("plain"), nodes=NODES[:2], functions=functions, on_disk=[0])
    w.run(S)
    w.lose(1, disk=True)
    w.detect(1)
    w.retire(0)
    w.retire(1)
    w.settle()
    assert not w.cluster.nvme.any()
    assert w.disk[1]
    w.restart(1)
    w.report(1)
    w.settle()
    w.check_rest()
    assert not w.cluster.nvme.any()
    assert not w.disk[1]


def test_a_pod_on_its_way_when_its_function_is_retired_ends_when_it_is_there() -> None:
    w = world(remote=False)
    w.arrive(0)
    w.run(S)
    w.retire(0)
    assert w.ended == {0: "function removed"}
    w.settle()
    w.check_rest()
    assert not w.cluster.pods


def test_a_pod_being_suspended_when_its_function_is_retired_ends_after() -> None:
    w = world(on_disk=[0])
    w.arrive(0)
    w.run(20 * S)
    (pod,) = w.cluster.pods.values()
    w.scheduler.fleet.sink(pod, Tier.DRAM)
    w.tell_scheduler()
    w.run(S // 2)
    w.retire(0)
    w.settle()
    w.check_rest()
    assert not w.cluster.pods


def test_who_waits_goes_to_the_successor_and_may_still_leave() -> None:
    r = router()
    spec = function("f@2")
    r.step(0, (FunctionDefined(G, spec), RequestArrived(RequestId(1), F)))
    r.step(1, (RequestArrived(RequestId(2), F),))
    step = r.step(2, (FunctionRetired(F, G), FunctionRetired(F, G)))
    assert {c.function for c in step.commands} == {G}
    assert (r.queued(F), r.queued(G)) == (0, 2)
    # Late ones go there as well; a client of an old one can still leave.
    r.step(3, (RequestArrived(RequestId(3), F), RequestCancelled(RequestId(2), F)))
    assert r.queued(G) == 2
    assert (r.arrived, r.cancelled) == (3, 1)
    # They wait no longer than they could have waited.
    (refused,) = (c for c in r.step(spec.queue_timeout_ns, ()).commands if isinstance(c, Refuse))
    assert refused == Refuse(RequestId(1), "queue timeout")


def test_without_a_successor_who_waits_is_refused_and_so_is_who_comes() -> None:
    r = router()
    r.step(0, (RequestArrived(RequestId(1), F),))
    step = r.step(1, (FunctionRetired(F, NO_FUNCTION), RequestArrived(RequestId(2), F)))
    assert step.commands == (
        Refuse(RequestId(1), "function removed"),
        Refuse(RequestId(2), "function removed"),
    )
    assert r.step(2, (RequestCancelled(RequestId(2), F),)).commands == ()
    assert (r.arrived, r.refused) == (2, 2)


def test_demand_for_a_retired_function_is_refused_to_each_router_that_waits() -> None:
    s = scheduler()
    full = msgspec.structs.replace(function("f"), milli_gpu=1000)
    s.step(0, (FunctionDefined(G, full), NodeJoined(NodeId(0), 0)))
    for r in (0, 1):
        s.step(0, (LeaseAsked(RouterId(r), G, 1, 0, 0, 1),))
    s.step(0, (LeaseAsked(RouterId(1), G, 0, 0, 0, 2),))
    step = s.step(1, (FunctionRetired(G),))
    assert step.commands == (RefuseLease(RouterId(0), G, "function removed"),)

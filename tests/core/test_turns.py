"""Whose turn it is: a queue policy chooses among those who wait, and hears what became of them."""

from dataclasses import replace

import pytest
from kernel_world import World, function, node

from inferx.core.commands import Dispatch, Refuse
from inferx.core.errors import LocalProtocolError, PolicyError
from inferx.core.events import (
    LeaseGranted,
    RequestArrived,
    RequestCancelled,
    RequestFailed,
    RequestFinished,
)
from inferx.core.machine.router import Router
from inferx.core.rng import stream
from inferx.core.types import FunctionId, LeaseId, PodId, RequestId, RouterId
from inferx.core.units import GIB, NS_PER_S
from inferx.policy import Tier
from inferx.policy.basics import FixedHold, NoPrewarm
from inferx.policy.default import bundle as default_bundle
from inferx.policy.scale_to_zero import bundle as without_snapshots

S = NS_PER_S
F = FunctionId(0)


class Latest:
    """Serves whoever came last, and writes down what it hears."""

    def __init__(self):
        self.heard = []

    def next_request(self, waiting, view):
        self.heard.append(("which", [one.request.request for one in waiting], view.now_ns))
        return len(waiting) - 1

    def next_want(self, wants, view):
        self.heard.append(("want", [int(want.function) for want in wants]))
        return len(wants) - 1

    def arrived(self, request, waiting, view):
        self.heard.append(("arrived", request.request, len(waiting)))

    def started(self, request, view):
        self.heard.append(("started", request.request))

    def ended(self, request, output_tokens, view):
        self.heard.append(("ended", request.request, output_tokens))


class Broken:
    """Fails whatever it is asked or told."""

    def next_request(self, waiting, view):
        return len(waiting)

    def next_want(self, wants, view):
        return -1

    def arrived(self, request, waiting, view):
        raise ValueError

    started = ended = arrived


def router(policy, *, strict=True, **spec):
    specs = [function("f", **spec)]
    bundle = replace(default_bundle(), queueing=policy)
    return Router(RouterId(0), specs, bundle, stream(1, "r"), strict=strict)


def arrive(r, at, *requests, **more):
    return r.step(at, [RequestArrived(RequestId(i), F, **more) for i in requests])


def grant(r, at, slots=1, pod=0):
    return r.step(at, [LeaseGranted(LeaseId(pod), F, PodId(pod), slots, True)])


def end(r, at, request, tokens=0, pod=0):
    return r.step(at, [RequestFinished(RequestId(request), PodId(pod), tokens)])


def dispatched(step):
    return [c.request for c in step.commands if isinstance(c, Dispatch)]


def refused(step):
    return [c.request for c in step.commands if isinstance(c, Refuse)]


def test_freed_slots_go_to_whose_turn_it_is_and_one_who_waits_alone_is_not_asked_about():
    policy = Latest()
    r = router(policy)
    arrive(r, 0, 0, 1, 2)
    assert dispatched(grant(r, 1, slots=2)) == [2, 1]
    assert dispatched(end(r, 2, 2, tokens=7)) == [0]
    assert dispatched(arrive(r, 3, 3)) == []
    r.step(4, [RequestFailed(RequestId(1), PodId(0))])
    end(r, 5, 0)
    assert policy.heard == [
        ("arrived", 0, 0),
        ("arrived", 1, 1),
        ("arrived", 2, 2),
        ("which", [0, 1, 2], 1),
        ("started", 2),
        ("which", [0, 1], 1),
        ("started", 1),
        ("ended", 2, 7),
        ("started", 0),
        ("arrived", 3, 0),
        ("ended", 1, 0),
        ("started", 3),
        ("ended", 0, 0),
    ]


def test_a_request_that_need_not_wait_is_told_of_as_well():
    policy = Latest()
    r = router(policy)
    grant(r, 0)
    assert dispatched(arrive(r, 1, 0)) == [0]
    assert policy.heard == [("arrived", 0, 0), ("started", 0)]


def test_a_policy_need_not_listen():
    class Deaf:
        next_want = Latest.next_want

        def next_request(self, waiting, view):
            return 1

    r = router(Deaf())
    arrive(r, 0, 0, 1)
    assert dispatched(grant(r, 1)) == [1]
    assert dispatched(end(r, 2, 1)) == [0]


def test_those_who_were_turned_away_are_not_told_of():
    policy = Latest()
    r = router(policy, queue_len=1)
    assert refused(arrive(r, 0, 0, 1)) == [1]
    assert policy.heard == [("arrived", 0, 0)]


def test_the_queue_stays_in_the_order_of_arrival_when_one_leaves_its_middle():
    policy = Latest()
    r = router(policy)
    arrive(r, 0, 0, 1, 2, 3)
    r.step(1, [RequestCancelled(RequestId(1), F)])
    grant(r, 2)
    assert ("which", [0, 2, 3], 2) in policy.heard


@pytest.mark.parametrize("policy", [None, Latest()])
def test_each_request_is_refused_at_its_own_deadline_wherever_it_stands(policy):
    r = router(policy, queue_timeout_ns=30 * S)
    assert arrive(r, 0, 0).deadline_ns == S  # To ask again, and to report.
    arrive(r, 1, 1, deadline_ns=5 * S)
    arrive(r, 2, 2, deadline_ns=3 * S)
    arrive(r, 3, 3, deadline_ns=5 * S)
    late = {}
    now = 3
    while r.waiting():
        step = r.step(now, ())
        late |= dict.fromkeys(refused(step), now)
        now = max(now, step.deadline_ns or now)
    assert late == {2: 3 * S, 1: 5 * S, 3: 5 * S, 0: 30 * S}
    # A queue that was empty is in order again.
    arrive(r, 40 * S, 4)
    arrive(r, 41 * S, 5)
    assert refused(r.step(70 * S, ())) == [4]
    assert refused(r.step(71 * S, ())) == [5]


def test_timers_that_an_earlier_deadline_overtook_do_not_pile_up():
    r = router(None, queue_len=20, queue_timeout_ns=1000 * S)
    arrive(r, 0, 0)
    for i in range(1, 11):
        arrive(r, i, i, deadline_ns=(21 - i) * S)
    for second in range(1, 30):
        r.step(second * S, ())
    assert r.waiting() == 1
    assert sum(at == 1000 * S for at, *_ in r._timers) <= 2


def test_a_bad_answer_ends_a_strict_run():
    for event in ([0], [0, 1]):
        with pytest.raises(PolicyError, match="queueing policy: it raised ValueError"):
            arrive(router(Broken()), 0, *event)

    class TooFar(Latest):
        next_request = Broken.next_request

    r = router(TooFar())
    arrive(r, 0, 0, 1)
    with pytest.raises(PolicyError, match=r"returned 2; expected an index in 0..1 from next_req"):
        grant(r, 1)


def test_in_production_a_bad_answer_is_counted_and_the_oldest_is_served():
    r = router(Broken(), strict=False)
    arrive(r, 0, 0, 1)
    assert dispatched(grant(r, 1)) == [0]
    assert dispatched(end(r, 2, 0)) == [1]
    # Two arrivals, one question, two starts, one end.
    assert r.policy_errors == 6


def test_an_end_of_what_was_not_in_service_is_our_own_mistake():
    r = router(Latest())
    grant(r, 0)
    with pytest.raises(LocalProtocolError, match="request 9: it ended, and was not in service"):
        end(r, 1, 9)


# -- room ---
def full(policy, *, wanting, **more):
    """A GPU that function 0 holds; the others want all or half of it, and wait until it leaves."""
    functions = (
        function("holder", milli_gpu=1000, hbm_bytes=70 * GIB, slots=1, linger_ns=20 * S),
        *wanting,
    )
    bundle = replace(
        without_snapshots(),
        whole_gpus=False,
        keep_alive=FixedHold(S, Tier.ABSENT),
        prewarm=NoPrewarm(),
        scaling=default_bundle().scaling,
        queueing=policy,
    )
    world = World(bundle, nodes=(node("a-0", gpus=1),), functions=functions, **more)
    world.arrive(0)
    world.run(15 * S)
    for f in range(1, len(functions)):
        for _ in range(functions[f].slots * functions[f].max_replica):
            world.arrive(f)
        world.run(S // 10)
    world.run(25 * S)
    return [d.function for d in world.decisions if d.kind == "place"][1:]


HALF = {"milli_gpu": 500, "hbm_bytes": 35 * GIB, "slots": 1, "queue_timeout_ns": 300 * S}


def test_room_goes_to_the_longest_wait_or_to_whose_turn_it_is():
    whole = [function(n, milli_gpu=1000, hbm_bytes=70 * GIB, slots=1, max_replica=1) for n in "abc"]
    assert full(None, wanting=whole)[:1] == [1]
    policy = Latest()
    assert full(policy, wanting=whole)[:1] == [3]
    # Who found no room is not asked about again at that instant.
    wants = [names for what, names in (h for h in policy.heard if h[0] == "want")]
    assert wants[:2] == [[1, 2, 3], [1, 2]]


class InTurn(Latest):
    """Room for one pod of each, over and over."""

    def __init__(self):
        super().__init__()
        self.last = 0

    def next_want(self, wants, view):
        functions = [int(want.function) for want in wants]
        after = [f for f in functions if f > self.last]
        self.last = after[0] if after else functions[0]
        return functions.index(self.last)


def test_a_turn_is_one_pod():
    wanting = [function(n, **{**HALF, "milli_gpu": 250, "hbm_bytes": 17 * GIB}) for n in "ab"]
    assert full(None, wanting=wanting)[:4] == [1, 1, 2, 2]
    assert full(InTurn(), wanting=wanting)[:4] in ([1, 2, 1, 2], [2, 1, 2, 1])


def test_in_production_room_goes_to_the_longest_wait_where_the_policy_fails():
    class NoWants(Latest):
        next_want = Broken.next_want

    whole = [function(n, milli_gpu=1000, hbm_bytes=70 * GIB, max_replica=1) for n in "ab"]
    assert full(NoWants(), wanting=whole, strict=False)[:1] == [1]
    with pytest.raises(PolicyError, match=r"returned -1; expected an index in 0..1 from next_want"):
        full(NoWants(), wanting=whole)

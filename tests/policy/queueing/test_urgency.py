"""The most urgent first: by priority, and by deadline."""

import heapq

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from one_queue import OneQueue
from small_cluster import cluster, wants
from small_cluster import function as small_function

from inferx.core.events import RequestArrived
from inferx.core.rng import stream
from inferx.core.types import FunctionId, RequestId
from inferx.core.units import NS_PER_S
from inferx.core.view import ClusterView
from inferx.load import load_bundle
from inferx.policy import Waiting

S = NS_PER_S


def queueing(name):
    return load_bundle(name).queueing


# -- priority ---
@pytest.mark.parametrize("load", [0.6, 0.8])
def test_mean_waits_by_priority_are_cobhams(load):
    """Cobham 1954, JORSA 2(1), pp. 70-76: of random arrivals at one server, class k waits a mean of
    W0 / ((1 - s(k-1)) (1 - s(k))), s(k) the load of classes 1 to k, W0 the residual service.
    """
    rng = stream(7, "cobham")
    count = 30_000
    at = rng.exponential(1.0 / load, count).cumsum()
    urgent = rng.random(count) < 0.4
    service = rng.exponential(1.0, count)
    q = OneQueue(queueing("priority"))
    waits = {True: [], False: []}
    ends, served = [], 0

    def note():
        nonlocal served
        for request in q.started[served:]:
            waits[bool(urgent[request])].append(q.now / S - at[request])
            heapq.heappush(ends, (q.now + int(service[request] * S), request))
        served = len(q.started)

    for i in range(count):
        while ends and ends[0][0] <= at[i] * S:
            end, request = heapq.heappop(ends)
            q.end(request, end)
            note()
        q.arrive(int(at[i] * S), priority=int(urgent[i]))
        note()
    first, both = 0.4 * load, load
    expected = {True: load / (1 - first), False: load / ((1 - first) * (1 - both))}
    for which, values in waits.items():
        assert sum(values) / len(values) == pytest.approx(expected[which], rel=0.1)


def test_equal_priorities_go_by_age_and_functions_have_their_own():
    q = OneQueue(queueing("priority"))
    for priority in (0, 1, 2, 1, 2):
        q.arrive(priority=priority)
    q.drain()
    assert q.started == [0, 2, 4, 1, 3]
    functions = [
        msgspec.structs.replace(small_function(n), priority=p)
        for n, p in zip("abc", (0, 5, 5), strict=True)
    ]
    c = cluster(functions)
    view = ClusterView(c, snapshots=True)
    assert queueing("priority").next_want(wants(c, 0, 2, 1), view) == 1


# -- earliest deadline ---
def feasible(jobs):
    """Tell whether unit jobs (release, last start) can all start in time: a matching to seconds."""
    taken = {}

    def place(job, seen):
        for second in range(jobs[job][0], jobs[job][1] + 1):
            if second not in seen:
                seen.add(second)
                if second not in taken or place(taken[second], seen):
                    taken[second] = job
                    return True
        return False

    return all(place(job, set()) for job in range(len(jobs)))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 6)), min_size=1, max_size=12))
def test_earliest_deadline_meets_every_deadline_that_can_be_met(jobs):
    """Jackson 1955, research report 43, and Liu, Layland 1973, JACM 20(1), p. 55, section 7.

    For jobs of one length that come one by one at multiples of it: one server meets all deadlines
    in the order of deadlines if it does in any.
    """
    jobs = sorted((release, release + slack) for release, slack in jobs)
    q = OneQueue(queueing("earliest-deadline"), open_=False)
    came = {}
    for second in range(24):
        q.pass_time(second * S)
        for job, (release, last) in enumerate(jobs):
            if release == second:
                came[q.arrive(deadline_ns=last * S + 1)] = job
        if second:
            q.end()
        else:
            q.open()
        if not q.running:
            # So that a job is chosen among all of its second, not the first to come.
            q.arrive()
    begun = [came[request] for request in q.started if request in came]
    assert sorted(begun + [came[request] for request in q.refused]) == list(range(len(jobs)))
    assert (not q.refused) == feasible(jobs)


def test_deadlines_are_own_or_the_functions_and_wants_have_their_oldest_requests():
    policy = queueing("earliest-deadline")

    def one(request, deadline):
        return Waiting(RequestArrived(RequestId(request), FunctionId(0)), 0, deadline)

    assert policy.next_request([one(0, 5), one(1, 3), one(2, 3)], None) == 1
    slow, fast = (
        msgspec.structs.replace(small_function(n), queue_timeout_ns=s * S)
        for n, s in (("slow", 60), ("fast", 10))
    )
    c = cluster([slow, fast])
    view = ClusterView(c, snapshots=True)
    assert policy.next_want(wants(c, 0, 1, since=[0, 49 * S]), view) == 1
    assert policy.next_want(wants(c, 0, 1, since=[0, 51 * S]), view) == 0

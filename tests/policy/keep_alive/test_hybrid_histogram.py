"""The hybrid histogram against its rule written as a loop, and in a replay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_cluster import add, cluster, function

from inferx.core.events import LeaseAsked, LoadReported
from inferx.core.lifecycle import PodState
from inferx.core.rng import stream
from inferx.core.types import RouterId
from inferx.core.view import ClusterView
from inferx.load import LoadError, load_bundle
from inferx.policy import FOREVER_NS, FunctionId, NodeId, Promote, Retain, Tier

MINUTE_NS = 60 * 10**9
RANGE_NS = 240 * MINUTE_NS


class Life:
    """One function's life: requests that take no time, and the control loop when it is called."""

    def __init__(self, nodes=2, **settings):
        self.c = cluster([function("a"), function("b", 80, 1000)], nodes=nodes, gpus=1)
        self.c.nvme[1, :] = True
        self.made = load_bundle("hybrid-histogram", settings)
        self.learner = self.made.keep_alive
        self._asks = 0

    @property
    def view(self):
        return ClusterView(self.c, snapshots=True)

    def after(self, minutes):
        self.c.now_ns += round(minutes * MINUTE_NS)

    def see(self, event):
        for observer in self.made.observers:
            observer.observe(self.c.now_ns, event)

    def ask(self):
        self._asks += 1
        self.see(LeaseAsked(RouterId(0), FunctionId(0), 1, 0, self.c.now_ns, self._asks))

    def serve(self, arrivals=1):
        """Serve a request, or several on one lease, and give the pod back."""
        self.ask()
        self.see(LoadReported(RouterId(0), 10**9, (0,), (arrivals,), (0,), (0,)))
        return self.learner.retain(FunctionId(0), Tier.HBM, self.view)

    def promote(self):
        return list(self.made.prewarm.promote(self.view, stream(1, "t")))


def published(idle_times_min, bins=240):
    """The windows in minutes: standard keep-alive, or P5 less and P99 more by 10 %."""
    counts = [0] * bins
    for idle in idle_times_min:
        if idle < bins:
            counts[int(idle)] += 1
    inside = sum(counts)
    mean = inside / bins
    spread = (sum((count - mean) ** 2 for count in counts) / bins) ** 0.5
    if not inside or len(idle_times_min) >= 2 * inside or spread < 2 * mean:
        return 0, bins
    below, head, tail = 0, None, None
    for index, count in enumerate(counts):
        below += count
        head = index if head is None and below >= 0.05 * inside else head
        tail = index + 1 if tail is None and below >= 0.99 * inside else tail
    return 0.9 * head, 1.1 * tail


@given(st.lists(st.one_of(st.integers(0, 30), st.integers(0, 300)), max_size=40))
def test_windows_are_those_of_the_published_rule(idle_times):
    """Shahrad et al. 2020, USENIX ATC, pp. 205-218, section 4: the windows, written as a loop."""
    life = Life()
    life.serve()
    for idle in idle_times:
        life.after(idle + 0.25)
        life.serve()
    windows = life.learner.windows_ns(0)
    expected = published([idle + 0.25 for idle in idle_times])
    assert windows == pytest.approx([m * MINUTE_NS for m in expected], abs=1)


def test_a_function_asked_for_each_half_hour_leaves_and_is_back():
    """Shahrad et al. 2020, USENIX ATC, pp. 205-218, section 4: unloaded at once, brought back when
    the head has passed, gone at the tail.

    All idle times lie in the bin of minute 30: the head is 30 less 10 %, the tail 31 more 10 %.
    """
    life = Life()
    for _ in range(3):
        life.serve()
        life.after(30.5)
    assert life.serve() == Retain(0, Tier.DRAM)
    life.after(26)
    assert life.promote() == []
    life.after(0.75)
    # Node 1 has its snapshot; the loop acts at most half a minute early.
    assert life.promote() == [Promote(FunctionId(0), NodeId(1), Tier.HBM)]
    assert life.promote() == []
    life.after(0.25)
    held = life.learner.retain(FunctionId(0), Tier.HBM, life.view)
    assert held.hold_ns == pytest.approx((34.1 - 27) * MINUTE_NS, abs=1)
    life.after(3)
    assert life.serve() == Retain(0, Tier.DRAM)


def test_nothing_is_known_of_the_first_idle_time():
    assert Life().serve() == Retain(RANGE_NS, Tier.DRAM)


def test_a_head_below_a_minute_keeps_the_pod():
    life = Life()
    life.serve()
    for _ in range(100):
        life.after(0.5)
        held = life.serve()
    assert held == Retain(round(1.1 * MINUTE_NS), Tier.DRAM)


def test_arrivals_that_met_a_leased_pod_fall_into_the_first_bin():
    life = Life()
    life.serve(arrivals=5)
    life.after(10)
    life.serve(arrivals=3)
    counts = life.learner._counts[0]
    assert (counts[0], counts[10], counts.sum()) == (4 + 2, 1, 7)


def test_evenly_spread_idle_times_say_nothing():
    life = Life()
    life.serve()
    for idle in range(240):
        life.after(idle + 0.5)
        held = life.serve()
    assert held == Retain(RANGE_NS, Tier.DRAM)


def test_out_of_bounds_is_the_standard_keep_alive():
    life = Life()
    life.serve()
    for idle in (30, 300):
        life.after(idle)
        held = life.serve()
    assert held == Retain(RANGE_NS, Tier.DRAM)


def brought_back(life):
    """Let a function have its windows, and let its head pass."""
    life.serve()
    life.after(30.5)
    life.serve()
    life.after(28)
    return life.promote()


def test_no_pod_is_brought_back_beside_one_that_is_there():
    life = Life()
    add(life.c, 0, 0, [0], state=PodState.CREATING)
    assert brought_back(life) == []


def test_nobody_leaves_for_a_pod_that_is_brought_back():
    life = Life(nodes=2)
    for gpu in (0, 1):
        add(life.c, gpu, 1, [gpu])
    assert brought_back(life) == []


def test_what_is_suspended_stays_suspended():
    life = Life()
    held = life.learner.retain(FunctionId(0), Tier.DRAM, life.view)
    assert held == Retain(FOREVER_NS, Tier.ABSENT)


def test_the_loop_runs_until_the_last_tail():
    made = load_bundle("hybrid-histogram", {"bins": 10, "bin_s": 30.0})
    assert made.settle_ns >= 1.1 * 10 * 30 * 10**9


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"bins": 1}, "bins is 1; expected 2 to 10000"), ({"bin_s": 0.0}, "bin_s is 0; expected")],
)
def test_settings_out_of_range_are_said(settings, told):
    with pytest.raises(LoadError, match=told):
        load_bundle("hybrid-histogram", settings)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_all_functions_due_are_found_at_once(heads):
    functions = len(heads)
    c = cluster([function(f"f{i}", 1, 10) for i in range(functions)], nodes=2, gpus=4)
    made = load_bundle("hybrid-histogram")
    learner, view = made.prewarm, ClusterView(c, snapshots=True)
    learner._grow(functions)
    learner._idle_ns[:] = np.arange(functions) % 3 - 1
    learner._head_ns[:] = np.array(heads) * MINUTE_NS
    learner._tail_ns[:] = learner._head_ns + MINUTE_NS
    c.now_ns = 5 * MINUTE_NS
    due = []
    for f, head in enumerate(heads):
        since = f % 3 - 1
        idle = c.now_ns - since
        if since >= 0 and head and head * MINUTE_NS < idle + MINUTE_NS // 2:
            due += [f] if idle < (head + 1) * MINUTE_NS else []
    assert [move.function for move in learner.promote(view, stream(1, "t"))] == due


def test_pods_that_come_back_together_find_room_together():
    c = cluster([function("a", 60, 800), function("b", 60, 800)], nodes=1, gpus=1)
    learner = load_bundle("hybrid-histogram").keep_alive
    view = ClusterView(c, snapshots=True)
    learner.retain(FunctionId(0), Tier.HBM, view)
    learner.retain(FunctionId(1), Tier.HBM, view)
    learner._head_ns[:], learner._tail_ns[:] = MINUTE_NS, 60 * MINUTE_NS
    c.now_ns = 2 * MINUTE_NS
    back = [Promote(FunctionId(0), NodeId(0), Tier.HBM)]
    assert list(learner.promote(view, stream(1, "t"))) == back
    add(c, 0, 0, [0])
    assert list(learner.promote(view, stream(1, "t"))) == []
    # The one that found no room comes back when there is some.
    c.release_gpus(c.pods[0])
    assert list(learner.promote(view, stream(1, "t"))) == [
        Promote(FunctionId(1), NodeId(0), Tier.HBM)
    ]


def test_a_function_is_not_idle_while_another_pod_serves():
    life = Life()
    life.serve()
    life.after(30)
    life.serve()
    busy = add(life.c, 0, 0, [0])
    busy.leased_slots = 1
    life.c.touch(busy)
    since_ns = int(life.learner._idle_ns[0])
    life.after(30)
    tail_ns = life.learner.windows_ns(FunctionId(0))[1]
    assert life.learner.retain(FunctionId(0), Tier.HBM, life.view) == Retain(tail_ns, Tier.DRAM)
    assert life.learner._idle_ns[0] == since_ns
    busy.leased_slots = 0
    life.c.touch(busy)
    life.learner.retain(FunctionId(0), Tier.HBM, life.view)
    assert life.learner._idle_ns[0] == life.c.now_ns

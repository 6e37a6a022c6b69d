"""The autoscalers, each against what its source says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_cluster import add, cluster, function, want

from inferx.core.events import LoadReported
from inferx.core.rng import stream
from inferx.core.types import RouterId
from inferx.core.view import ClusterView
from inferx.load import load_bundle
from inferx.policy import NS_PER_S, Defer, Evict, FunctionId
from inferx.policy.parts.load_window import LoadWindow
from inferx.policy.parts.room import within_room
from inferx.policy.scaling.erlang import erlang_c, fewest_pods


def report(functions, inside, *, arrivals=None, window_s=1.0):
    """Return what a router tells of the requests inside, in whole requests or parts of them."""
    told = tuple(round(1000 * load) for load in inside)
    came = tuple(arrivals) if arrivals else (0,) * len(told)
    return LoadReported(
        RouterId(0), int(window_s * NS_PER_S), tuple(functions), came, told, (0,) * len(told)
    )


def world(pods, *, functions=1, most=50, slots=10):
    """Return a cluster with `pods` ready pods of the first function, and its view."""
    specs = [replace_spec(function(f"f{f}", 1, milli=10), most, slots) for f in range(functions)]
    c = cluster(specs, nodes=4, gpus=8)
    for pod in range(pods):
        add(c, pod, 0, [pod % 32])
    return c, ClusterView(c, snapshots=True)


def replace_spec(spec, most, slots):
    fields = {name: getattr(spec, name) for name in spec.__struct_fields__}
    return type(spec)(**(fields | {"max_replica": most, "slots": slots}))


def feed(scaler, c, seconds, inside, *, arrivals=None):
    """Report the same load of the first function for so many seconds."""
    for _ in range(seconds):
        c.now_ns += NS_PER_S
        scaler.observe(c.now_ns, report([0], [inside], arrivals=arrivals))


# -- load ---
@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 2), st.integers(0, 9), st.integers(0, 5)),
        max_size=25,
    ),
    st.integers(1, 5),
)
def test_the_window_averages_as_a_loop_over_its_reports_does(steps, window_s):
    window, told, now_s = LoadWindow(window_s), [], 0
    for gap_s, f, inside, came in steps:
        now_s += gap_s
        window.observe(now_s * NS_PER_S, report([f], [inside], arrivals=[came]))
        told.append((now_s, f, inside, came))
    window.grow(3)
    inside, arrivals = window.means(now_s * NS_PER_S)
    for f in range(3):
        mine = [entry for entry in told if entry[1] == f]
        first, last = 0, -window_s
        for second, *_ in mine:
            first = second if second - last >= window_s else first
            last = second
        recent = [entry for entry in mine if entry[0] > now_s - window_s]
        over_s = min(now_s - first + 1, window_s)
        assert inside[f] == pytest.approx(sum(e[2] for e in recent) / over_s)
        assert arrivals[f] == pytest.approx(sum(e[3] for e in recent) / over_s)


def test_nobody_leaves_for_a_pod_that_no_request_waits_for():
    c = cluster([function("A", 60), function("B", 60)], nodes=1, gpus=1)
    add(c, 0, 0, [0])
    view, rng = ClusterView(c, snapshots=True), stream(1, "t")
    for name in ("aibrix", "ray-serve", "dynamo", "erlang"):
        eviction = load_bundle(name).eviction
        assert isinstance(eviction.evict(want(c, 1), view, rng), Defer)
        asked = want(c, 1)
        asked = type(asked)(*(getattr(asked, n) for n in asked.__struct_fields__[:-1]), 0)
        assert isinstance(eviction.evict(asked, view, rng), Evict)


@given(
    st.lists(st.sampled_from([1, 20, 40, 80]), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), max_size=8),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_targets_stay_within_the_room_that_a_loop_over_gpus_finds(sizes, there, targets):
    specs = [function(f"f{f}", gib, milli=10 * gib) for f, gib in enumerate(sizes)]
    c = cluster(specs, nodes=1, gpus=2)
    for pod, f in enumerate(there):
        fits = c.gpu_hbm_open >= specs[f % len(sizes)].hbm_bytes
        fits &= c.gpu_milli_open >= specs[f % len(sizes)].milli_gpu
        if fits.any():
            add(c, pod, f % len(sizes), [int(fits.argmax())])
    wanted = np.array(targets[: len(sizes)], np.int32)
    told = within_room(wanted, ClusterView(c, snapshots=True))
    for f, spec in enumerate(specs):
        room = any(
            c.gpu_hbm_open[gpu] >= spec.hbm_bytes and c.gpu_milli_open[gpu] >= spec.milli_gpu
            for gpu in range(2)
        )
        assert told[f] == (wanted[f] if room else min(wanted[f], c.fn_ready[f]))


# -- AIBrix ---
@pytest.mark.parametrize(
    ("pods", "use", "up", "down", "expected"),
    [
        (2, 45, 2, 2, 3),
        (2, 35, 2, 2, 3),
        (2, 90, 2, 2, 4),
        (2, 90, 2.5, 2, 5),
        (6, 20, 2, 2, 4),
        (6, 18, 2, 2, 4),
        (6, 10, 2, 2, 3),
        (6, 5, 2, 2.5, 2),
        (2, 33, 2, 2, 2),
        (2, 27, 2, 2, 2),
    ],
)
def test_aibrix_recommends_what_its_own_tests_expect(pods, use, up, down, expected):
    """AIBrix at 2576b18, `pkg/controller/podautoscaler/algorithm/apa_test.go`, line 27: aim 30.

    Every case of `TestAPAAlgorithm_ComputeTargetReplicas`.
    """
    scaler = load_bundle("aibrix", {"up_rate": up, "down_rate": down}).scaling
    told = scaler.recommended(np.array([float(pods)]), np.array([use / 30]))
    assert told.tolist() == [expected]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.floats(0, 5)), min_size=1, max_size=20),
    st.floats(1.1, 4),
)
def test_aibrix_recommends_as_a_loop_does(cases, rate):
    scaler = load_bundle("aibrix", {"up_rate": rate, "down_rate": rate}).scaling
    told = scaler.recommended(
        np.array([float(pods) for pods, _ in cases]), np.array([ratio for _, ratio in cases])
    )
    for (pods, ratio), got in zip(cases, told, strict=True):
        expected = pods
        if ratio > 1.1:
            expected = min(math.ceil(pods * ratio), math.ceil(rate * pods))
        elif ratio < 0.9:
            expected = max(math.ceil(pods * ratio), math.floor(pods / rate))
        assert got == expected


def test_aibrix_falls_to_the_least_advice_of_its_cooldown():
    """AIBrix at 2576b18, `podautoscaler_controller.go`, line 1128: `stabilizeRecommendation` takes
    the minimum where the direction is down.
    """
    c, view = world(8)
    scaler = load_bundle("aibrix", {"window_s": 1}).scaling
    asked = []
    for load in (20.0, 30.0):  # Aim 5 a pod: first 4 pods suffice, then 6.
        feed(scaler, c, 10, load)
        asked.append(int(scaler.targets(view)[0]))
    assert asked == [4, 4]
    feed(scaler, c, 289, 30.0)  # 299 s after the first.
    assert scaler.targets(view).tolist() == [4]
    feed(scaler, c, 1, 30.0)
    assert scaler.targets(view).tolist() == [6]


# -- Ray Serve ---
def test_ray_serve_follows_the_flow_of_its_own_tests():
    """Ray, `python/ray/serve/tests/unit/test_autoscaling_policy.py`, test_upscale_downscale_delay.

    Target 1 a replica, delays 30 s, 600 s; 2, then 1, then 0.
    """
    c, view = world(1, slots=1, most=2)
    scaler = load_bundle("ray-serve", {"share": 1.0, "look_back_s": 1}).scaling
    assert scaler.target(FunctionId(0), view) == 1
    scaler._target[:] = 1
    history = []
    feed(scaler, c, 1, 2.0)
    begun_s = c.now_ns // NS_PER_S
    for _ in range(40):
        history.append(int(scaler.targets(view)[0]))
        feed(scaler, c, 1, 2.0)
    assert history.index(2) == 30
    add(c, 1, 0, [1])
    for pods_left in (1, 0):
        start_s = None
        for _ in range(700):
            c.now_ns += NS_PER_S
            if int(scaler.targets(view)[0]) == pods_left:
                break
            start_s = start_s or c.now_ns // NS_PER_S
        assert c.now_ns // NS_PER_S - start_s == 600
        c.fn_ready[0] = pods_left
    assert c.now_ns // NS_PER_S > begun_s + 1200


def test_ray_serve_starts_over_when_the_direction_turns():
    """The same file, `test_fluctuating_ongoing_requests`: 100 and 40 requests in turn on 1 and 2
    replicas.
    """
    c, view = world(1, slots=50)
    scaler = load_bundle(
        "ray-serve", {"share": 1.0, "look_back_s": 1, "down_delay_s": 30.0}
    ).scaling
    scaler.targets(view)
    for trial in range(200):
        pods, load = ((1, 100.0), (2, 40.0))[trial % 2]
        c.fn_ready[0] = pods
        scaler._target[:] = pods
        feed(scaler, c, 1, load)
        assert scaler.targets(view).tolist() == [pods]


@pytest.mark.parametrize(
    ("running", "ongoing", "factor", "expected"),
    [(1, 100, 1.0, 100), (3, 123, 1.0, 123), (4, 20, 1.0, 20), (5, 0, 10.0, -45), (5, 0, 0.2, 4)],
)
def test_ray_serve_desires_what_its_own_tests_expect(running, ongoing, factor, expected):
    """The same file, of two tests.

    They are `test_replicas_delayed_startup`, `test_scaling_factor_scale_down_to_0_replicas`.
    """
    scaler = load_bundle("ray-serve", {"up_factor": factor, "down_factor": factor}).scaling
    told = scaler.desired(np.array([float(running)]), np.array([float(ongoing)]), np.array([1.0]))
    assert told.tolist() == [expected]


def test_ray_serve_is_never_stuck_above_zero():
    """The same file, `test_scaling_factor_scale_down_to_0_replicas`.

    Factor 0.2, five steps from 5 to 0.
    """
    c, view = world(5)
    scaler = load_bundle("ray-serve", {"down_factor": 0.2, "down_delay_s": 0.0}).scaling
    scaler.targets(view)
    scaler._target[:] = 5
    steps = []
    for _ in range(5):
        c.now_ns += NS_PER_S
        steps.append(int(scaler.targets(view)[0]))
        c.fn_ready[0] = steps[-1]
    assert steps == [4, 3, 2, 1, 0]


def test_ray_serve_wakes_with_its_factor():
    """The same file, `test_scaling_factor_scale_up_from_0_replicas`.

    ceil(1 * 10), and ceil(1 * 0.5).
    """
    _, view = world(0)
    for factor, woken in ((10.0, 10), (0.5, 1)):
        scaler = load_bundle("ray-serve", {"up_factor": factor}).scaling
        assert scaler.target(FunctionId(0), view) == woken
        assert scaler.targets(view).tolist() == [woken]


@given(
    st.lists(st.tuples(st.integers(1, 20), st.floats(0, 100)), min_size=1, max_size=20),
    st.floats(0.1, 4),
)
def test_ray_serve_desires_as_a_loop_does(cases, factor):
    scaler = load_bundle("ray-serve", {"up_factor": factor, "down_factor": 1 / factor}).scaling
    told = scaler.desired(
        np.array([float(n) for n, _ in cases]),
        np.array([load for _, load in cases]),
        np.full(len(cases), 2.0),
    )
    for (n, load), got in zip(cases, told, strict=True):
        raw = load / 2.0
        scaled = math.ceil(n + (factor if raw > n else 1 / factor) * (raw - n))
        if math.ceil(raw) < n and scaled == n:
            scaled -= 1
        assert got == scaled


# -- Dynamo ---
def planned(consolidation, load, *, pods=2, steps=20):
    """Return the pods after each decision under a constant load, counted in full workers."""
    planner = load_bundle("dynamo", {"consolidation": consolidation}).scaling
    taken = []
    for _ in range(steps):
        pods = int(planner.step(np.array([pods]), np.array([load / pods]))[0])
        taken.append(pods)
    return taken


def test_dynamo_does_not_oscillate_between_two_and_one():
    """Dynamo, pull request 9294 (`load_scaling.py`): two workers at utilisation 0.7 stay, for one
    would have 1.4.
    """
    assert planned(True, 1.4) == [2] * 20


def test_dynamo_without_the_rule_does():
    """The same, before it: 0.7 is under the threshold of 0.8, so 2, 1, 2, 1 without end."""
    assert planned(False, 1.4) == [1, 2] * 10


@given(st.integers(1, 30), st.floats(0.01, 30))
def test_dynamo_settles_under_every_constant_load(pods, load):
    """With sensitivity at most 1, who has just come up is never let go: no cycle of any length."""
    taken = planned(True, load, pods=pods, steps=80)
    assert len(set(taken[-10:])) == 1


def test_dynamo_decides_nothing_while_pods_start():
    c, view = world(2)
    planner = load_bundle("dynamo").scaling
    feed(planner, c, 5, 30.0)
    assert planner.targets(view).tolist() == [3]
    c.fn_starting[0] = 1
    assert planner.targets(view).tolist() == [3]
    c.fn_starting[0] = 0
    feed(planner, c, 5, 2.0)
    assert planner.targets(view).tolist() == [1]


# -- queueing theory ---
def naive_erlang_c(servers, offered):
    top = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return top / (sum(offered**k / math.factorial(k) for k in range(servers)) + top)


def test_erlang_c_of_published_examples():
    """Bronson, "Operations Research" (1982), problem 24.6: 3 servers, 300 and 182.5 a year.

    Its mean queue is 0.352 and its mean wait 0.001175 years; both follow from C.
    """
    a = 300 / 182.5
    c = erlang_c(3, a)
    assert c * a / (3 - a) == pytest.approx(0.352, abs=5e-4)
    assert c / (3 * 182.5 - 300) == pytest.approx(0.001175, abs=5e-7)


def test_the_fewest_agents_of_a_support_centre():
    """Wolfram Language documentation, `ErlangC`, Applications: 30 calls an hour of 5 minutes each.

    The least number of employees such that 90 % of the calls are not delayed.
    """
    pods = fewest_pods(
        np.array([2.5]), np.array([300.0]), np.array([1]), np.array([99]), slack_s=0, epsilon=0.1
    )
    assert pods.tolist() == [6]
    assert erlang_c(5, 2.5) > 0.1 > erlang_c(6, 2.5)


def test_the_wait_in_one_server_is_pollaczek_and_khinchine():
    """For c = 1 Allen and Cunneen's mean is exact: (1 + Cs^2) / 2 times the wait of M/M/1.

    The mean of the tail that the rule bounds, C S v / (c - a), is that wait.
    """
    a, service_s, cs2 = 0.6, 2.0, 3.0
    v = (1 + cs2) / 2
    ours = erlang_c(1, a) * service_s * v / (1 - a)
    assert ours == pytest.approx(a / (1 - a) * (1 + cs2) / 2 * service_s)


@given(
    st.lists(
        st.tuples(st.floats(0.01, 40), st.floats(0.01, 30), st.integers(1, 9), st.integers(1, 60)),
        min_size=1,
        max_size=12,
    ),
    st.floats(0, 5),
    st.floats(0.001, 0.5),
)
def test_fewest_pods_is_the_first_that_a_loop_finds(cases, slack_s, epsilon):
    told = fewest_pods(
        *(np.array([case[i] for case in cases]) for i in range(4)), slack_s=slack_s, epsilon=epsilon
    )
    for (a, s, slots, most), got in zip(cases, told.tolist(), strict=True):
        expected = most
        for pods in range(1, most + 1):
            c = pods * slots
            if c > a and naive_erlang_c(c, a) * math.exp(-(c - a) * slack_s / s) <= epsilon:
                expected = pods
                break
        assert got == expected


def test_erlang_scaler_measures_load_and_service_time():
    """Six in service at two arrivals a second: S = 3 s; 10 slots hold it, P(W > 0.5 s) is small."""
    c, view = world(3)
    scaler = load_bundle("erlang", {"window_s": 10}).scaling
    feed(scaler, c, 10, 6.0, arrivals=[2])
    pods = int(scaler.targets(view)[0])
    tails = [naive_erlang_c(n * 10, 6.0) * math.exp(-(n * 10 - 6) * 0.5 / 3.0) for n in range(1, 4)]
    assert pods == next(n for n, tail in enumerate(tails, 1) if tail <= 0.01) == 2
    assert scaler.target(FunctionId(0), view) == 2
    feed(scaler, c, 61, 0.0)
    assert scaler.targets(view).tolist() == [0]
    assert scaler.target(FunctionId(0), view) == 1


@pytest.mark.parametrize("name", ["aibrix", "dynamo", "erlang"])
def test_the_last_pod_leaves_a_quiet_function_and_requests_bring_it_back(name):
    c, view = world(1)
    scaler = load_bundle(name, {"idle_s": 20.0}).scaling
    feed(scaler, c, 1, 3.0, arrivals=[1])
    assert scaler.targets(view).tolist() == [1]
    c.now_ns += 19 * NS_PER_S
    assert scaler.targets(view).tolist() == [1]
    c.now_ns += NS_PER_S
    assert scaler.targets(view).tolist() == [0]
    assert scaler.target(FunctionId(0), view) == 1


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("aibrix", "share", 0.0),
        ("aibrix", "up_tolerance", -1.0),
        ("aibrix", "down_tolerance", 2.0),
        ("aibrix", "up_rate", 1.0),
        ("aibrix", "down_rate", 1.0),
        ("aibrix", "cooldown_s", -1.0),
        ("aibrix", "window_s", 0),
        ("aibrix", "idle_s", -1.0),
        ("ray-serve", "share", 2.0),
        ("ray-serve", "look_back_s", 0),
        ("ray-serve", "up_factor", 0.0),
        ("ray-serve", "down_delay_s", -1.0),
        ("dynamo", "sensitivity", 1.5),
        ("dynamo", "interval_s", 0),
        ("dynamo", "idle_s", -1.0),
        ("erlang", "slack_s", -1.0),
        ("erlang", "epsilon", 1.0),
        ("erlang", "variability", 0.0),
        ("erlang", "window_s", 0),
        ("erlang", "idle_s", -1.0),
    ],
)
def test_a_setting_out_of_range_is_refused(name, setting, value):
    with pytest.raises(Exception, match=setting):
        load_bundle(name, {setting: value})

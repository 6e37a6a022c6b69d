"""Each bundle against what its source says."""

import numpy as np
import pytest
from small_cluster import GIB, add, cluster, function, suspend, want

from inferx.core.events import LoadReported
from inferx.core.lifecycle import PodState
from inferx.core.rng import stream
from inferx.core.types import RouterId
from inferx.core.view import ClusterView
from inferx.load import bundle_names, load_bundle
from inferx.policy import (
    Defer,
    Evict,
    GpuId,
    NodeId,
    PodId,
    PolicyBundle,
    Tier,
)
from inferx.policy.inferx_reference import EagerStandby
from inferx.policy.scale_to_zero import KnativePodAutoscaler

SLOT_GIB = 0.25


@pytest.mark.parametrize("name", bundle_names())
def test_every_shipped_bundle_is_found_by_its_file_name(name):
    made = load_bundle(name)
    assert isinstance(made, PolicyBundle)
    assert made.name == name


def test_the_five_bundles_are_there():
    assert {"dedicated", "scale-to-zero", "inferx-reference", "serverlessllm", "default"} <= set(
        bundle_names()
    )


def reference_example():
    """Two GPUs of 80 slots; idle in order of use: A (GPU 0), B (GPU 1), C (GPU 0); D waits."""
    sizes = {"A": 5, "B": 18, "C": 15, "D": 15}  # GiB: 20, 72, 60 and 60 slots of 256 MB.
    functions = [function(name, gib, milli=100) for name, gib in sizes.items()]
    c = cluster(functions, nodes=1, gpus=2)
    c.gpu_hbm_total[:] = 20 * GIB  # 80 slots a GPU.
    c.gpu_hbm_open[:] = 20 * GIB
    for pod, (f, gpu, since) in enumerate([(0, 0, 1), (1, 1, 2), (2, 0, 3)]):
        add(c, pod, f, [gpu], idle_since=since)
    suspended = c.add_pod(PodId(9), 3, (), NodeId(0))
    c.enter(suspended, PodState.RESTORING)
    c.enter(suspended, PodState.STANDBY)
    return c


def test_the_reference_kills_a_victim_that_does_not_help():
    """InferX at 875cb0f, `ixshare/src/scheduler/scheduler_handler.rs`, FindNode4Pod, line 3444.

    The worked example of its over-eviction: A frees GPU 0 in vain, B suffices.
    """
    c = reference_example()
    view = ClusterView(c, snapshots=True)
    bundle = load_bundle("inferx-reference", {"contexts_per_gpu": 4})
    plan = bundle.eviction.evict(want(c, 3), view, stream(1, "t"))
    assert plan == Evict((GpuId(1),), ((PodId(0), Tier.ABSENT), (PodId(1), Tier.ABSENT)))


def test_the_reference_trimmed_spares_it():
    c = reference_example()
    view = ClusterView(c, snapshots=True)
    bundle = load_bundle("inferx-reference", {"contexts_per_gpu": 4, "trim": True})
    plan = bundle.eviction.evict(want(c, 3), view, stream(1, "t"))
    assert plan == Evict((GpuId(1),), ((PodId(1), Tier.ABSENT),))


def test_the_reference_starts_nothing_without_a_suspended_pod():
    c = cluster([function("a")])
    view = ClusterView(c, snapshots=True)
    bundle = load_bundle("inferx-reference")
    assert bundle.placement.place(want(c, 0), view, stream(1, "t")) == Defer("no standby")


def test_the_reference_takes_the_first_node_by_name_and_the_first_gpu():
    c = cluster([function("a")], nodes=3)
    for pod, home in ((0, 2), (1, 1)):
        suspend(c, add(c, pod, 0, [4 * home + 3]))
    view = ClusterView(c, snapshots=True)
    bundle = load_bundle("inferx-reference")
    assert bundle.placement.place(want(c, 0), view, stream(1, "t")).gpus == (GpuId(4),)


def test_the_reference_rebuilds_one_standby_a_node_and_none_while_something_starts():
    c = cluster([function("a"), function("b")], nodes=2)
    c.nvme[:, :] = True
    add(c, 0, 0, [0], state=PodState.CREATING)
    view = ClusterView(c, snapshots=True)
    moves = EagerStandby().promote(view, stream(1, "t"))
    assert [(move.node, move.to) for move in moves] == [(NodeId(1), Tier.DRAM)]


def test_the_reference_scales_out_by_two_and_then_one_a_second():
    c = cluster([function("a")])
    view = ClusterView(c, snapshots=True)
    scaling = load_bundle("inferx-reference").scaling
    c.fn_queued[0] = 1000
    assert [scaling.target(0, view) for _ in range(3)] == [1, 1, 0]
    c.now_ns = 10**9
    assert scaling.target(0, view) == 1


def report(function, inside_milli, window_ns=10**9):
    return LoadReported(RouterId(0), window_ns, (function,), (1,), (inside_milli,), (0,))


def kpa(c, seconds, inside, autoscaler=None, start=0):
    """Feed a constant concurrency and return the target at the end."""
    scaler = autoscaler or KnativePodAutoscaler()
    view = ClusterView(c, snapshots=False)
    target = 0
    for second in range(start, start + seconds):
        c.now_ns = second * 10**9
        scaler.observe(c.now_ns, report(0, int(inside * 1000)))
        if second % 2 == 1:
            target = int(scaler.targets(view)[0])
    return scaler, target


def test_kpa_settles_at_concurrency_over_seventy_percent_of_the_slots():
    """Knative at 98e5ef9, `config/core/configmaps/autoscaler.yaml`, line 58."""
    c = cluster([function("a")])  # 50 slots: a target of 35 a pod.
    c.fn_ready[0] = 3
    _, target = kpa(c, 120, 100.0)
    assert target == int(np.ceil(100 / 35))


def test_kpa_averages_over_the_seconds_since_the_first_sample():
    """Ten seconds of 100 requests inside are a mean of 100, not of 100 x 10 / 60."""
    c = cluster([function("a")])  # 50 slots: a target of 35 a pod.
    c.fn_ready[0] = 3  # 3 / 3 is no panic.
    scaler, target = kpa(c, 10, 100.0)
    assert target == 3
    # Silent for longer than the window, it begins anew.
    _, again = kpa(c, 10, 100.0, scaler, start=200)
    assert again == 3


def test_kpa_panics_on_twice_the_load_and_never_falls_in_panic():
    c = cluster([function("a")])
    c.fn_ready[0] = 1
    scaler, _ = kpa(c, 60, 10.0)
    _, high = kpa(c, 10, 200.0, scaler, start=60)
    c.fn_ready[0] = high
    assert high >= 6
    _, later = kpa(c, 20, 1.0, scaler, start=70)
    assert later >= high


def test_kpa_scales_to_zero_after_window_and_grace():
    c = cluster([function("a")])
    c.fn_ready[0] = 1
    scaler, busy = kpa(c, 30, 5.0)
    assert busy == 1
    view = ClusterView(c, snapshots=False)
    targets = {}
    for second in range(30, 140, 2):
        c.now_ns = second * 10**9
        targets[second] = int(scaler.targets(view)[0])
    zero = min(second for second, target in targets.items() if target == 0)
    # The window empties 60 s after the latest report, then 30 s of grace pass.
    assert 89 <= zero <= 29 + 60 + 30 + 4


def of_knatives_tests():
    """Return a function's cluster and the autoscaler of Knative's tests: 10 a pod, rates of 10."""
    c = cluster([function("a")])  # 50 slots.
    return c, KnativePodAutoscaler(utilisation=0.2, up=10.0, down=10.0)


def test_kpa_rises_and_falls_by_no_more_than_its_rates():
    """Knative at 98e5ef9, `pkg/autoscaler/scaling/autoscaler_test.go`, lines 676 and 688.

    TestAutoscalerRateLimitScaleUp: 1,000 requests, 1 and then 10 pods; ScaleDown: 1 request, 100
    and then 10 pods.
    """
    for inside, steps in ((1000.0, {1: 10, 10: 100}), (1.0, {100: 10, 10: 1})):
        for pods, wanted in steps.items():
            c, scaler = of_knatives_tests()
            c.fn_ready[0] = pods
            assert kpa(c, 60, inside, scaler)[1] == wanted


def test_kpa_panics_and_calms_down_as_in_its_own_test():
    """Knative at 98e5ef9, `pkg/autoscaler/scaling/autoscaler_test.go`, line 658.

    TestAutoscalerPanicThenUnPanicScaleDown: 100 requests want 10 pods, 1,000 in the panic window
    100, and one request no fewer until the stable window has passed.
    """
    c, scaler = of_knatives_tests()
    c.fn_ready[0] = 10
    assert kpa(c, 60, 100.0, scaler)[1] == 10
    assert kpa(c, 6, 1000.0, scaler, start=60)[1] == 100
    assert kpa(c, 30, 1.0, scaler, start=66)[1] == 100
    assert kpa(c, 40, 1.0, scaler, start=96)[1] == 1


def test_whole_gpu_bundles_say_so():
    assert [load_bundle(n).whole_gpus for n in ("dedicated", "scale-to-zero", "serverlessllm")] == [
        True
    ] * 3


def test_serverlessllm_prefers_the_node_that_loads_soonest():
    """Fu et al. 2024, OSDI, pp. 135-153, section 6.1: the least of queue plus bytes over link."""
    c = cluster([function("a")], nodes=3)
    c.remote[:, 0] = True
    c.nvme[1, 0] = True
    view = ClusterView(c, snapshots=True)
    bundle = load_bundle("serverlessllm")
    assert c.gpu_node[bundle.placement.place(want(c, 0), view, stream(1, "t")).gpus[0]] == 1

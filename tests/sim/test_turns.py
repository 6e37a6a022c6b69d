"""A queue policy that always names the oldest is as good as none: equal runs, to the bit."""

from dataclasses import replace

import pytest

from inferx.load import load_bundle
from inferx.sim.conformance import conform
from inferx.sim.driver import simulate
from inferx.sim.metrics import result_sha256
from inferx.sim.profile import load_profile
from inferx.sim.scenarios import SCENARIOS

TRIED = [
    scenario
    for scenario in SCENARIOS
    if scenario.name in ("crowded", "three routers, lossy links", "several pods a function")
]
PROFILE = load_profile("criu-memfd")


class Oldest:
    """First come, first served; counts what it hears."""

    def __init__(self):
        self.asked = self.inside = self.started_count = 0

    def next_request(self, waiting, view):
        since = [one.since_ns for one in waiting]
        assert len(since) > 1
        assert since == sorted(since)
        self.asked += 1
        return 0

    def next_want(self, wants, view):
        assert len(wants) > 1
        self.asked += 1
        return 0

    def started(self, request, view):
        self.inside += 1
        self.started_count += 1

    def ended(self, request, output_tokens, view):
        self.inside -= 1


@pytest.mark.parametrize("name", ["default", "scale-to-zero"])
@pytest.mark.parametrize("scenario", TRIED, ids=lambda scenario: scenario.name)
def test_the_order_of_age_is_what_an_empty_slot_does(scenario, name):
    world = scenario.world(PROFILE)
    oldest = Oldest()
    without, within = (
        simulate(world, [scenario.trace()], replace(load_bundle(name), queueing=queueing), seed=1)
        for queueing in (None, oldest)
    )
    assert result_sha256(within) == result_sha256(without)
    assert oldest.asked > 0
    assert oldest.inside == 0
    assert oldest.started_count == int((within.requests.started_ns >= 0).sum())


def found(queueing, monkeypatch):
    monkeypatch.setattr("inferx.sim.conformance.SCENARIOS", TRIED[:1])
    monkeypatch.setattr("inferx.sim.conformance.LARGE", (64,))
    findings = conform(lambda: replace(load_bundle("default"), queueing=queueing()), PROFILE)
    return {finding.check: finding for finding in findings}


def test_a_queue_policy_is_asked_and_timed_like_any_other(monkeypatch):
    findings = found(Oldest, monkeypatch)
    assert findings["runs: crowded"].verdict == "pass"
    assert "queueing" not in findings["asked"].told
    assert "queueing " in findings["decision time, 64 GPUs"].told


def test_methods_that_a_queue_policy_may_have_are_looked_at(monkeypatch):
    class Wrong(Oldest):
        def started(self, request):
            pass

    told = found(Wrong, monkeypatch)["slots"].told
    assert told.startswith("queueing: Wrong.started is not started(request, view)")

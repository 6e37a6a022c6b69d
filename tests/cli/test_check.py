"""`inferx check`: good policies pass; each way to be bad is told in words."""

import json
import re
from pathlib import Path

import pytest

from inferx.cli import check as check_module
from inferx.cli.options import Chosen
from inferx.load import load_bundle
from inferx.sim import conformance
from inferx.sim.conformance import Finding, compare_digests, conform
from inferx.sim.profile import load_profile

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "my_policy.py"
PROFILE = load_profile("criu-memfd")
BAD = """
import dataclasses
import {imports}
from inferx.policy import *
from inferx.policy import default

DEFAULT = default.bundle()

class Mine:
    calls = 0
    def {signature}:
        {body}

def bundle():
    return dataclasses.replace(default.bundle(), name="mine", {slot}=Mine(){more})
"""


def bad(
    tmp_path,
    signature: str,
    body: str,
    slot: str,
    *,
    imports: str = "math",
    more: str = "",
    until: str = "",
):
    """Return the findings on a policy with one bad slot, by check; none after `until`."""
    path = tmp_path / "p.py"
    text = BAD.format(signature=signature, body=body, slot=slot, imports=imports, more=more)
    path.write_text(text)

    def make():
        return load_bundle(f"{path}:bundle")

    found = {}
    for finding in conform(make, PROFILE, [path]):
        found[finding.check] = finding
        if finding.check == until:
            break
    return found


@pytest.fixture
def quick(monkeypatch):
    """Only the first scenarios, and only a small cluster to time decisions on."""
    monkeypatch.setattr(conformance, "SCENARIOS", conformance.SCENARIOS[:3])
    monkeypatch.setattr(conformance, "LARGE", ())


def failed(findings: dict[str, Finding]) -> dict[str, str]:
    return {check: f.told for check, f in findings.items() if f.verdict == "fail"}


@pytest.mark.parametrize("name", ["default", "inferx-reference", "serverlessllm", "scale-to-zero"])
def test_shipped_policies_conform(name, monkeypatch):
    monkeypatch.setattr(conformance, "LARGE", ())
    bundle = load_bundle(name)
    profile = load_profile(
        {"snapshot": "criu-memfd", "loader": "serverlessllm", "none": "safetensors"}[
            bundle.mechanism
        ]
    )
    sources = check_module._sources(Chosen(name, ()))
    assert [path.name for path in sources] == [f"{name.replace('-', '_')}.py"]
    findings = list(conform(lambda: load_bundle(name), profile, sources))
    assert failed({finding.check: finding for finding in findings}) == {}


@pytest.mark.usefixtures("quick")
def test_dedicated_starves_whom_it_has_no_gpu_for():
    findings = conform(lambda: load_bundle("dedicated"), load_profile("safetensors"))
    told = failed({finding.check: finding for finding in findings})
    assert list(told) == ["no starvation"]
    assert "was not placed in 1,675 s" in told["no starvation"]


def test_example_of_the_guide_conforms_from_the_command_line(good, monkeypatch):
    # The whole check of it is run by the test of the guide.
    monkeypatch.setattr(conformance, "LARGE", ())
    out = good("check", "--policy", f"{EXAMPLE}:bundle", "--set", "hold_s=30")
    assert re.search(r"hold_s=30: \d+ passed", " ".join(out.split()))
    assert not re.search("^fail", out, re.MULTILINE)
    assert "PYTHONHASHSEED" in out


def test_json_says_what_failed_and_status_is_one(call, tmp_path):
    path = tmp_path / "p.py"
    path.write_text(
        EXAMPLE.read_text().replace("def retain(self, function", "def hold(self, function")
    )
    status, out, err = call("check", "--policy", f"{path}:bundle", "--json")
    facts = json.loads(out)
    assert (status, err, facts["passed"]) == (1, "", False)
    slots = facts["findings"][0]
    assert slots["verdict"] == "fail"
    assert slots["told"] == "keep_alive: HoldOneGap has no retain(function, at, view)"


@pytest.mark.usefixtures("quick")
def test_wrong_arguments_are_named(tmp_path):
    told = failed(bad(tmp_path, "place(self, want)", "pass", "placement"))
    assert told["slots"].startswith("placement: Mine.place is not place(want, view, rng)")
    assert told["runs"] == "not run: the slots must be right first"


@pytest.mark.usefixtures("quick")
def test_fields_of_the_bundle_are_looked_at(tmp_path):
    more = ", mechanism='magic', control_period_ns=0, patience_ns=1.5, snapshots=None"
    told = failed(bad(tmp_path, "evict(self, *a)", "return Defer('no')", "eviction", more=more))
    for word in ("mechanism: 'magic'", "control_period_ns: 0", "patience_ns: 1.5", "snapshots"):
        assert word in told["slots"]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("time", "imports time"),
        ("random", "imports random"),
        ("os.path", "imports os.path"),
        ("numpy.random", "imports numpy.random"),
        ("inferx.sim.driver", "imports inferx.sim.driver"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_imports_that_make_runs_differ_are_named(tmp_path, module, line):
    body = "return Defer('no')"
    told = failed(
        bad(tmp_path, "evict(self, *a)", body, "eviction", imports=module, until="imports")
    )
    assert f"p.py:3: {line}" in told["imports"]


@pytest.mark.usefixtures("quick")
def test_calls_that_make_runs_differ_are_named(tmp_path):
    body = (
        "import numpy as np; np.random.seed(1); np.random.Generator; hash('x'); return Defer('no')"
    )
    told = failed(bad(tmp_path, "evict(self, *a)", body, "eviction", until="imports"))
    assert told["imports"].count("uses numpy.random: chance comes from the rng") == 1
    assert "calls hash(): it differs from process to process" in told["imports"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("view.gpus.milli_free[0] = 0", "placement policy: it tried to change the view"),
        (
            "a = view.gpus.hbm_bytes_free; a.flags.writeable = True; a[0] -= 1",
            "placement policy: it changed the view: gpus.hbm_bytes_free",
        ),
    ],
)
@pytest.mark.usefixtures("quick")
def test_change_of_the_view_is_caught_even_through_the_back_door(tmp_path, body, says):
    body += "; return DEFAULT.placement.place(want, view, rng)"
    signature = "place(self, want, view, rng)"
    told = failed(bad(tmp_path, signature, body, "placement", until="runs: one function"))
    assert told["runs: one function"].startswith(says)


@pytest.mark.usefixtures("quick")
def test_impossible_proposals_are_told_with_slot_and_proposal(tmp_path):
    signature, body = "place(self, want, view, rng)", "return Place((GpuId(0),))"
    told = failed(bad(tmp_path, signature, body, "placement", until="runs: crowded"))
    assert "runs: one function" not in told
    assert (
        "placement policy: GPU 0 is too full; it proposed Place(gpus=(0,))" in told["runs: crowded"]
    )


@pytest.mark.usefixtures("quick")
def test_error_is_told_with_its_line(tmp_path):
    signature, body = "evict(self, want, view, rng)", "return {}[want]"
    told = failed(bad(tmp_path, signature, body, "eviction", until="runs: crowded"))
    assert re.search(r"eviction policy: it raised KeyError at p.py:\d+", told["runs: crowded"])


@pytest.mark.usefixtures("quick")
def test_memory_between_runs_is_caught(tmp_path):
    body = "Mine.calls += 1; return Retain(Mine.calls * NS_PER_S // 9, Tier.ABSENT)"
    path_findings = bad(tmp_path, "retain(self, function, at, view)", body, "keep_alive")
    # The file is loaded anew for each bundle, as it is for each run, so this is no memory.
    assert failed(path_findings) == {}
    path = tmp_path / "p.py"
    shared = load_bundle(f"{path}:bundle")
    findings = {finding.check: finding for finding in conform(lambda: shared, PROFILE)}
    assert "two runs in one process differ in: " in failed(findings)["deterministic"]


@pytest.mark.usefixtures("quick")
def test_starvation_is_told(tmp_path):
    told = failed(
        bad(
            tmp_path,
            "retain(self, function, at, view)",
            "return Retain(FOREVER_NS, Tier.ABSENT)",
            "keep_alive",
            more=", eviction=load_never(), prewarm=load_no(), patience_ns=FOREVER_NS",
            imports="inferx.policy.basics; load_never = inferx.policy.basics.NeverEvict;"
            " load_no = inferx.policy.basics.NoPrewarm",
        )
    )
    assert list(told) == ["no starvation"]


def test_routing_is_asked_and_a_wrong_index_is_told(tmp_path, monkeypatch):
    several = [s for s in conformance.SCENARIOS if s.name == "several pods a function"]
    monkeypatch.setattr(conformance, "SCENARIOS", several)
    monkeypatch.setattr(conformance, "LARGE", ())
    told = failed(
        bad(tmp_path, "route(self, request, candidates, view, rng)", "return 'nonsense'", "routing")
    )
    assert "routing policy: it returned 'nonsense'" in told["runs: several pods a function"]


@pytest.mark.usefixtures("quick")
def test_slots_that_were_never_asked_are_warned_of(tmp_path):
    findings = bad(tmp_path, "evict(self, *a)", "return Defer('no')", "eviction", until="asked")
    assert findings["asked"].verdict == "warn"
    assert findings["asked"].told == "never asked, so never tried: routing"


@pytest.mark.usefixtures("quick")
def test_a_decision_that_never_ends_is_told_and_ends_the_check(call, tmp_path):
    path = tmp_path / "p.py"
    body = "\n        while True: pass"
    signature = "place(self, want, view, rng)"
    path.write_text(
        BAD.format(signature=signature, body=body, slot="placement", imports="math", more="")
    )
    status, out, err = call("check", "--policy", path, "--limit", "2", "--json")
    assert (status, err) == (1, "")
    *_, last = json.loads(out)["findings"]
    assert last["check"] == "runs: one function"
    assert re.match(r"not over after 2 s, at p\.py:\d+; expected a second", last["told"])
    assert "was not run" in last["told"]
    found = conformance.digests(lambda: load_bundle(str(path)), PROFILE, limit_s=2)
    assert list(found) == ["no requests", "one function"]


@pytest.mark.usefixtures("quick")
def test_a_policy_that_ends_the_process_is_told(call, tmp_path):
    path = tmp_path / "p.py"
    path.write_text(EXAMPLE.read_text().replace("rate =", "import os; os._exit(3); rate ="))
    status, out, err = call("check", "--policy", f"{path}:bundle", "--json")
    assert (status, err) == (1, "")
    assert "it called os._exit(3)" in out


@pytest.mark.usefixtures("quick")
def test_slow_decisions_warn(tmp_path, monkeypatch):
    monkeypatch.setattr(conformance, "SCENARIOS", ())
    monkeypatch.setattr(conformance, "LARGE", (64,))
    monkeypatch.setitem(conformance._BUDGET_S, 64, 1e-9)
    findings = bad(tmp_path, "evict(self, *a)", "return Defer('no')", "eviction")
    assert findings["decision time, 64 GPUs"].verdict == "warn"
    told = findings["decision time, 64 GPUs"].told
    assert "is slow" in told
    assert re.search(r"routing (\d|never asked)", told)


@pytest.mark.usefixtures("quick")
def test_timing_ends_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(conformance, "SCENARIOS", ())
    monkeypatch.setattr(conformance, "LARGE", (64,))
    monkeypatch.setattr(conformance, "_TIMING_S", 0.0)
    findings = bad(tmp_path, "evict(self, *a)", "return Defer('no')", "eviction")
    assert findings["decision time, 64 GPUs"].verdict == "pass"


@pytest.mark.usefixtures("quick")
def test_hash_seeds_are_compared_in_processes_of_their_own(call, tmp_path):
    path = tmp_path / "p.py"
    path.write_text(
        EXAMPLE.read_text().replace(
            "rate = view.arrivals_per_s(function)", "rate = 0.02 + (hash(str(function)) % 97) / 600"
        )
    )
    status, out, err = call("check", "--policy", f"{path}:bundle", "--json")
    assert (status, err) == (1, "")
    findings = json.loads(out)["findings"]
    told = {f["told"] for f in findings if f["verdict"] == "fail"}
    assert any("runs under two values of PYTHONHASHSEED differ in" in text for text in told)
    assert any("calls hash()" in text for text in told)


@pytest.mark.usefixtures("quick")
def test_policy_that_can_be_made_here_alone_is_told(call, tmp_path):
    path = tmp_path / "p.py"
    path.write_text(
        "if '--digests' in __import__('sys').argv: raise ImportError('not there')\n"
        + EXAMPLE.read_text()
    )
    status, out, err = call("check", "--policy", f"{path}:bundle", "--json")
    assert (status, err) == (1, "")
    *_, last = json.loads(out)["findings"]
    assert last["check"] == "deterministic"
    assert "under PYTHONHASHSEED=1: inferx: policy" in last["told"]
    assert "not there" in last["told"]


def test_digests_that_differ_name_the_scenarios():
    found = compare_digests("same", {"a": "1", "b": "2"}, {"a": "1", "b": "3"}, "runs")
    assert (found.verdict, found.told) == ("fail", "runs differ in: b")

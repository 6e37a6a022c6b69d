"""What is declared, what is documented and what alerts ask for are the same metrics."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from metrics_page import Told, documented
from prometheus_server import PROMTOOL, needs_prometheus
from system_parts import ROOT

from inferx.exec.metrics import audit, cluster, gateway, node, process, state
from inferx.exec.metrics.families import Family

DEPLOY = ROOT / "deploy" / "prometheus"
DECLARED = {
    "": process.FAMILIES,
    "audit": audit.FAMILIES,
    "gateway": gateway.FAMILIES,
    "scheduler": cluster.FAMILIES,
    "agent": node.FAMILIES,
    "state": state.FAMILIES,
}
LIBRARYS = ("process_", "python_")
"""Begin the names of metrics that the library makes."""
UNITS = ("_seconds", "_bytes", "_ratio")


def told(family: Family) -> Told:
    total = "_total" if family.kind == "counter" else ""
    return Told(family.name + total, family.kind, family.labels)


@pytest.mark.parametrize("service", DECLARED)
def test_all_that_is_declared_is_documented_and_nothing_else(service: str) -> None:
    ours = [one for one in documented()[service] if not one.name.startswith(LIBRARYS)]
    assert sorted(ours) == sorted(map(told, DECLARED[service]))


def test_names_are_told_once_and_ours_are_in_base_units() -> None:
    families = [family for service in DECLARED.values() for family in service]
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    for family in families:
        if family.name.startswith("inferx_"):
            assert not re.search(r"_(ms|us|ns|minutes|mib|gib|kb|percent)(_|$)", family.name)
            assert family.kind != "histogram" or family.name.endswith(UNITS)
            assert not family.name.endswith("_total")


def test_the_kernels_counters_are_all_told() -> None:
    source = "".join(path.read_text() for path in (ROOT / "inferx/core/machine").glob("*.py"))
    counted = set(re.findall(r"(?:fleet|self)\._?count\(\s*\"(\w+)\"", source))
    assert {"evictions", "nodes_lost", "policy_errors", "commands_repeated"} <= counted
    assert counted == set(cluster.KERNEL)


def test_alerts_ask_for_metrics_that_are_there() -> None:
    names = {
        one.name + more
        for service in documented().values()
        for one in service
        for more in (("_bucket", "_count", "_sum") if one.kind == "histogram" else ("",))
    }
    rules = (DEPLOY / "inferx.rules.yml").read_text()
    asked = set(re.findall(r"\binferx_\w+", rules))
    assert asked
    assert asked <= names


@needs_prometheus
def test_prometheus_takes_the_configuration_and_alerts_fire_when_they_should(
    tmp_path: Path,
) -> None:
    for file in (*DEPLOY.glob("*.yml"), Path(__file__).with_name("alerts.yml")):
        shutil.copy(file, tmp_path)
    for words in (
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "inferx.rules.yml"),
        ("test", "rules", "alerts.yml"),
    ):
        ran = subprocess.run(
            (PROMTOOL, *words), cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr

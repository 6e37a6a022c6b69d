"""Nothing is lost under load: clients ask without pause while parts of a cluster die.

How long each fault is felt is measured by `python -m studies.faults`; here is what must hold
however long that takes.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import etcd_server
import pytest
from agent_node import needs_node
from cluster_up import Up, up
from faults import (
    GPUS,
    check_cluster,
    hurt,
    killed,
    members_killed,
    paused,
    ready,
    worker_killed,
    worker_log,
)

pytestmark = needs_node

CUT_S = 20.0
"""Longer than a line may be silent, and after that a node without a line (4 s and 10 s)."""
FAULTS: dict[str, Callable[[Up], Callable[[], float]]] = {
    "scheduler": lambda cluster: killed(cluster, "scheduler"),
    "gateway": lambda cluster: killed(cluster, "gateway"),
    "agent": lambda cluster: killed(cluster, "node-0"),
    "state": lambda cluster: killed(cluster, "state"),
    "worker": lambda cluster: worker_killed(worker_log(cluster.folder.parent), "w0"),
}
FRESH = tuple(f"fresh-{name}" for name in (*FAULTS, "pause"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("load")
    logged = ("--journal", "--worker-set", f"request-log={worker_log(folder)}")
    with up(folder, *logged, gpus=GPUS) as cluster:
        ready(cluster, FRESH)
        yield cluster


def survives(cluster: Up, name: str, fault: Callable[[], float], fresh: str) -> None:
    """Hurt a cluster under load; nothing may be lost, wrong, or done twice."""
    log = worker_log(cluster.folder.parent)
    asyncio.run(hurt(cluster, fault, log, fresh=fresh, prefix=f"{name}-")).account.check()
    assert check_cluster(cluster).dispatches


@pytest.mark.parametrize("name", FAULTS)
def test_inv_1_inv_8_what_is_killed_under_load_loses_nothing(cluster: Up, name: str) -> None:
    survives(cluster, name, FAULTS[name](cluster), f"fresh-{name}")


def test_inv_8_a_leader_that_pauses_past_its_lease_under_load_loses_nothing(cluster: Up) -> None:
    with cluster.another("scheduler", "--journal", str(cluster.folder / "journals")):
        survives(cluster, "pause", paused(cluster, "scheduler", 5.0), "fresh-pause")
    assert len(check_cluster(cluster).epochs) > 1


@pytest.mark.skipif(bool(etcd_server.missing_etcd()), reason=etcd_server.missing_etcd())
def test_members_of_etcd_that_are_killed_in_turn_under_load_lose_nothing(tmp_path: Path) -> None:
    log = worker_log(tmp_path)
    with etcd_server.cluster(3) as members:
        store = "etcd://" + ",".join(member.endpoint for member in members)
        options = ("--journal", "--worker-set", f"request-log={log}", "--store", store)
        with up(tmp_path, *options, gpus=GPUS) as cluster:
            ready(cluster)
            survives(cluster, "etcd", members_killed(members), "fresh")


@pytest.mark.skipif(not shutil.which("nft"), reason="needs nft: run tools/system-parts")
def test_an_agent_that_is_cut_off_under_load_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = (
        *(sys.executable, "-m", "studies.faults", "--fault", "cut"),
        *("--cut-s", str(CUT_S), "--after-s", "4", "--out", str(out)),
    )
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(out.read_text())["cut"]
    assert {name: told[name] for name in ("wrong", "twice", "denied", "unserved", "breaches")} == {
        "wrong": 0,
        "twice": 0,
        "denied": 0,
        "unserved": 0,
        "breaches": 0,
    }
    assert told["right"] > told["sent"] / 4
    # The node was given up: what it had was started elsewhere.
    assert told["starts"] > 5

"""Runs the faults, one cluster each, then writes data and document."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import etcd_server
from cluster_up import Up, up
from faults import (
    check_cluster,
    cut,
    hurt,
    killed,
    members_killed,
    paused,
    ready,
    report,
    worker_killed,
    worker_log,
)

from studies.faults.document import document

RESULTS = ROOT / "docs" / "results"
GPUS = "1x80GiB"
"""Room for all functions at once: what is measured is the fault, not who waits for whom."""
PAUSED_S = 6.0
"""Two leases of a leader."""
AFTER_S = 8.0

Fault = Callable[[Up], Callable[[], float]]
SIMPLE: dict[str, Fault] = {
    "scheduler killed": lambda cluster: killed(cluster, "scheduler"),
    "gateway killed": lambda cluster: killed(cluster, "gateway"),
    "agent killed": lambda cluster: killed(cluster, "node-0"),
    "worker killed": lambda cluster: worker_killed(worker_log(cluster.folder.parent), "w0"),
    "state service killed": lambda cluster: killed(cluster, "state"),
    "leader paused": lambda cluster: paused(cluster, "scheduler", PAUSED_S),
    "agent paused": lambda cluster: paused(cluster, "node-0", PAUSED_S),
}
STANDBY, ETCD, CUT = "leader paused, another stands by", "etcd's members killed in turn", "cut"
FAULTS = (*SIMPLE, STANDBY, ETCD, CUT)


@contextmanager
def _cluster(folder: Path, *options: str) -> Iterator[Up]:
    log = worker_log(folder)
    options = ("--journal", "--worker-set", f"request-log={log}", *options)
    with up(folder, *options, gpus=GPUS) as cluster:
        ready(cluster)
        yield cluster


def _hurt(cluster: Up, fault: Callable[[], float]) -> dict[str, Any]:
    log = worker_log(cluster.folder.parent)
    came = asyncio.run(hurt(cluster, fault, log, after_s=AFTER_S))
    return report(came, check_cluster(cluster))


def run(name: str, folder: Path, cut_s: float) -> dict[str, Any]:
    """Do one fault to a cluster of its own."""
    if name == ETCD:
        with etcd_server.cluster(3) as members:
            store = "etcd://" + ",".join(member.endpoint for member in members)
            with _cluster(folder, "--store", store) as cluster:
                return _hurt(cluster, members_killed(members))
    if name == CUT:
        with _cluster(folder, "--agents", "2") as cluster:
            return _hurt(cluster, cut(cluster, "node-0", cut_s)) | {"cut_s": cut_s}
    with _cluster(folder) as cluster:
        if name == STANDBY:
            with cluster.another("scheduler", "--journal", str(cluster.folder / "journals")):
                return _hurt(cluster, paused(cluster, "scheduler", PAUSED_S))
        return _hurt(cluster, SIMPLE[name](cluster))


def in_own_namespace(words: list[str]) -> int:
    """Run this program again where the network is its own: a loopback, and nothing else."""
    inner = 'ip link set lo up && exec "$@"'
    again = [sys.executable, "-m", "studies.faults", "--inside", *words]
    command = ["unshare", "--net", "sh", "-c", inner, "sh", *again]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m studies.faults", description=__doc__)
    parser.add_argument("--fault", action="append", choices=FAULTS, help="[default: all]")
    parser.add_argument("--cut-s", type=float, default=60.0, help="[default: 60]")
    parser.add_argument("--out", type=Path, help="Write the data there, and no document.")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root")
    if not options.inside:
        sys.exit(in_own_namespace(sys.argv[1:]))
    found: dict[str, Any] = {}
    for name in options.fault or FAULTS:
        with tempfile.TemporaryDirectory(prefix="inferx-faults-") as folder:
            found[name] = run(name, Path(folder), options.cut_s)
        print(name, json.dumps(found[name]), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
        return
    document(found, RESULTS)


if __name__ == "__main__":
    main()

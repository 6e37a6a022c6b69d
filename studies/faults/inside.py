"""Does each fault to a cluster of its own, then writes data and document."""

import argparse
import asyncio
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

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

from studies.faults.document import about, document

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
GPUS = "1x80GiB"
"""Room for all functions at once: what is measured is the fault, not who waits for whom."""
PAUSED_S = 6.0
"""Two leases of a leader."""

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


def _hurt(cluster: Up, fault: Callable[[], float], asked: argparse.Namespace) -> dict[str, Any]:
    log = worker_log(cluster.folder.parent)
    came = asyncio.run(hurt(cluster, fault, log, after_s=asked.after_s))
    return report(came, check_cluster(cluster), cluster.folder / "journals")


def run(name: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Do one fault to a cluster of its own."""
    if name == ETCD:
        with etcd_server.cluster(3) as members:
            store = "etcd://" + ",".join(member.endpoint for member in members)
            with _cluster(folder, "--store", store) as cluster:
                return _hurt(cluster, members_killed(members), asked)
    if name == CUT:
        with _cluster(folder, "--agents", "2") as cluster:
            came = _hurt(cluster, cut(cluster, asked.cut_s), asked)
            return came | {"cut_s": asked.cut_s}
    with _cluster(folder) as cluster:
        if name == STANDBY:
            with cluster.another("scheduler", "--journal", str(cluster.folder / "journals")):
                return _hurt(cluster, paused(cluster, "scheduler", PAUSED_S), asked)
        return _hurt(cluster, SIMPLE[name](cluster), asked)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m studies.faults", description=__doc__)
    parser.add_argument("--fault", action="append", choices=FAULTS, help="[default: all]")
    parser.add_argument("--cut-s", type=float, default=60.0, help="[default: 60]")
    parser.add_argument("--after-s", type=float, default=8.0, help="Load after it. [default: 8]")
    parser.add_argument("--out", type=Path, help="Write the data there, and no document.")
    parser.add_argument("--keep", type=Path, help="Folder that logs and journals stay in.")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root")
    found: dict[str, Any] = {}
    for name in options.fault or FAULTS:
        with ExitStack() as stack:
            scratch = tempfile.TemporaryDirectory(prefix="inferx-faults-")
            folder = options.keep or Path(stack.enter_context(scratch))
            own = folder / re.sub("[^a-z]+", "-", name)
            own.mkdir()
            found[name] = {"about": about()} | run(name, own, options)
        print(name, json.dumps(found[name]), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
        return
    document(found, RESULTS, FAULTS)


if __name__ == "__main__":
    main()

"""What is done to a cluster while clients ask it, and what is told of it afterwards."""

import asyncio
import io
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_up import Up, function
from etcd_server import Member, healthy
from load import Account, Clients, served_ids
from system_parts import until

from inferx.core.commands import Create, Restore
from inferx.core.events import FunctionDefined, LeaseAsked
from inferx.core.journal import JournalReader, decoded
from inferx.core.units import NS_PER_S
from inferx.exec.journal_check import Checked, check_journals
from inferx.load import load_bundle

__all__ = [
    "COLD",
    "FRESH",
    "GPUS",
    "WARM",
    "Hurt",
    "check_cluster",
    "cut",
    "hurt",
    "killed",
    "members_killed",
    "ordered_s",
    "paused",
    "ready",
    "report",
    "worker_killed",
    "worker_log",
]

WARM = ("w0", "w1")
COLD = ("c0", "c1")
FRESH = "fresh"
GPUS = "1x40GiB"
"""Room for three pods of four functions: some always have to leave for others."""
RETURN_S = 30.0
"""For a service that was killed to be started again on a busy machine."""


@dataclass(frozen=True, slots=True)
class Hurt:
    """What came of a fault under load.

    Attributes:
        account: Of all requests.
        began_s: When the fault was, on the monotonic clock.
        returned_s: When what was hurt was there again.
        back_s: From then until all functions that are asked all the time had answered anew.
        fresh_s: From then until a function answered that nobody had asked before.
    """

    account: Account
    began_s: float
    returned_s: float
    back_s: float
    fresh_s: float


def worker_log(folder: Path) -> Path:
    """Return where a cluster's workers write down what they serve."""
    return folder / "requests.jsonl"


def ready(cluster: Up, fresh: Sequence[str] = (FRESH,)) -> None:
    """Apply all functions, and have all but the fresh ones answer once."""
    names = (*WARM, *COLD, *fresh)
    asyncio.run(cluster.apply(*(function(name) for name in names)))
    for name in (*COLD, *WARM):
        cluster.until_answers(name, 60)


async def hurt(
    cluster: Up,
    fault: Callable[[], float],
    log: Path,
    *,
    fresh: str = FRESH,
    before_s: float = 2.0,
    after_s: float = 4.0,
    prefix: str = "r",
) -> Hurt:
    """Have clients ask, do something to the cluster, and go on until it has answered again.

    Args:
        cluster: The cluster.
        fault: Does it, in a thread; returns when what was hurt was there again.
        log: Of the workers.
        fresh: A function that nobody has asked.
        before_s: Asked before it.
        after_s: Asked after it, at least.
        prefix: Of requests' ids.
    """
    clients = Clients(cluster.gateway, cluster.key, warm=WARM, cold=COLD, prefix=prefix)
    async with clients:
        await asyncio.sleep(before_s)
        began_s = time.monotonic()
        returned_s = await asyncio.to_thread(fault)
        asked = await clients.ask_until_right(fresh)
        fresh_s = asked - returned_s
        await asyncio.sleep(max(0.0, returned_s + after_s - time.monotonic()))
    account = clients.account
    account.served = served_ids(log)
    return Hurt(account, began_s, returned_s, account.back_s(returned_s, WARM), fresh_s)


def check_cluster(cluster: Up) -> Checked:
    """Hold all journals of a cluster against each other."""
    paths = sorted((cluster.folder / "journals").glob("*.journal"))
    checked = check_journals(paths, load_bundle)
    assert not checked.findings, checked.findings[:5]
    return checked


def ordered_s(journals: Path, fresh: str) -> float:
    """Return how long a function's first request waited until a leader ordered a pod for it.

    What the pod then takes to start is the machine's matter, not the control plane's.
    """
    asked_ns: list[int] = []
    for path in sorted(journals.glob("scheduler-*.journal")):
        reader = JournalReader(io.BytesIO(path.read_bytes()))
        known: dict[int, str] = {}
        for number, entry in enumerate(reader):
            events, step = decoded(reader.machine, number, entry)
            for event in events:
                if isinstance(event, FunctionDefined):
                    known[event.function] = event.spec.name
                elif isinstance(event, LeaseAsked) and known[event.function] == fresh:
                    asked_ns.append(event.oldest_ns)
            for command in step.commands:
                if isinstance(command, Create | Restore) and known[command.function] == fresh:
                    return (entry.now_ns - min(asked_ns)) / NS_PER_S
    raise AssertionError(f"no pod of {fresh} was ordered")


def report(came: Hurt, checked: Checked, journals: Path, fresh: str = FRESH) -> dict[str, Any]:
    """Return what a run is told by: plain values."""
    account = came.account
    outcomes = ("right", "again", "broken", "unheard", "wrong")
    return {
        "sent": len(account.ended),
        **{outcome: account.count(outcome) for outcome in outcomes},
        "reasons": account.reasons,
        "twice": len(account.twice),
        "denied": len(account.denied),
        "unserved": len(account.unserved),
        "fault_s": came.returned_s - came.began_s,
        "gap_s": account.gap_s(),
        "back_s": came.back_s,
        "clean_s": account.clean_s(came.returned_s),
        "ordered_s": ordered_s(journals, fresh),
        "fresh_s": came.fresh_s,
        "epochs": len(checked.epochs),
        "starts": checked.starts,
        "dispatches": checked.dispatches,
        "breaches": len(checked.findings),
    }


# -- faults: each returns when what it hurt was there again ---
def killed(cluster: Up, name: str) -> Callable[[], float]:
    """A service is killed, and started again by its supervisor."""

    def fault() -> float:
        file = cluster.folder / f"{name}.ready"
        before_ns = file.stat().st_mtime_ns
        cluster.kill(name)
        deadline = time.monotonic() + RETURN_S
        while True:
            try:
                if file.stat().st_mtime_ns != before_ns:
                    return time.monotonic()
            except FileNotFoundError:
                pass
            assert time.monotonic() < deadline, f"{name} is not started again"
            time.sleep(0.02)

    return fault


def paused(cluster: Up, name: str, for_s: float) -> Callable[[], float]:
    """A service stands still for a while, and does not know."""

    def fault() -> float:
        pid = cluster.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(for_s)
        finally:
            os.kill(pid, signal.SIGCONT)
        return time.monotonic()

    return fault


def members_killed(members: Sequence[Member]) -> Callable[[], float]:
    """Each member of etcd is killed in turn, and started again while the others go on."""

    def fault() -> float:
        for member in members:
            member.stop()
            time.sleep(1.0)
            member.start()
            member.await_up()
            until(lambda: healthy(list(members)), within_s=RETURN_S)
        return time.monotonic()

    return fault


def cut(cluster: Up, for_s: float) -> Callable[[], float]:
    """Nothing passes between the agent with most pods and its scheduler for a while.

    Only where this process has a network namespace to itself.
    """

    def nft(*lines: str) -> None:
        rules = "".join(f"{line}\n" for line in lines)
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)

    def fault() -> float:
        ready = cluster.folder / f"{_busiest(cluster)}.ready"
        port = str(json.loads(ready.read_text())["address"]).rpartition(":")[2]
        hook = "type filter hook input priority 0; policy accept;"
        drop = (f"tcp dport {port} drop", f"tcp sport {port} drop")
        nft("table inet cut {", "chain input {", hook, *drop, "}", "}")
        try:
            time.sleep(for_s)
        finally:
            nft("delete table inet cut")
        return time.monotonic()

    return fault


def _busiest(cluster: Up) -> str:
    """Return the node that has most pods."""
    asked = urllib.request.Request(
        f"{cluster.gateway}/view/", headers={"Authorization": f"Bearer {cluster.key}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        pods = json.load(answer)["pods"]
    return str(Counter(pod["node"] for pod in pods).most_common(1)[0][0])


def worker_killed(log: Path, model: str) -> Callable[[], float]:
    """A pod's process is killed; nobody starts it again but the scheduler."""

    def fault() -> float:
        wanted = {str(log).encode(), model.encode()}
        found = 0
        for path in Path("/proc").iterdir():
            if path.name.isdecimal():
                try:
                    words = (path / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"worker" in words and wanted <= set(words):
                    os.kill(int(path.name), signal.SIGKILL)
                    found += 1
        assert found, f"no worker of {model}"
        return time.monotonic()

    return fault

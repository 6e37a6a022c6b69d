"""Journals of a cluster held against each other: what is well is passed, what is not is found.

Journals are of real machines. Some machines were told what no link of ours would tell them.
"""

import io
import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from command_line import call
from small_cluster import GIB, node

from inferx.core.commands import Create, Perform, Stop, Suspend
from inferx.core.events import (
    FoundPod,
    FunctionDefined,
    LeaderChanged,
    LeaseAsked,
    LeaseGranted,
    NodeDescribed,
    NodeJoined,
    Performed,
    PodExited,
    RequestArrived,
    RequestFailed,
    RouterJoined,
)
from inferx.core.journal import JournalReader, JournalWriter
from inferx.core.types import (
    FunctionId,
    FunctionSpec,
    GpuId,
    LeaseId,
    NodeId,
    PodId,
    RequestId,
    RouterId,
)
from inferx.exec.journal import Journal, make, open_journal
from inferx.exec.journal_check import Checked, check_journals
from inferx.load import load_bundle

__all__ = ["call"]

NODE, ROUTER = NodeId(0), RouterId(0)
FUNCTION = FunctionSpec(
    name="f",
    milli_gpu=600,
    hbm_bytes=30 * GIB,
    device_bytes=20 * GIB,
    host_bytes=GIB,
    weight_bytes=10 * GIB,
    slots=2,
)


class Journals:
    """Machines with journals in one folder, told what a test says, a second apart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ns = 0
        self._open: list[Journal] = []

    def machine(self, kind: str, name: str, **more: Any) -> "Told":
        config = {"policy": "plain", "settings": {}, "seed": 1, "name": name, **more}
        machine = make(kind, config, load_bundle)
        journal = open_journal(self.folder, f"{name}-{len(self._open)}", kind, config, machine)
        self._open.append(journal)
        return Told(self, journal)

    def scheduler(self, epoch: int = 1, nodes: int = 0, routers: int = 0) -> "Told":
        awaited = {"awaited_nodes": nodes, "awaited_routers": routers}
        return self.machine("scheduler", f"scheduler/{epoch}", epoch=epoch, **awaited)

    def agent(self, name: str = "n0", epoch: int = 0) -> "Told":
        return self.machine("agent", name, node=0, epoch=epoch)

    def router(self, name: str = "router/a") -> "Told":
        return self.machine("router", name, router=0)

    def close(self) -> None:
        for journal in self._open:
            journal.close()

    def check(self) -> Checked:
        return check_journals(sorted(self.folder.glob("*.journal")), load_bundle)

    def found(self) -> list[tuple[str, str]]:
        return [(one.invariant, one.what) for one in self.check().findings]


class Told:
    """One machine; what it answers."""

    def __init__(self, journals: Journals, journal: Journal) -> None:
        self._journals = journals
        self._journal = journal

    def __call__(self, *events: Any) -> Sequence[Any]:
        self._journals.now_ns += 1_000_000_000
        return self._journal.step(self._journals.now_ns, events).commands


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[Journals]:
    made = Journals(tmp_path)
    yield made
    made.close()


def begun(scheduler: Told, functions: int = 2) -> list[Create]:
    """Have a leader know one node of two GPUs and order a pod of each function."""
    scheduler(NodeDescribed(NODE, node(0, gpus=2)), NodeJoined(NODE, 0), RouterJoined(ROUTER))
    ids = [FunctionId(number) for number in range(functions)]
    scheduler(*(FunctionDefined(f, msgspec.structs.replace(FUNCTION, name=f"f{f}")) for f in ids))
    told = scheduler(*(LeaseAsked(ROUTER, f, 1, 0, 0, 1) for f in ids))
    return [one for one in told if isinstance(one, Create)]


def carried_out(agent: Told, *commands: Any) -> None:
    """Have an agent carry commands out, each well."""
    for performed in [one for one in agent(*commands) if isinstance(one, Perform)]:
        agent(Performed(performed.action))


def test_a_cluster_that_is_well_has_no_breach(journals: Journals) -> None:
    scheduler, agent, router = journals.scheduler(), journals.agent(), journals.router()
    first, second = begun(scheduler)
    assert first.gpus != second.gpus
    agent(LeaderChanged(1))
    carried_out(agent, first, second)
    router(FunctionDefined(FunctionId(0), FUNCTION))
    router(LeaseGranted(LeaseId(0), FunctionId(0), first.pod, 2, cold=True))
    router(RequestArrived(RequestId(1), FunctionId(0)), RequestArrived(RequestId(2), FunctionId(0)))
    router(RequestFailed(RequestId(1), first.pod))
    router(RequestArrived(RequestId(3), FunctionId(0)))
    carried_out(agent, Suspend(NODE, 1, 90, first.pod, FunctionId(0), first.gpus))
    agent(PodExited(second.pod, "exited"))
    checked = journals.check()
    assert not checked.findings
    assert (checked.starts, checked.dispatches, checked.epochs) == (2, 3, (1,))


def test_inv_1_two_pods_on_one_gpu_are_found(journals: Journals) -> None:
    scheduler, agent = journals.scheduler(), journals.agent()
    first, second = begun(scheduler)
    agent(LeaderChanged(1))
    carried_out(agent, first)
    agent(msgspec.structs.replace(second, gpus=first.gpus))
    found = journals.found()
    assert [invariant for invariant, _ in found] == ["INV-1"]
    assert "1200 of 1000 milli" in found[0][1]


def test_inv_1_a_pod_whose_end_failed_is_on_its_gpu_still(journals: Journals) -> None:
    scheduler, agent = journals.scheduler(), journals.agent()
    first, second = begun(scheduler)
    agent(LeaderChanged(1))
    carried_out(agent, first)
    (stop,) = agent(Stop(NODE, 1, 80, first.pod, first.function, first.gpus))
    agent(Performed(stop.action, error="stop"))
    agent(msgspec.structs.replace(second, gpus=first.gpus))
    assert [invariant for invariant, _ in journals.found()] == ["INV-1"]


@pytest.mark.parametrize("reported", [True, False])
def test_inv_1_pods_outlive_their_agent_until_the_next_one_reports(
    journals: Journals, reported: bool
) -> None:
    scheduler, agent = journals.scheduler(), journals.agent()
    first, second = begun(scheduler)
    agent(LeaderChanged(1))
    carried_out(agent, first)
    again = journals.agent(epoch=1)
    there = (FoundPod(first.pod, first.function, first.gpus, "ready"),) if reported else ()
    again(LeaderChanged(1))
    scheduler(NodeJoined(NODE, 1, there))
    carried_out(again, msgspec.structs.replace(second, gpus=first.gpus))
    assert [invariant for invariant, _ in journals.found()] == ["INV-1"] * reported


def test_inv_1_a_pod_that_is_started_twice_is_found(journals: Journals) -> None:
    scheduler, agent, other = journals.scheduler(), journals.agent(), journals.agent("n1")
    first, _ = begun(scheduler)
    carried_out(agent, first)
    carried_out(other, first)
    found = journals.found()
    assert found == [("INV-1", "pod 0 is started, and is on GPUs of n0")]


def test_inv_8_what_an_older_leader_ordered_is_found_where_an_agent_forgot(
    journals: Journals,
) -> None:
    scheduler, agent = journals.scheduler(), journals.agent()
    first, _ = begun(scheduler)
    agent(LeaderChanged(2))
    again = journals.agent(epoch=0)
    again(first)
    found = journals.found()
    assert [invariant for invariant, _ in found] == ["INV-8", "INV-8"]
    assert "begins at epoch 0" in found[0][1]
    assert "Create of epoch 1 after 2" in found[1][1]


def test_inv_8_two_leaders_of_one_epoch_and_orders_of_nobody_are_found(journals: Journals) -> None:
    begun(journals.scheduler())
    begun(journals.scheduler())
    journals.agent()(Create(NODE, 1, 1, PodId(77), FunctionId(0), (GpuId(0),)))
    found = journals.found()
    assert [invariant for invariant, _ in found] == ["INV-8", "INV-8"]
    assert "pod 77 is started, which no scheduler ordered" in found[1][1]


def test_inv_10_more_requests_than_slots_and_a_lease_of_two_are_found(journals: Journals) -> None:
    first, _ = begun(journals.scheduler())
    grant = LeaseGranted(LeaseId(5), FunctionId(0), first.pod, 2, cold=False)
    arrive = [RequestArrived(RequestId(number), FunctionId(0)) for number in range(2)]
    routers: list[Told] = []
    for name in ("router/a", "router/b"):
        router = journals.router(name)
        router(FunctionDefined(FunctionId(0), FUNCTION))
        router(grant)
        router(*arrive)
        routers.append(router)
    for router in routers:
        router(RequestFailed(RequestId(0), first.pod))
    found = journals.found()
    assert [invariant for invariant, _ in found] == ["INV-10", "INV-10", "INV-10"]
    assert "lease 5 is router/a's as well" in found[0][1]
    assert "has 3 requests and 2 slots" in found[1][1]


def test_requests_end_with_their_gateway(journals: Journals) -> None:
    first, _ = begun(journals.scheduler())
    for name in ("router/a", "router/a"):
        router = journals.router(name)
        router(FunctionDefined(FunctionId(0), FUNCTION))
        router(LeaseGranted(LeaseId(journals.now_ns), FunctionId(0), first.pod, 2, cold=False))
        router(*(RequestArrived(RequestId(number), FunctionId(0)) for number in range(2)))
    assert journals.found() == []


def test_inv_3_a_request_to_a_pod_of_nobody_is_found(journals: Journals) -> None:
    router = journals.router()
    router(FunctionDefined(FunctionId(0), FUNCTION))
    router(LeaseGranted(LeaseId(5), FunctionId(0), PodId(9), 2, cold=False))
    router(RequestArrived(RequestId(0), FunctionId(0)))
    assert [invariant for invariant, _ in journals.found()] == ["INV-3"]


def test_inv_7_a_step_that_comes_out_otherwise_is_found(journals: Journals) -> None:
    begun(journals.scheduler(epoch=1))
    file = next(journals.folder.glob("*.journal"))
    told = list(JournalReader(io.BytesIO(file.read_bytes())))
    file.unlink()
    with file.open("wb") as written:
        config = {"policy": "plain", "settings": {}, "seed": 1, "name": "scheduler/1"}
        awaited = {"awaited_nodes": 0, "awaited_routers": 0}
        JournalWriter(written, "scheduler", {**config, **awaited, "epoch": 2})
        for entry in told:
            payload = msgspec.msgpack.encode((entry.now_ns, entry.events, entry.step))
            written.write(struct.pack("<II", len(payload), crc32(payload)) + payload)
    assert [invariant for invariant, _ in journals.found()] == ["INV-7"]


def test_the_command_exits_1_on_a_breach(journals: Journals, call: Any) -> None:
    scheduler, agent = journals.scheduler(), journals.agent()
    first, second = begun(scheduler)
    carried_out(agent, first)
    status, out, _ = call("replay-journal", "--check", journals.folder)
    assert status == 0
    assert "2 journals together, 1 epochs: 1 starts on GPUs, 0 requests sent, 0 breaches" in out
    agent(msgspec.structs.replace(second, gpus=first.gpus))
    status, out, _ = call("replay-journal", "--check", "--json", journals.folder)
    assert status == 1
    told = json.loads(out.splitlines()[-1])
    assert [one["invariant"] for one in told["findings"]] == ["INV-1"]
    assert call("replay-journal", journals.folder)[0] == 0

"""The agent as a service on a whole node: commands in, exactly one fact out for each."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from agent_node import (
    FUNCTION,
    HELD,
    AgentNode,
    agent_node,
    ask,
    function,
    gpu,
    memory,
    needs_node,
    pod,
    promised,
    traces,
    used,
)
from prometheus_client.parser import text_string_to_metric_families
from squatter import Squatter
from standin_gpus import MB, enter, uuid
from standin_gpus import Node as Gpus

from inferx.core.commands import (
    Copy,
    Create,
    Drop,
    NodeCommand,
    Restore,
    Resume,
    Snapshot,
    Stop,
    Suspend,
)
from inferx.core.events import (
    CommandAccepted,
    CommandRefused,
    Fact,
    FoundPod,
    NodeJoined,
    PodFailed,
    PodGone,
    PodReady,
    PodSuspended,
    SnapshotCopied,
    SnapshotDropped,
    SnapshotTaken,
)
from inferx.core.types import FunctionId, NodeId, Tier
from inferx.exec.agent import guarding
from inferx.exec.agent import service as service_module
from inferx.exec.agent.control import serve, status_of
from inferx.exec.agent.executor import Recovered
from inferx.exec.agent.service import REPORTS_PER_BOOT, AgentService
from inferx.exec.agent.store.config import FolderConfig
from inferx.exec.metrics.exposition import exposition
from inferx.exec.metrics.node import NodeSource

pytestmark = needs_node

NODE = NodeId(7)
BROKEN = FunctionId(1)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentNode]:
    gpus = Gpus.make(tmp_path / "gpus")
    enter(gpus, monkeypatch)
    tiers = tuple(
        FolderConfig(tier=name, folder=tmp_path / name, budget_bytes=1 << 30)
        for name in ("dram", "nvme")
    )
    small = function(gpus, hbm_bytes=10 * MB)
    broken = function(gpus, number=1, launch={"command": ("/bin/false",)})
    with agent_node(tmp_path, gpus, small, broken, tiers=tiers) as made:
        yield made
    assert not traces(made)


@dataclass
class Running:
    """A service that runs, and what it has told."""

    service: AgentService
    recovered: Recovered
    facts: list[Fact] = field(default_factory=list)
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        async for fact in self.service.facts():
            self.facts.append(fact)
            self._told.set()

    async def fact(self, wanted: Callable[[Fact], bool]) -> Fact:
        """Wait for a fact."""
        async with asyncio.timeout(20):
            while True:
                for one in self.facts:
                    if wanted(one):
                        return one
                self._told.clear()
                await self._told.wait()

    async def answer(self, command: NodeCommand) -> Fact:
        """Give a command, and wait for its fact."""
        self.service.command(command)
        return await self.fact(lambda fact: sequence_of(fact) == command.sequence)


def sequence_of(fact: Fact) -> int | None:
    return getattr(fact, "sequence", None)


@asynccontextmanager
async def running(node: AgentNode, **config: Any) -> AsyncIterator[Running]:
    loop = asyncio.get_running_loop()
    with node.agent(**config) as agent:
        service = AgentService(agent, node=NODE, state=node.config.state)
        ready: asyncio.Future[Recovered] = loop.create_future()
        task = asyncio.create_task(service.run(ready=ready.set_result))
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        if task.done():
            task.result()
        told = Running(service, ready.result())
        listener = asyncio.create_task(told.listen())
        try:
            yield told
        finally:
            for one in (task, listener):
                one.cancel()
            await asyncio.gather(task, listener, return_exceptions=True)


def on(kind: Any, sequence: int, number: int, *, epoch: int = 1, **more: Any) -> Any:
    """Return a command to this node about a pod."""
    given = {"function": FUNCTION, "gpus": gpu(0)} | more
    return kind(
        NODE, epoch, sequence, pod(number), given.pop("function"), given.pop("gpus"), **given
    )


def answers(facts: Sequence[Fact]) -> list[tuple[type, int | None]]:
    return [(type(one), sequence_of(one)) for one in facts if not isinstance(one, NodeJoined)]


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))  # type: ignore[arg-type]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 it is the machine that changes
            await asyncio.sleep(0.01)


# -- commands ---
def test_each_command_is_answered_by_one_fact(node: AgentNode) -> None:
    async def work() -> None:
        async with running(node) as agent:
            ready = await agent.answer(on(Create, 1, 1))
            assert isinstance(ready, PodReady)
            assert [one.phase for one in ready.phases][-1] == "health"
            pods = agent.service.executor.pods
            before = await asyncio.to_thread(memory, pods.get(pod(1)))
            down = await agent.answer(on(Suspend, 2, 1))
            assert isinstance(down, PodSuspended)
            assert ("checkpoint", HELD) in [(one.phase, one.moved_bytes) for one in down.phases]
            await agent.answer(on(Resume, 3, 1, gpus=gpu(1)))
            taken = await agent.answer(on(Snapshot, 4, 1, gpus=gpu(1), leave=False))
            assert isinstance(taken, SnapshotTaken)
            assert "dump" in [one.phase for one in taken.phases]
            await agent.answer(on(Stop, 5, 1))
            assert promised(pods) == {}
            await agent.answer(Copy(NODE, 1, 6, FUNCTION, Tier.NVME, Tier.DRAM))
            await agent.answer(Drop(NODE, 1, 7, FUNCTION, Tier.NVME))
            (kept,) = pods.node.store.everything()
            assert kept.tiers == ("dram",)
            restored = {"source": Tier.DRAM, "keep": False}
            await agent.answer(on(Restore, 8, 2, **restored))
            suspended = await agent.answer(on(Restore, 9, 3, gpus=(), **restored))
            assert isinstance(suspended, PodSuspended)
            assert await asyncio.to_thread(memory, pods.get(pod(2))) == before
            await agent.answer(on(Snapshot, 10, 2, leave=True))
            assert [one.record.pod for one in pods.all()] == [3]
            await asyncio.sleep(0.05)
            assert answers(agent.facts) == [
                (PodReady, 1),
                (PodSuspended, 2),
                (PodReady, 3),
                (SnapshotTaken, 4),
                (PodGone, 5),
                (SnapshotCopied, 6),
                (SnapshotDropped, 7),
                (PodReady, 8),
                (PodSuspended, 9),
                (SnapshotTaken, 10),
            ]

    run(work)


def test_a_copy_to_a_tier_that_is_not_there_fails_in_a_line(node: AgentNode) -> None:
    async def work() -> None:
        async with running(node) as agent:
            await agent.answer(on(Create, 1, 1))
            await agent.answer(on(Snapshot, 2, 1, leave=True))
            copied = await agent.answer(Copy(NODE, 1, 3, FUNCTION, Tier.NVME, Tier.REMOTE))
            assert isinstance(copied, SnapshotCopied)
            assert not copied.ok
            assert "this node has no tier shared" in agent.service.last_errors[-1]

    run(work)


async def scraped(agent: Running) -> dict[tuple[str, ...], float]:
    """Return what the agent tells Prometheus: values by name and the labels' values."""
    text = (await exposition([NodeSource(agent.service)])).decode()
    return {
        (one.name, *(value for _, value in sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_metrics_tell_commands_by_how_they_ended_and_what_pods_and_snapshots_hold(
    node: AgentNode,
) -> None:
    async def work() -> None:
        async with running(node) as agent:
            await agent.answer(on(Create, 1, 1))
            told = await scraped(agent)
            first = ("0", uuid(0))
            assert told["inferx_agent_gpu_memory_used_bytes", *first] == HELD
            assert told["inferx_agent_gpu_memory_charged_bytes", *first] == 10 * MB
            assert told["inferx_agent_gpu_compute_charged_ratio", *first] == 0.25
            assert told["inferx_agent_pods", "ready"] == 1
            assert told["inferx_agent_snapshots", "nvme"] == 0
            await agent.answer(on(Suspend, 2, 1))
            await agent.answer(on(Create, 3, 2, function=BROKEN))
            await agent.answer(on(Snapshot, 4, 1, gpus=(), leave=True))
            told = await scraped(agent)
            assert told["inferx_agent_gpu_memory_charged_bytes", *first] == 0
            outcomes = {
                key[1:]: told[key] for key in told if key[0] == "inferx_agent_commands_total"
            }
            assert sum(outcomes.values()) == 4
            assert outcomes["create", "done"] == outcomes["suspend", "done"] == 1
            assert outcomes["snapshot", "done"] == 1
            # It ended as it started, or was ended for not being well.
            assert outcomes.get(("create", "health"), 0) + outcomes.get(("create", "start"), 0) == 1
            assert told["inferx_agent_phase_seconds_count", "suspend", "checkpoint"] == 1
            assert told["inferx_agent_phase_moved_bytes_total", "suspend", "checkpoint"] == HELD
            assert sum(value for key, value in told.items() if key[0] == "inferx_agent_pods") == 0
            assert told["inferx_agent_snapshots", "nvme"] == 1
            used_bytes = told["inferx_agent_snapshot_bytes", "nvme"]
            assert 0 < used_bytes <= told["inferx_agent_snapshot_budget_bytes", "nvme"] == 1 << 30
            assert told["inferx_agent_host_memory_promised_bytes",] == 0
            assert told["inferx_agent_host_memory_available_bytes",] > 0

    run(work)


def test_a_part_of_the_node_that_does_not_answer_hides_no_other_metric(node: AgentNode) -> None:
    async def work() -> None:
        async with running(node) as agent:
            home, away = node.folder / "nvme", node.folder / "away"
            home.rename(away)
            try:
                for times in (1, 2):
                    told = await scraped(agent)
                    assert told["inferx_agent_scrape_errors_total",] == times
                    assert told["inferx_agent_pods", "ready"] == 0
                    assert told["inferx_agent_gpu_memory_bytes", "0", uuid(0)] > 0
                    assert ("inferx_agent_snapshots", "dram") not in told
            finally:
                away.rename(home)
            told = await scraped(agent)
            assert told["inferx_agent_scrape_errors_total",] == 2
            assert told["inferx_agent_snapshots", "dram"] == 0

    run(work)


def test_repeated_command_is_carried_out_once(node: AgentNode) -> None:
    async def work() -> None:
        async with running(node) as agent:
            create = on(Create, 1, 1)
            agent.service.command(create)
            agent.service.command(create)
            ready = await agent.fact(lambda fact: isinstance(fact, PodReady))
            agent.service.command(create)
            await until(lambda: len(agent.facts) == 4)
            assert answers(agent.facts) == [(CommandAccepted, 1), (PodReady, 1), (PodReady, 1)]
            assert agent.facts[-1] == ready
            assert len(agent.service.executor.pods.all()) == 1

    run(work)


def test_newest_epoch_outlives_the_service(node: AgentNode) -> None:
    async def first() -> None:
        async with running(node) as agent:
            await agent.answer(on(Create, 1, 1, epoch=5))
            await agent.answer(on(Create, 2, 2, epoch=5, gpus=gpu(1)))
            await agent.answer(on(Suspend, 3, 2, epoch=5))
            stale = await agent.answer(on(Stop, 9, 1, epoch=4))
            assert isinstance(stale, CommandRefused)
            assert agent.facts[0] == NodeJoined(NODE, REPORTS_PER_BOOT, (), ())

    async def second() -> None:
        async with running(node) as agent:
            assert agent.recovered.adopted == (1, 2)
            there = (
                FoundPod(pod(1), FUNCTION, gpu(0), "ready"),
                FoundPod(pod(2), FUNCTION, (), "suspended"),
            )
            await agent.fact(lambda fact: fact == NodeJoined(NODE, 2 * REPORTS_PER_BOOT, there))
            stale = await agent.answer(on(Stop, 1, 1, epoch=4))
            assert isinstance(stale, CommandRefused)
            assert len(agent.service.executor.pods.all()) == 2
            gone = await agent.answer(on(Stop, 2, 1, epoch=6))
            assert isinstance(gone, PodGone)

    run(first)
    run(second)


def test_failure_names_its_step_and_leaves_nothing(node: AgentNode) -> None:
    async def work() -> None:
        async with running(node) as agent:
            pods = agent.service.executor.pods
            failed = await agent.answer(on(Create, 1, 1, function=BROKEN))
            assert isinstance(failed, PodFailed)
            assert failed.reason in {"health", "start"}
            assert agent.service.last_errors[-1].startswith("create 1: ")
            restore = on(Restore, 2, 2, source=Tier.NVME, keep=False)
            failed = await agent.answer(restore)
            assert isinstance(failed, PodFailed)
            line = (
                "restore 2: no snapshot of t/n/tenant0@1 on this node; expected one on dram or nvme"
            )
            assert agent.service.last_errors[-1] == line
            # What the scheduler takes for the pod's end is its end, though it could have gone on.
            await agent.answer(on(Create, 3, 3))
            node.gpus.inject("lock", error=600)
            failed = await agent.answer(on(Suspend, 4, 3))
            assert isinstance(failed, PodFailed)
            assert failed.reason == "device-lock"
            assert (pods.all(), promised(pods), used(pods.node)) == ([], {}, [0, 0])
            assert not await asyncio.to_thread(traces, node)

    run(work)


def test_pods_start_at_once(node: AgentNode) -> None:
    async def work() -> None:
        async with running(node) as agent:
            for number in range(1, 7):
                agent.service.command(on(Create, number, number, gpus=gpu(number % 2)))
            for number in range(1, 7):
                fact = await agent.fact(lambda one, number=number: sequence_of(one) == number)
                assert isinstance(fact, PodReady)
            assert used(agent.service.executor.pods.node) == [3 * HELD] * 2
            for number in range(1, 7):
                agent.service.command(on(Stop, 10 + number, number))
            await agent.fact(lambda one: isinstance(one, PodGone) and one.pod == 6)

    run(work)


# -- what happens by itself ---
def test_pod_that_ends_by_itself_is_told_once(
    node: AgentNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "LOOK_S", 0.02)

    async def work() -> None:
        async with running(node) as agent:
            pods = agent.service.executor.pods
            await agent.answer(on(Create, 1, 1, epoch=3))
            await agent.answer(on(Create, 2, 2, epoch=3, gpus=gpu(1)))
            for pid in pods.node.sandbox.pids("pod-1"):
                os.kill(pid, signal.SIGKILL)
            told = await agent.fact(lambda fact: isinstance(fact, PodFailed))
            assert told == PodFailed(NODE, 3, -1, pod(1), "exited")
            assert [one.record.pod for one in pods.all()] == [2]
            assert promised(pods) == {2: [uuid(1)]}
            assert used(pods.node) == [0, HELD]
            assert not await asyncio.to_thread(traces, node, pods=[2])
            await asyncio.sleep(0.1)
            assert sum(isinstance(one, PodFailed) for one in agent.facts) == 1
            # A suspended one is looked after, too.
            await agent.answer(on(Suspend, 3, 2, epoch=3))
            first = pods.node.sandbox.live()[0].pid
            os.kill(first, signal.SIGKILL)
            pods.node.sandbox.thaw("pod-2")
            await agent.fact(lambda fact: isinstance(fact, PodFailed) and fact.pod == 2)

    run(work)


def test_pods_that_ended_are_told_though_another_cannot_be_ended(
    node: AgentNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "LOOK_S", 0.02)

    async def work() -> None:
        async with running(node) as agent:
            pods = agent.service.executor.pods
            for number in (1, 2, 3):
                await agent.answer(on(Create, number, number, gpus=gpu(number % 2)))
            pids = [
                pids for name in ("1", "2", "3") for pids in pods.node.sandbox.pids(f"pod-{name}")
            ]
            squatter = Squatter(node.config.name, 2)
            try:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                for number in (1, 3):
                    await agent.fact(
                        lambda one, number=number: isinstance(one, PodFailed) and one.pod == number
                    )
                # They are not told only when it is given up, which takes seconds.
                assert pods.stuck() == []
                await until(lambda: pods.stuck() != [])
                assert [one.pod for one in pods.stuck()] == [2]
            finally:
                squatter.leave()
            await agent.fact(lambda one: isinstance(one, PodFailed) and one.pod == 2)
            assert promised(pods) == {}

    run(work)


def test_pod_that_ended_is_told_though_nvml_does_not_answer(
    node: AgentNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service_module, "LOOK_S", 0.02)
    caplog.set_level(logging.WARNING)
    described, aside = node.gpus.folder / "gpus", node.gpus.folder / "aside"

    async def work() -> None:
        async with running(node) as agent:
            pods = agent.service.executor.pods
            await agent.answer(on(Create, 1, 1))
            await agent.answer(on(Create, 2, 2, gpus=gpu(1)))
            described.rename(aside)
            try:
                await until(lambda: "Driver Not Loaded" in caplog.text)
                for pid in pods.node.sandbox.pids("pod-1"):
                    os.kill(pid, signal.SIGKILL)
                told = await agent.fact(lambda fact: isinstance(fact, PodFailed))
                assert told == PodFailed(NODE, 1, -1, pod(1), "exited")
            finally:
                aside.rename(described)

    run(work)


def test_pod_whose_gpu_is_lost_is_ended_and_told(
    node: AgentNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "LOOK_S", 0.02)

    async def work() -> None:
        async with running(node) as agent:
            pods = agent.service.executor.pods
            await agent.answer(on(Create, 1, 1))
            await agent.answer(on(Create, 2, 2, gpus=gpu(1)))
            before = await asyncio.to_thread(memory, pods.get(pod(1)))
            node.gpus.inject("lost.1")
            told = await agent.fact(lambda fact: isinstance(fact, PodFailed))
            assert told == PodFailed(NODE, 1, -1, pod(2), "gpu lost")
            assert promised(pods).keys() == {1}
            assert not await asyncio.to_thread(traces, node, pods=[1])
            told = await agent.answer(on(Create, 3, 3, gpus=gpu(1)))
            assert told == PodFailed(NODE, 1, 3, pod(3), "reserve")
            assert (await asyncio.to_thread(memory, pods.get(pod(1)))) == before

    run(work)


@pytest.mark.parametrize("action", ["warn", "throttle", "kill"])
def test_pod_over_its_gpu_memory(
    node: AgentNode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    action: str,
) -> None:
    monkeypatch.setattr(service_module, "LOOK_S", 0.02)
    monkeypatch.setattr(guarding, "SLACK_BYTES", 4 * MB)
    monkeypatch.setattr(guarding, "PATIENCE_NS", 50_000_000)
    caplog.set_level(logging.WARNING)
    line = f"pod-1 holds {HELD + 16 * MB} bytes of {uuid(0)}, {12 * MB} more than its share: "

    async def work() -> None:
        async with running(node, over_memory=action) as agent:
            pods = agent.service.executor.pods
            await agent.answer(on(Create, 1, 1))
            await agent.answer(on(Create, 2, 2))
            one = pods.get(pod(1))
            before = await asyncio.to_thread(memory, one)
            await asyncio.to_thread(ask, one, "/allocate?mb=16", post=True)
            await until(lambda: f"{line}warn" in caplog.text)
            if action == "warn":
                await asyncio.sleep(0.2)
                assert caplog.text.count("pod-1") == 1
                assert (await asyncio.to_thread(memory, one)) == before
                return
            await until(lambda: f"{line}{action}" in caplog.text)
            if action == "kill":
                told = await agent.fact(lambda fact: isinstance(fact, PodFailed))
                assert told == PodFailed(NODE, 1, -1, pod(1), "gpu memory")
                assert promised(pods).keys() == {2}
                assert not await asyncio.to_thread(traces, node, pods=[2])
                return
            frozen = pods.node.sandbox.cgroups.frozen  # type: ignore[attr-defined]
            await until(lambda: frozen("pod-1"))
            await until(lambda: "pod-1" in status_of(agent.service)["throttled"])
            assert status_of(agent.service)["throttles"] == 1
            # More slack is as good as less memory: it goes on, and is throttled again.
            monkeypatch.setattr(guarding, "SLACK_BYTES", 64 * MB)
            await until(lambda: not frozen("pod-1"))
            await until(lambda: not status_of(agent.service)["throttled"])
            monkeypatch.setattr(guarding, "SLACK_BYTES", 4 * MB)
            await until(lambda: frozen("pod-1"))
            await until(lambda: status_of(agent.service)["throttles"] == 2)
            # It comes back within its share once it was suspended: it gave up what it took.
            suspended = await agent.answer(on(Suspend, 3, 1))
            assert isinstance(suspended, PodSuspended)
            resumed = await agent.answer(on(Resume, 4, 1))
            assert isinstance(resumed, PodReady)
            assert (await asyncio.to_thread(memory, pods.get(pod(1)))) == before

    run(work)


def test_pod_of_a_function_without_gpus_sees_none_and_may_hold_nothing(
    node: AgentNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "LOOK_S", 0.02)
    monkeypatch.setattr(guarding, "PATIENCE_NS", 50_000_000)
    host = {"gpus": 0, "milli_gpu": 0, "hbm_bytes": 0, "device_bytes": 0}
    good = function(node.gpus, number=2, gpu_mb=0, **host)
    plain = function(node.gpus, number=3, **host)
    sees = ("/usr/bin/env", f"CUDA_VISIBLE_DEVICES={uuid(1)}", *plain.launch.command)
    bad = function(node.gpus, number=3, launch={"command": sees}, **host)
    functions = {one.id: one for one in (*node.functions.values(), good, bad)}

    async def work() -> None:
        async with running(replace(node, functions=functions), over_memory="kill") as agent:
            pods = agent.service.executor.pods
            await agent.answer(on(Create, 1, 1))
            await agent.answer(on(Create, 2, 2, function=FunctionId(2), gpus=()))
            one = pods.get(pod(2))
            environ = Path(f"/proc/{one.live.pid}/environ").read_bytes().split(b"\0")
            assert b"CUDA_VISIBLE_DEVICES=" in environ
            assert b"NVIDIA_VISIBLE_DEVICES=void" in environ
            await agent.answer(on(Create, 3, 3, function=FunctionId(3), gpus=()))
            told = await agent.fact(lambda fact: isinstance(fact, PodFailed))
            assert told == PodFailed(NODE, 1, -1, pod(3), "gpu memory")
            assert [one.record.pod for one in pods.all()] == [1, 2]

    run(work)


# -- its own socket ---
def test_socket_takes_commands_and_tells_facts(node: AgentNode) -> None:
    async def work() -> None:
        async with running(node) as agent:
            runner = await serve(agent.service, node.config.socket)
            connector = aiohttp.UnixConnector(str(node.config.socket))
            try:
                async with aiohttp.ClientSession("http://agent", connector=connector) as client:
                    body = msgspec.json.encode(on(Create, 1, 1))
                    async with client.post("/commands", data=body) as answer:
                        assert answer.status == 202
                    await agent.fact(lambda fact: isinstance(fact, PodReady))
                    async with client.post("/commands", data=b'{"type": "Dance"}') as answer:
                        assert answer.status == 400
                        assert "Dance" in (await answer.json())["error"]
                    async with client.get("/status") as answer:
                        told = await answer.json()
                    (one,) = told["pods"]
                    assert (one["pod"], one["state"], one["gpu_bytes"]) == (1, "ready", HELD)
                    assert one["host_bytes"] > 2 * MB
                    assert [each["memory_used"] for each in told["gpus"]] == [HELD, 0]
                    await agent.answer(on(Suspend, 2, 1))
                    async with client.get("/status") as answer:
                        (one,) = (await answer.json())["pods"]
                    assert (one["gpu_bytes"], one["suspended_gpu_bytes"]) == (0, HELD)
                    assert one["host_bytes"] > HELD
                    assert one["slices"] == []
            finally:
                await runner.cleanup()
            assert node.config.socket.parent.stat().st_mode & 0o077 == 0

    run(work)

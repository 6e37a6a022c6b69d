"""A big snapshot is restored lazily, and what it needs is kept until all of its memory is there.

Whole nodes, in every sandbox: CRIU, runc and containerd are real.
"""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import lazy_node as lazily
import pytest
import system_parts as parts
from agent_node import FUNCTION, AgentNode, ask, empty_again, memory, names, needs_node, pod
from lazy_node import KINDS, held_by, held_up, lazy_node, server_of, written
from msgspec.structs import replace
from snapshots import draft, fill
from system_parts import until

from inferx.core.events import PodFailed
from inferx.core.types import NodeId
from inferx.exec.agent import service as service_module
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.lazy_pages import pays_lazily
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError, Capability
from inferx.exec.agent.processes.page_server import LOG, NOTE, pages_of
from inferx.exec.agent.service import AgentService
from inferx.exec.agent.store import FolderTier, Sizes

missing = parts.missing_parts("containerd", "runc", "ip")
pytestmark = [needs_node, pytest.mark.skipif(bool(missing), reason=missing)]

PROGRAM = Path(lazily.__file__)
NODE = NodeId(7)


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with parts.containerd(tmp_path_factory.mktemp("containerd")) as (_, address):
        yield address


@pytest.fixture(scope="module", params=KINDS)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, socket: str
) -> Iterator[tuple[AgentNode, Executor]]:
    folder = tmp_path_factory.mktemp("node")
    with lazy_node(folder, request.param, socket=socket) as made, made.agent() as agent:
        yield made, agent


@pytest.fixture
def agent(opened: tuple[AgentNode, Executor]) -> Iterator[Executor]:
    node, agent = opened
    told = agent.pods.node.lazy_pages
    assert told.available, told.reason
    yield agent
    empty_again(node, agent)
    assert agent.pods.host_room._promises == []


def delete(agent: Executor) -> None:
    (found,) = agent.pods.node.store.everything()
    agent.pods.node.store.delete(found.manifest.id)


def test_a_pod_serves_while_its_pages_come_and_its_snapshot_is_held(agent: Executor) -> None:
    before = written(agent)
    with held_up(agent, 2) as one:
        assert one.record.state == "ready"
        assert pages_of(one.spec.folder) == "coming"
        with pytest.raises(AgentError, match="in use by pod-2"):
            delete(agent)
        assert len(agent.pods.host_room._promises) == 1
        assert agent.pods.pages.look() == {}
    until(lambda: pages_of(one.spec.folder) == "whole")
    assert agent.pods.pages.look() == {}
    assert agent.pods.host_room._promises == []
    delete(agent)
    assert memory(one) == before


def test_a_pod_that_is_stopped_meanwhile_lets_go_of_all(agent: Executor) -> None:
    written(agent)
    with held_up(agent, 2) as one:
        server = server_of(one)
        agent.pods.stop(pod(2))
        until(lambda: not Path(f"/proc/{server}/exe").exists())
    assert agent.pods.host_room._promises == []
    delete(agent)


@pytest.mark.parametrize("action", ["suspend", "snapshot"])
def test_what_needs_all_pages_waits_for_them(agent: Executor, action: str) -> None:
    before = written(agent)
    phases = Phases()

    def act() -> None:
        if action == "suspend":
            agent.pods.suspend(pod(2), phases)
        else:
            agent.freezing.snapshot(pod(2), phases, leave=False)

    with ThreadPoolExecutor(1) as threads:
        with held_up(agent, 2):
            done = threads.submit(act)
            with pytest.raises(TimeoutError):
                done.result(0.3)
            assert agent.pods.get(pod(2)).record.state == "ready"
        done.result(30)
    assert "pages" in names(phases)
    assert agent.pods.host_room._promises == []
    if action == "suspend":
        agent.pods.resume(pod(2), (), Phases())
    assert memory(agent.pods.get(pod(2))) == before


def test_a_pod_whose_pages_do_not_come_in_time_is_not_suspended_and_goes_on(
    agent: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferx.exec.agent.lazy_pages.WAIT_S", 0.05)
    before = written(agent)
    with held_up(agent, 2) as one:
        with pytest.raises(AgentError, match=r"pages are not all there after 0\.05 s") as told:
            agent.pods.suspend(pod(2), Phases())
        assert (told.value.survived, told.value.phase) == (True, "pages")
    assert memory(one) == before


def test_clones_each_have_their_own(agent: Executor) -> None:
    before = written(agent)
    with ExitStack() as stack:
        clones = [stack.enter_context(held_up(agent, number)) for number in (2, 3, 4)]
        with pytest.raises(AgentError, match="in use by pod-2, pod-3, pod-4"):
            delete(agent)
    assert [memory(one) for one in clones] == [before] * 3
    assert [ask(one)["counter"] for one in clones] == [ask(clones[0])["counter"] - 1] * 3


def test_a_pod_waits_for_pages_that_are_lost_and_reads_no_zeros(agent: Executor) -> None:
    written(agent)
    with held_up(agent, 2) as one, ThreadPoolExecutor(1) as threads:
        note = json.loads((one.spec.folder / NOTE).read_bytes())
        launcher, server = note["launcher"][0], note["server"][0]
        # It has what the server has, and is kept from killing the pod for it.
        until(lambda: held_by(launcher) == held_by(server) != [])
        os.kill(launcher, signal.SIGSTOP)
        os.kill(server, signal.SIGKILL)
        # All of its memory is asked for.
        answer = threads.submit(memory, one)
        with pytest.raises(TimeoutError):
            answer.result(1.0)
        os.kill(launcher, signal.SIGCONT)
        with pytest.raises((OSError, http.client.HTTPException)):
            answer.result(20)
        until(lambda: pages_of(one.spec.folder) == "lost")
    agent.pods.stop(pod(2))


@pytest.mark.parametrize("killed", ["server", "both"])
def test_a_pod_whose_pages_are_lost_is_killed_and_told_of(
    opened: tuple[AgentNode, Executor],
    agent: Executor,
    monkeypatch: pytest.MonkeyPatch,
    killed: str,
) -> None:
    monkeypatch.setattr(service_module, "LOOK_S", 0.02)
    written(agent)
    told: list[Any] = []

    async def listen(service: AgentService) -> None:
        async for fact in service.facts():
            told.append(fact)
            if isinstance(fact, PodFailed):
                return

    async def work() -> None:
        service = AgentService(agent, node=NODE, state=opened[0].config.state)
        ready = asyncio.Event()
        task = asyncio.create_task(service.run(ready=lambda _: ready.set()))
        await ready.wait()
        with held_up(agent, 2) as one:
            note = json.loads((one.spec.folder / NOTE).read_bytes())
            # The launcher first, which would act on the server's end.
            for who in ("launcher", "server") if killed == "both" else ("server",):
                with suppress(ProcessLookupError):
                    os.kill(note[who][0], signal.SIGKILL)
            await asyncio.wait_for(listen(service), 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert "pod-2: its pages are lost" in service.last_errors[-1]

    asyncio.run(work())
    assert [one.reason for one in told if isinstance(one, PodFailed)] == ["pages"]
    assert agent.pods.all() == []
    delete(agent)


@pytest.mark.parametrize("meanwhile", ["", "lost"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_that_is_killed_meanwhile_is_followed_by_one_that_holds_the_same(
    tmp_path: Path, kind: str, meanwhile: str
) -> None:
    folder = tempfile.mkdtemp(dir=tmp_path)
    path = os.pathsep.join((str(PROGRAM.parent), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, str(PROGRAM), folder, kind, meanwhile],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["left"] == []
    if meanwhile == "lost":
        assert told["found"] == [{"adopted": [], "killed": [2]}]
        return
    first, coming, deleted, whole, after = told["found"]
    assert first == {"adopted": [2], "killed": []}
    assert coming == {"pages": "coming", "promises": 1}
    assert "in use by pod-2" in deleted["deleted"]
    assert whole == {"pages": "whole", "promises": 0}
    assert after == {"memory": told["before"]}


# -- which ---
@pytest.mark.parametrize(
    ("least", "device_bytes", "tier", "pays"),
    [
        (3_100, 0, "nvme", True),
        (3_101, 0, "nvme", False),
        (0, 0, "nvme", False),
        (1, 1_000, "nvme", True),
        (2_100, 1_000, "nvme", True),
        (2_101, 1_000, "nvme", False),
        # The driver wants it at once.
        (1, 1_551, "nvme", False),
        (1, 0, "shared", False),
    ],
)
def test_it_pays_from_so_many_bytes_that_are_no_gpu_state_on_a_tier_of_this_node(
    tmp_path: Path, least: int, device_bytes: int, tier: Any, *, pays: bool
) -> None:
    into = FolderTier("nvme", tmp_path / "nvme", budget_bytes=1 << 20)
    with into.begin(4_000) as staging:
        fill(staging.folder, 1)
        sizes = Sizes(device_bytes=device_bytes, host_bytes=3_100)
        manifest = staging.commit(replace(draft(), sizes=sizes))
    assert manifest.size_bytes == 3_100
    there = Capability(name="pages/lazy", available=True)
    assert pays_lazily(manifest, tier, least_bytes=least, there=there) == pays
    lacking = Capability(name="pages/lazy", available=False, reason="no userfaultfd")
    assert not pays_lazily(manifest, tier, least_bytes=least, there=lacking)


def test_a_small_snapshot_is_restored_as_a_whole(tmp_path: Path) -> None:
    with lazy_node(tmp_path, "process", lazy_from_bytes=1 << 30) as made, made.agent() as agent:
        before = written(agent)
        one = agent.freezing.restore(pod(2), FUNCTION, (), Phases())
        assert not (one.spec.folder / "criu" / LOG).exists()
        assert memory(one) == before
        agent.pods.stop(pod(2))

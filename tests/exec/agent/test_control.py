"""The agent's socket: who can open it, what it answers; no fact is lost with a listener."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from system_parts import remove_cgroup

from inferx.core.types import NodeId
from inferx.exec.agent import service as service_module
from inferx.exec.agent.config import AgentConfig
from inferx.exec.agent.control import serve
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.node import assemble
from inferx.exec.agent.pods import Pods
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.service import AgentService
from inferx.exec.agent.store import FolderConfig

MIB = 1 << 20


def drop(sequence: int) -> str:
    """Return a command that needs no pod: it fails, for nobody knows the function."""
    command = {
        "type": "Drop",
        "node": 0,
        "epoch": 1,
        "sequence": sequence,
        "function": 0,
        "tier": 1,
    }
    return json.dumps(command)


@asynccontextmanager
async def running(folder: Path, socket: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """An agent without pods, and a client of its socket."""
    config = AgentConfig(
        name=f"c{secrets.token_hex(3)}",
        state=folder / "state",
        sandbox="process",
        network="host",
        checkpoints=False,
        tiers=(FolderConfig(tier="nvme", folder=folder / "disk", budget_bytes=MIB),),
    )
    node = assemble(config)
    pods = Pods(node, {})
    service = AgentService(Executor(pods), node=NodeId(0), state=config.state)
    runner = None
    work = asyncio.create_task(service.run())
    try:
        runner = await serve(service, socket)
        async with aiohttp.ClientSession(
            "http://agent", connector=aiohttp.UnixConnector(str(socket))
        ) as client:
            yield client
    finally:
        if runner is not None:
            await runner.cleanup()
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        pods.close()
        node.close()
        remove_cgroup(config.name)


async def facts(client: aiohttp.ClientSession, count: int) -> list[str]:
    """Listen for so many facts, and leave."""
    async with asyncio.timeout(10), client.get("/facts") as answer:
        return [json.loads(await answer.content.readline())["type"] for _ in range(count)]


def test_a_fact_that_comes_when_a_listener_has_left_is_for_the_next(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, tmp_path / "run" / "a.sock") as client:
            assert await facts(client, 1) == ["NodeJoined"]
            for sequence in (1, 2):
                # The server learns of the end of a connection in its own time.
                await asyncio.sleep(0.1)
                async with client.post("/commands", data=drop(sequence)) as answer:
                    assert answer.status == 202
                await asyncio.sleep(0.1)
                assert await facts(client, 1) == ["SnapshotDropped"]
            async with client.get("/status") as answer:
                told = await answer.json()
            assert told["pods"] == []
            assert {one["name"] for one in told["capabilities"]} >= {"sandbox/process"}
            assert all("\n" not in line for line in told["errors"])

    asyncio.run(run())


def test_a_listener_that_missed_facts_is_told_all_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "FACTS_LIMIT", 3)

    async def run() -> None:
        async with running(tmp_path, tmp_path / "run" / "a.sock") as client:
            for sequence in range(1, 6):
                async with client.post("/commands", data=drop(sequence)) as answer:
                    assert answer.status == 202
            await asyncio.sleep(0.3)
            # Not the first three, nor the last: the truth, and then what happens.
            assert await facts(client, 1) == ["NodeJoined"]
            await asyncio.sleep(0.1)
            async with client.post("/commands", data=drop(9)) as answer:
                assert answer.status == 202
            assert await facts(client, 1) == ["SnapshotDropped"]

    asyncio.run(run())


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"type": "Explode"}', b'{"type": "Drop"}', b"[1]", b'{"type": "\xff"}']
)
def test_what_is_no_command_is_answered_so(tmp_path: Path, body: bytes) -> None:
    async def run() -> None:
        async with (
            running(tmp_path, tmp_path / "run" / "a.sock") as client,
            client.post("/commands", data=body) as answer,
        ):
            assert answer.status == 400
            assert (await answer.json())["error"].startswith("no command: ")

    asyncio.run(run())


def test_the_socket_is_where_others_cannot_go(tmp_path: Path) -> None:
    async def run(socket: Path) -> None:
        async with running(tmp_path, socket):
            assert socket.parent.stat().st_mode & 0o777 == 0o700

    asyncio.run(run(tmp_path / "a" / "b" / "a.sock"))
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(AgentError, match="others can enter it; expected a folder of mode 700"):
        asyncio.run(run(tmp_path / "open" / "a.sock"))
    (tmp_path / "a" / "file").write_text("kept")
    with pytest.raises(AgentError, match="there is something else; expected a socket"):
        asyncio.run(run(tmp_path / "a" / "file"))
    assert (tmp_path / "a" / "file").read_text() == "kept"

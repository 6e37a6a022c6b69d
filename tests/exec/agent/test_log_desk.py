"""Pods' output over a real line to a real agent: bounded, streamed under back-pressure, kept."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from agent_node import AgentNode, agent_node, function, gpu, needs_node, pod
from standin_gpus import Node as Gpus
from standin_gpus import enter

from inferx.core.types import FunctionId, NodeId
from inferx.exec.agent.deployments import Deployments
from inferx.exec.agent.line import LeaderLine
from inferx.exec.agent.logs import desk as desk_module
from inferx.exec.agent.logs.reading import PodReader
from inferx.exec.agent.logs.stream import held_bytes
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.service import AgentService
from inferx.exec.clock import WallClock
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.calls import channel_to
from inferx.exec.wire.rpc import LIST_LOGS, READ_LOG, told, unary

pytestmark = needs_node

LIMIT = 256 * 1024
OF = "t/n/tenant0@1"
TALKER = FunctionId(0)
BROKEN = FunctionId(1)
SPEAK = """
import http.server, socketserver, sys
class Speak(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        count = int(self.path[1:] or 0)
        for number in range(count):
            print(f"line {number:07d}", flush=number + 1 == count)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
print("begins", file=sys.stderr, flush=True)
# Not HTTPServer, which asks a name server, that may not answer, for its own name.
socketserver.TCPServer(("0.0.0.0", 8000), Speak).serve_forever()
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentNode]:
    gpus = Gpus.make(tmp_path / "gpus")
    enter(gpus, monkeypatch)
    speak = {"command": (sys.executable, "-c", SPEAK), "health": "/"}
    fails = {"command": (sys.executable, "-c", "raise SystemExit('no weights')")}
    talker = function(gpus, launch=speak | {"quiesce": None, "wake": None})
    broken = function(gpus, number=1, launch=fails | {"ready_timeout_s": 2.0})
    with agent_node(tmp_path, gpus, talker, broken) as made:
        yield made


@asynccontextmanager
async def served(node: AgentNode, **config: object) -> AsyncIterator[tuple]:
    """Serve an agent that runs; yield its pods and a channel to it."""
    with node.agent(log_bytes=LIMIT, **config) as agent:
        service = AgentService(agent, node=NodeId(0), state=node.config.state)
        deployments = Deployments(node.config.state / "functions", None)
        line = LeaderLine(service, deployments, WallClock(), gpus=1)
        ready: asyncio.Future = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(service.run(ready=ready.set_result))
        await ready
        async with line.served("127.0.0.1:0") as address, channel_to(address, None) as channel:
            try:
                yield agent.pods, channel
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


async def started(pods, number: int):
    return await asyncio.to_thread(pods.create, pod(number), TALKER, gpu(0), Phases())


async def spoken(one, lines: int) -> None:
    """Have a pod write so many lines."""
    host, _, port = one.record.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /%d HTTP/1.0\r\n\r\n" % lines)
    assert b"200" in await reader.read()
    writer.close()


async def read(channel, number: int, function: str = OF, **more: object) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    async for piece in told(channel, READ_LOG)(
        pb.ReadLogRequest(pod=number, function=function, **more), timeout=30
    ):
        found[piece.stream] = found.get(piece.stream, b"") + piece.text
    return found


async def within_bound(file: Path) -> None:
    async with asyncio.timeout(20):
        while True:
            if held_bytes(file) <= LIMIT:
                return
            await asyncio.sleep(0.1)


def run(work) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(90):
            await work

    asyncio.run(bounded())


def test_who_was_answered_misses_nothing_that_is_written_then(
    node: AgentNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = PodReader.open

    def slowly(reader: PodReader) -> None:
        time.sleep(0.3)
        opened(reader)

    monkeypatch.setattr(PodReader, "open", slowly)

    async def follow() -> None:
        async with served(node) as (pods, channel):
            one = await started(pods, 3)
            follower = told(channel, READ_LOG)(
                pb.ReadLogRequest(pod=3, function=OF, follow=True, lines=0, stream="stdout")
            )
            pieces = aiter(follower)
            assert (await anext(pieces)).text == b""
            await spoken(one, 1)
            assert (await anext(pieces)).text == b"line 0000000\n"
            follower.cancel()

    run(follow())


def test_output_is_read_while_a_pod_runs_and_after_its_end(node: AgentNode) -> None:
    run(_through_its_life(node))


async def _through_its_life(node: AgentNode) -> None:
    async with served(node) as (pods, channel):
        one = await started(pods, 3)
        await spoken(one, 3)
        whole = {"": b"", "stdout": b"".join(b"line %07d\n" % n for n in range(3))}
        assert await read(channel, 3) == whole | {"stderr": b"begins\n"}
        assert await read(channel, 3, stream="stdout", lines=1) == {
            "": b"",
            "stdout": b"line 0000002\n",
        }
        follower = told(channel, READ_LOG)(
            pb.ReadLogRequest(pod=3, function=OF, follow=True, lines=0, stream="stdout")
        )
        assert (await anext(aiter(follower))).text == b""
        # The pod is silent; what it writes then comes, and its end ends the stream.
        await asyncio.sleep(0)
        await spoken(one, 2)
        got = b""
        async for piece in follower:
            got += piece.text
            if got.count(b"\n") == 2 and pods.known():
                await asyncio.to_thread(pods.stop, pod(3))
        assert got == b"line 0000000\nline 0000001\n"
        assert await read(channel, 3) == whole | {
            "stdout": whole["stdout"] + got,
            "stderr": b"begins\n",
        }
        listed = await unary(channel, LIST_LOGS)(pb.ListLogsRequest(tenant="t"))
        (row,) = listed.logs
        assert (row.pod, row.function, row.state) == (3, OF, "ended")
        assert row.held_bytes == 7 + 13 * 5
        assert 0 <= time.time_ns() - row.ended_ns < 60e9
        # Nobody's but its own function's: names that begin alike are others.
        for place in ({"tenant": "t1"}, {"namespace": "m"}, {"function": "tenant"}):
            assert not (await unary(channel, LIST_LOGS)(pb.ListLogsRequest(**place))).logs
        for number, function_ in ((3, "t1/n/tenant0@1"), (4, OF), (3, "t/n/tenant0@2")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await read(channel, number, function_)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await read(channel, 3, stream="../../etc/passwd")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_a_pod_that_did_not_come_up_said_is_kept(node: AgentNode) -> None:
    run(_did_not_come_up(node))


async def _did_not_come_up(node: AgentNode) -> None:
    async with served(node) as (pods, channel):
        with pytest.raises(AgentError):
            await asyncio.to_thread(pods.create, pod(5), BROKEN, gpu(0), Phases())
        found = await read(channel, 5, "t/n/tenant1@1")
        assert found["stderr"].endswith(b"no weights\n")


def test_a_pod_that_writes_for_ever_takes_no_more_than_its_bound(node: AgentNode) -> None:
    run(_writes_for_ever(node))


async def _writes_for_ever(node: AgentNode) -> None:
    async with served(node) as (pods, channel):
        one = await started(pods, 1)
        file = pods.records.place(1) / "stdout.log"
        follower = told(channel, READ_LOG)(
            pb.ReadLogRequest(pod=1, function=OF, follow=True, stream="stdout")
        )
        pieces = aiter(follower)
        assert (await anext(pieces)).text == b""
        # Far more than windows and buffers take: the agent does not read ahead of its reader.
        await spoken(one, 1_000_000)
        await within_bound(file)
        assert file.stat().st_size == 13_000_000
        assert file.stat().st_blocks * 512 <= LIMIT + 64 * 1024
        skipped, text = 0, b""
        async with asyncio.timeout(20):
            while skipped + len(text) < 13_000_000:
                piece = await anext(pieces)
                skipped, text = skipped + piece.skipped_bytes, text + piece.text
        assert skipped > 1_000_000, "a slow reader is told what it missed"
        assert text.endswith(b"line 0999999\n")
        follower.cancel()
        found = await read(channel, 1, stream="stdout")
        assert len(found["stdout"]) <= LIMIT
        # Begun at a whole line, and nothing in it that the pod did not write.
        lines = found["stdout"].split(b"\n")
        assert lines[-2:] == [b"line 0999999", b""]
        assert all(len(line) == 12 for line in lines[:-1])
        await asyncio.to_thread(pods.stop, pod(1))
        assert await read(channel, 1, stream="stdout") == found


def test_readers_are_bounded(node: AgentNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "READERS", 1)
    run(_too_many(node))


async def _too_many(node: AgentNode) -> None:
    async with served(node) as (pods, channel):
        await started(pods, 1)
        asked = pb.ReadLogRequest(pod=1, function=OF, follow=True)
        first = told(channel, READ_LOG)(asked)
        await anext(aiter(first))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await read(channel, 1)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()
        async with asyncio.timeout(10):
            while True:
                try:
                    await read(channel, 1)
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
        await asyncio.to_thread(pods.stop, pod(1))

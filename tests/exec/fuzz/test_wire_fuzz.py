"""Schedulers and agents take whatever comes on their streams: they refuse, and serve on."""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from agent_node import needs_node
from cluster_up import Up, function, up
from grpc_fuzz import BROKEN, Called, call, changed_bytes, messages, raw_bytes, stream
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from inferx.exec.clock import WallClock
from inferx.exec.state.objects.actor import SYSTEM
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.selector import Selection
from inferx.exec.state.opening import open_store
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.rpc import DRAIN, FOLLOW, JOIN, VIEW

pytestmark = needs_node

PAUSE_S = 0.05
"""For what was said to be acted on, before the stream ends."""
LAST = (1 << 63) - 1
GRPCS_OWN = re.compile(
    r"^.* grpc\._cython\.cygrpc ExecuteBatchError .*\nTraceback.*\n(?:  .*\n)*grpc\..*\n",
    re.MULTILINE,
)
"""What gRPC says of a call that its peer cancelled while the last of it was being written."""


@dataclass
class Cluster:
    up: Up
    scheduler: grpc.Channel
    agent: grpc.Channel
    words: tuple[str, ...]
    pids: dict[str, int]

    def is_as_it_was(self) -> None:
        """Nothing has ended, and nothing met what it did not expect."""
        for name, pid in self.pids.items():
            os.kill(pid, 0)
            log = GRPCS_OWN.sub("", (self.up.folder / f"{name}.log").read_text())
            assert "Traceback" not in log, log[-4_000:]
            assert self.up.pid(name) == pid


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with up(tmp_path_factory.mktemp("fuzz")) as running:
        asyncio.run(running.apply(function("one")))
        running.until_answers("one", 60)
        scheduler, agent = asyncio.run(places(running))
        words = ("public/demo/one", *named(running), "standby", "ready", "fuzz")
        names = ("state", "scheduler", "gateway", "node-0")
        pids = {name: running.pid(name) for name in names}
        with grpc.insecure_channel(scheduler) as one, grpc.insecure_channel(agent) as other:
            yield Cluster(running, one, other, words, pids)


async def places(running: Up) -> tuple[str, str]:
    store = await open_store(running.state, WallClock())
    try:
        objects = Objects(store)
        (leader,) = (await objects.list(Selection(type="scheduler"))).objects
        (node,) = (await objects.list(Selection(type="node_info"))).objects
        where = f"{node.object['naIp']}:{node.object['podMgrPort']}"
        return str(leader.object["address"]), where
    finally:
        await store.close()


def named(running: Up) -> list[str]:
    """Return the functions as services call them among themselves."""
    folder = running.folder / "node-0" / "functions"
    text = "".join(path.read_text() for path in folder.glob("*.json"))
    version = text.partition('"version":')[2].partition("}")[0].partition(",")[0]
    return [f"public/demo/one@{version}"]


def drawn(kind: Any, how: str, words: tuple[str, ...]) -> Any:
    match how:
        case "bytes":
            return raw_bytes
        case "damaged":
            return changed_bytes(kind, words)
        case _:
            return messages(kind, words)


def fits(told: Called, path: str) -> None:
    assert told.code not in BROKEN, f"{path}: {told.code}: {told.said}"


def pause() -> None:
    time.sleep(PAUSE_S)


HOW = pytest.mark.parametrize("how", ["bytes", "damaged", "shaped"])


@HOW
@pytest.mark.parametrize("method", [VIEW, DRAIN], ids=lambda method: method.name)
def test_a_scheduler_answers_whatever_it_is_asked(cluster: Cluster, method: Any, how: str) -> None:
    @given(drawn(method.takes, how, cluster.words))
    def send(one: Any) -> None:
        fits(call(cluster.scheduler, method.path, one), method.path)

    send()
    cluster.is_as_it_was()
    assert cluster.up.ask("one")[0] == 200


@HOW
def test_a_scheduler_hears_whatever_a_gateway_says(cluster: Cluster, how: str) -> None:
    hello = pb.FromRouter(hello=pb.Hello(gateway="fuzz"))
    said = st.lists(drawn(pb.FromRouter, how, cluster.words), max_size=6)

    @given(said, st.booleans())
    def send(rest: list[Any], greets: bool) -> None:
        begun = [hello, *rest] if greets else rest
        fits(stream(cluster.scheduler, JOIN.path, begun, hold=pause), JOIN.path)

    send()
    cluster.is_as_it_was()
    assert cluster.up.ask("one")[0] == 200


@HOW
def test_an_agent_hears_whatever_a_leader_says(cluster: Cluster, how: str) -> None:
    said = st.lists(drawn(pb.ToNode, how, cluster.words), max_size=6)

    @given(said, st.none() | st.integers(0, 10))
    def send(rest: list[Any], epoch: int | None) -> None:
        begun = rest if epoch is None else [pb.ToNode(lead=pb.Lead(epoch=epoch)), *rest]
        fits(stream(cluster.agent, FOLLOW.path, begun, hold=pause), FOLLOW.path)

    send()
    cluster.is_as_it_was()
    lead = pb.ToNode(lead=pb.Lead(epoch=LAST))
    told = stream(cluster.agent, FOLLOW.path, [lead], until=joined, hold=lambda: time.sleep(20))
    assert any(joined(one) for one in told.answers), told


def joined(raw: bytes) -> bool:
    return pb.FromNode.FromString(raw).WhichOneof("message") == "node_joined"


def test_a_node_that_says_nonsense_of_itself_is_left_out(cluster: Cluster) -> None:
    async def register() -> None:
        store = await open_store(cluster.up.state, WallClock())
        try:
            objects = Objects(store)
            (good,) = (await objects.list(Selection(type="node_info"))).objects
            of: Any = good.object["resources"]
            for number, bad in enumerate(
                ({}, {"gpus": 1}, of | {"gpus": -1}, of | {"gpus": 10**6}, of | {"hbm_bytes": -1})
            ):
                body = {**good.object, "resources": bad, "podMgrPort": 1}
                one = replace(good, name=f"bad-{number}", object=body, revision=0)
                await objects.create(one, who=SYSTEM)
        finally:
            await store.close()

    asyncio.run(register())
    log = cluster.up.folder / "scheduler.log"
    deadline = time.monotonic() + 30
    while log.read_text().count("it is left out") < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cluster.is_as_it_was()
    assert cluster.up.ask("one")[0] == 200

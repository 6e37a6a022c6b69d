"""What nodes' agents tell when a gateway asks them: whose output they keep, and that output.

Each node that is registered is asked at its own address; nothing of what they tell is remembered.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio
import msgspec

from inferx.exec.gateway.api.leader import Leader
from inferx.exec.gateway.refusals import Refused
from inferx.exec.state.objects.bodies import NodeInfo
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.selector import Selection
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.calls import channel_to
from inferx.exec.wire.rpc import LIST_LOGS, READ_LOG, told, unary

__all__ = ["ASKED_AT_ONCE", "NODE_S", "Agents", "Logs"]

NODE_S: Final = 3.0
"""For a node's answer; one that takes longer is left out of a list."""
ASKED_AT_ONCE: Final = 32

_REASONS: Final = {
    grpc.StatusCode.NOT_FOUND: "not found",
    grpc.StatusCode.INVALID_ARGUMENT: "bad request",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "busy",
}


class Logs(NamedTuple):
    """Whose output nodes keep; `complete` where each of them answered."""

    rows: Sequence[Mapping[str, Any]]
    complete: bool


class Agents:
    """Those of all nodes.

    Args:
        objects: Where nodes are registered.
        leader: Knows which node a pod is on.
        credentials: Of the channels to nodes; None is in the clear.
    """

    def __init__(
        self, objects: Objects, leader: Leader, credentials: grpc.ChannelCredentials | None
    ) -> None:
        self._objects = objects
        self._leader = leader
        self._credentials = credentials

    async def logs(self, tenant: str = "", namespace: str = "", function: str = "") -> Logs:
        """Return whose output is kept, of a place; what is empty is any."""
        asked = pb.ListLogsRequest(tenant=tenant, namespace=namespace, function=function)
        turn = asyncio.Semaphore(ASKED_AT_ONCE)

        async def ask(node: str, address: str) -> list[Mapping[str, Any]] | None:
            async with turn, channel_to(address, self._credentials) as channel:
                try:
                    reply = await unary(channel, LIST_LOGS)(asked, timeout=NODE_S)
                except grpc.aio.AioRpcError:
                    return None
            return [_row(node, one) for one in reply.logs]

        nodes = await self._nodes()
        answers = await asyncio.gather(*(ask(node, at) for node, at in nodes.items()))
        rows = [row for answer in answers if answer is not None for row in answer]
        # Pods are numbered as they are started.
        rows.sort(key=lambda row: -row["pod"])
        return Logs(rows, all(answer is not None for answer in answers))

    @asynccontextmanager
    async def reading(self, request: pb.ReadLogRequest) -> AsyncGenerator[AsyncIterator[Any]]:
        """Open a pod's output, as pieces that come as fast as they are taken.

        Raises:
            Refused: No node has it, or its node does not answer; also while it is read.
        """
        node = await self._node_of(request)
        address = (await self._nodes()).get(node)
        if address is None:
            raise Refused("not found", f"pod {request.pod}: node {node!r} is gone")
        async with channel_to(address, self._credentials) as channel:
            call = told(channel, READ_LOG)(request)
            try:
                yield _pieces(call)
            finally:
                call.cancel()

    async def _node_of(self, request: pb.ReadLogRequest) -> str:
        """Return on which node a pod is, or was."""
        try:
            pods = (await self._leader.view())["pods"]
        except Refused:
            pods = ()  # Without a leader, nodes know.
        for one in pods:
            if one["pod"] == request.pod and one["function"] == request.function:
                return str(one["node"])
        tenant, namespace, function = request.function.rpartition("@")[0].split("/")
        found = await self.logs(tenant, namespace, function)
        for row in found.rows:
            if row["pod"] == request.pod and row["function"] == request.function:
                return str(row["node"])
        where = "no node keeps its output" if found.complete else "no node that answers has it"
        raise Refused("not found", f"pod {request.pod}: {where}")

    async def _nodes(self) -> Mapping[str, str]:
        """Return where nodes' agents are reached."""
        listed = await self._objects.list(Selection(type="node_info"))
        infos = {one.name: msgspec.convert(one.object, NodeInfo) for one in listed.objects}
        return {
            name: f"{info.naIp or info.nodeIp}:{info.podMgrPort}" for name, info in infos.items()
        }


async def _pieces(call: Any) -> AsyncIterator[Any]:
    try:
        async for piece in call:
            yield piece
    except grpc.aio.AioRpcError as error:
        reason = _REASONS.get(error.code(), "node unreachable")
        details = str(error.details()).partition("\n")[0]
        text = details if reason in _REASONS.values() else f"the pod's node: {details}"
        raise Refused(reason, text) from error


def _row(node: str, one: pb.PodLog) -> Mapping[str, Any]:
    return {
        "pod": one.pod,
        "function": one.function,
        "node": node,
        "state": one.state,
        "held_bytes": one.held_bytes,
        "ended_ns": one.ended_ns,
    }

"""Lines to the agents of all nodes: commands down, facts up.

The scheduler calls, for it knows that it leads. A node without a line for `LOST_S` is
given up; it is called on, and joins again with the truth when it answers.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from inferx.core.commands import Create, NodeCommand, Restore
from inferx.core.events import NodeLost, SchedulerEvent
from inferx.core.types import FunctionId, NodeId, PodId
from inferx.exec.clock import Clock
from inferx.exec.logs import ids
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.calls import again_and_again, called
from inferx.exec.wire.codec import FROM_NODE, TO_NODE, Codec, WireError
from inferx.exec.wire.line import LOST_S, Line
from inferx.exec.wire.names import Peer
from inferx.exec.wire.rpc import FOLLOW

__all__ = ["NodeLines"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Node:
    name: str
    address: str
    peer: Peer
    task: "asyncio.Task[None] | None" = None
    line: Line | None = None
    deployed: set[FunctionId] = field(default_factory=set[FunctionId])
    """Functions that the agent was told of on this line."""


class NodeLines:
    """The scheduler's end of all nodes' lines.

    Args:
        epoch: The leader's.
        codec: This process's.
        clock: The time.
        post: Takes what nodes tell.
        locate: Takes where a pod serves, before it is told to be ready.
        deploy: Gives a function's object, as JSON.
        credentials: Of the channels; None is in the clear.
    """

    def __init__(
        self,
        *,
        epoch: int,
        codec: Codec,
        clock: Clock,
        post: Callable[[SchedulerEvent], None],
        locate: Callable[[PodId, str], None],
        deploy: Callable[[FunctionId], bytes],
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._epoch = epoch
        self._codec = codec
        self._clock = clock
        self._post = post
        self._locate = locate
        self._deploy = deploy
        self._credentials = credentials
        self._nodes: dict[NodeId, _Node] = {}

    def add(self, node: NodeId, name: str, address: str, peer: Peer) -> None:
        """Begin to call a node."""
        entry = _Node(name, address, peer)
        self._nodes[node] = entry
        entry.task = asyncio.get_running_loop().create_task(self._keep(node, entry), name=name)

    def move(self, node: NodeId, address: str) -> None:
        """Call a node at another address from now on."""
        old = self._nodes[node]
        if old.address != address:
            self._end(old)
            self.add(node, old.name, address, old.peer)

    def remove(self, node: NodeId) -> None:
        """Call a node no more."""
        self._end(self._nodes.pop(node))

    def connected(self) -> list[str]:
        """Return the names of the nodes that a line stands to."""
        return [entry.name for entry in self._nodes.values() if entry.line is not None]

    def send(self, command: NodeCommand, traceparent: str = "") -> None:
        """Send a command, of a trace; without a line it is lost, and the kernel repeats it."""
        entry = self._nodes.get(command.node)
        if entry is None or entry.line is None:
            return
        line = entry.line
        starts = isinstance(command, Create | Restore)
        if starts and command.function not in entry.deployed:
            entry.deployed.add(command.function)
            name = self._codec.name_of(command.function)
            deploy = pb.Deploy(function=name, object=self._deploy(command.function))
            line.say(pb.ToNode(deploy=deploy))
        message = self._codec.encode(TO_NODE, command, entry.peer)
        if traceparent:
            message.traceparent = traceparent
        line.say(message)

    async def close(self) -> None:
        """Hang up everywhere."""
        for entry in self._nodes.values():
            self._end(entry)
        tasks = [entry.task for entry in self._nodes.values() if entry.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, entry: _Node) -> None:
        if entry.task is not None:
            entry.task.cancel()

    async def _keep(self, node: NodeId, entry: _Node) -> None:
        loop = asyncio.get_running_loop()
        lost = loop.call_later(LOST_S, self._give_up, node)

        async def once() -> None:
            nonlocal lost
            async with called(entry.address, FOLLOW, self._credentials) as call:
                await call.write(pb.ToNode(lead=pb.Lead(epoch=self._epoch)))
                line = Line(call, pb.ToNode, self._clock)
                entry.deployed.clear()
                entry.line = line
                lost.cancel()
                try:
                    await line.run(lambda message: self._hear(entry, message))
                finally:
                    entry.line = None
                    lost = loop.call_later(LOST_S, self._give_up, node)

        try:
            await again_and_again(f"node {entry.name}", once)
        finally:
            lost.cancel()

    def _give_up(self, node: NodeId) -> None:
        _log.warning(
            "node %s: no line for %.0f s; given up",
            self._nodes[node].name,
            LOST_S,
            extra=ids(node=self._nodes[node].name, epoch=self._epoch),
        )
        self._post(NodeLost(node))

    def _hear(self, entry: _Node, message: Any) -> None:
        if message.WhichOneof("message") == "located":
            self._locate(PodId(message.located.pod), message.located.address)
            return
        try:
            fact: Any = self._codec.heard(FROM_NODE, message, entry.peer)
        except WireError as error:
            _log.warning(
                "node %s: %s", entry.name, error, extra=ids(node=entry.name, epoch=self._epoch)
            )
            return
        self._post(fact)

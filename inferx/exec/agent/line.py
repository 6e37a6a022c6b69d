"""The agent's server: a leader's stream comes in, commands are carried out, facts go back.

Gateways ask it for pods' output; that is `logs/desk.py`.

Laws:
1. One leader is followed at a time: the newest. One of an older epoch than any that was followed is
   turned away (INV-8).
2. A leader is told first all that is here; what was said to an earlier one and did not reach it is
   contained in that, or is told again when its command is repeated.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from inferx.core.events import Fact, NodeJoined, PodFound, PodReady
from inferx.core.types import PodId
from inferx.exec.agent.deployments import Deployments
from inferx.exec.agent.logs.desk import LogDesk
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.service import AgentService
from inferx.exec.clock import Clock
from inferx.exec.logs import ids
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.codec import FROM_NODE, TO_NODE, Codec, WireError
from inferx.exec.wire.line import Line, LineError
from inferx.exec.wire.names import Peer
from inferx.exec.wire.rpc import FOLLOW, KEEPALIVE, LIST_LOGS, READ_LOG, handlers

__all__ = ["LeaderLine"]

_log = logging.getLogger(__name__)


class LeaderLine:
    """The agent's end of its leader's line.

    Args:
        service: The agent.
        functions: What it was told of functions.
        clock: The time.
        gpus: How many GPUs the node has.
    """

    def __init__(
        self, service: AgentService, functions: Deployments, clock: Clock, *, gpus: int
    ) -> None:
        self._service = service
        self._functions = functions
        self._clock = clock
        self._codec = Codec(functions.names)
        self._peer = Peer(service.node, 0, gpus)
        self._epoch = 0
        self._following: asyncio.Task[None] | None = None
        self._logs = LogDesk(service.executor.pods)

    @asynccontextmanager
    async def served(
        self, address: str, credentials: grpc.ServerCredentials | None = None
    ) -> AsyncGenerator[str]:
        """Listen at an address, and yield it; port 0 is chosen by the system."""
        server = grpc.aio.server(options=KEEPALIVE)
        logs = self._logs
        served = {FOLLOW: self._follow, LIST_LOGS: logs.list, READ_LOG: logs.read}
        server.add_generic_rpc_handlers((handlers("NodeAgent", served),))
        host, _, _ = address.rpartition(":")
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        await server.start()
        try:
            yield f"{host}:{port}"
        finally:
            await server.stop(grace=0)

    async def _follow(self, _: Any, context: Any) -> None:
        first = await context.read()
        if not hasattr(first, "WhichOneof") or first.WhichOneof("message") != "lead":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a lead first")
        epoch = first.lead.epoch
        self._epoch = max(self._epoch, epoch)
        while (older := self._following) is not None and epoch == self._epoch:
            older.cancel()
            await asyncio.gather(older, return_exceptions=True)
            # While it ended, another leader may have come, and be followed already.
            if self._following is older:
                self._following = None
        if epoch < self._epoch:
            text = f"epoch {epoch} is over; this node follows {self._epoch}"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        line = Line(context, pb.FromNode, self._clock)
        self._following = task = asyncio.ensure_future(self._serve(line, epoch))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            _log.info("epoch %d: its line was ended", epoch, extra=ids(epoch=epoch))
        finally:
            task.cancel()

    async def _serve(self, line: Line, epoch: int) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(self._tell(line, epoch))
                try:
                    await line.run(self._hear)
                finally:
                    telling.cancel()
        except* (LineError, AgentError) as broken:
            for error in broken.exceptions:
                _log.info("epoch %d: %s", epoch, error)

    def _hear(self, message: Any) -> None:
        kind = message.WhichOneof("message")
        if kind == "deploy":
            try:
                self._functions.deploy(message.deploy.function, message.deploy.object)
            except AgentError as error:
                _log.warning("%s", error)
            return
        if kind in TO_NODE.received:
            # One that is not known here gets a number: its command must be answered, by a failure.
            self._functions.names.add(getattr(message, kind).function)
        try:
            command: Any = self._codec.heard(TO_NODE, message, self._peer)
        except WireError as error:
            _log.warning("%s", error)
            return
        self._service.command(command, message.traceparent)

    async def _tell(self, line: Line, epoch: int) -> None:
        joined = False
        async for fact in self._service.follow(epoch):
            joined = joined or isinstance(fact, NodeJoined)
            if not joined:
                continue
            for pod in self._serving(fact):
                address = self._service.address_of(pod)
                if address:
                    line.say(pb.FromNode(located=pb.Located(pod=pod, address=address)))
            line.say(self._codec.encode(FROM_NODE, fact, self._peer))

    def _serving(self, fact: Fact) -> tuple[PodId, ...]:
        """Return the pods that a fact says may be sent requests."""
        match fact:
            case PodReady() | PodFound():
                return (fact.pod,)
            case NodeJoined():
                return tuple(found.pod for found in fact.pods)
            case _:
                return ()

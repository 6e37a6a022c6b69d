"""What the scheduler that leads tells, and does when asked: its view, and to drain a node."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio
import msgspec

from inferx.exec.gateway.api.limits import LEADER_S, VIEW_FRESH_S
from inferx.exec.gateway.refusals import Refused
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.calls import channel_to
from inferx.exec.wire.rpc import DRAIN, END_POD, EXPLAIN, VIEW, Method, unary

__all__ = ["Leader"]


class Leader:
    """Asks whoever leads.

    Args:
        address: Gives where; empty while nobody does.
        credentials: Of the channel; None is in the clear.
    """

    def __init__(
        self, address: Callable[[], str], credentials: grpc.ChannelCredentials | None
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._channel: grpc.aio.Channel | None = None
        self._at = ""
        self._turn = asyncio.Lock()
        self._view: Mapping[str, Any] = {}
        self._view_at = ""
        self._fresh_until_s = 0.0

    async def view(self) -> Mapping[str, Any]:
        """Return the cluster as the leader knows it, at most `VIEW_FRESH_S` ago.

        Raises:
            Refused: None answers.
        """
        now_s = asyncio.get_running_loop().time
        # One asks; those who wait share its answer.
        async with self._turn:
            if now_s() >= self._fresh_until_s or self._view_at != self._address():
                at = self._address()
                reply = await self._ask(VIEW, pb.ViewRequest())
                self._view = msgspec.json.decode(reply.json)
                self._view_at = at
                self._fresh_until_s = now_s() + VIEW_FRESH_S
            return self._view

    async def explain(
        self, function: str, pod: int, since_ns: int, until_ns: int
    ) -> Mapping[str, Any]:
        """Return what was decided while a request of a function waited, and of its pod.

        Raises:
            Refused: No leader answers.
        """
        asked = pb.ExplainRequest(function=function, pod=pod, since_ns=since_ns, until_ns=until_ns)
        reply = await self._ask(EXPLAIN, asked)
        told: Mapping[str, Any] = msgspec.json.decode(reply.json)
        return told

    async def drain(self, node: str, for_ns: int) -> None:
        """Have a node emptied, and nothing placed on it.

        Raises:
            Refused: There is no such node, or no leader.
        """
        await self._ask(DRAIN, pb.DrainRequest(node=node, for_ns=for_ns))

    async def end_pod(self, pod: int, *, now: bool) -> None:
        """Have a pod ended, with `now` without waiting for whom it serves.

        Raises:
            Refused: There is no such pod, it is being ended already, or there is no leader.
        """
        await self._ask(END_POD, pb.EndPodRequest(pod=pod, now=now))

    async def close(self) -> None:
        """Hang up."""
        if self._channel is not None:
            await self._channel.close()

    async def _ask(self, method: Method, request: Any) -> Any:
        address = self._address()
        if not address:
            raise Refused("no leader", "no scheduler leads")
        if self._channel is None or address != self._at:
            old, self._channel = self._channel, channel_to(address, self._credentials)
            self._at = address
            if old is not None:
                # Who still asks the one that led is answered, or told that it does not.
                await old.close(grace=LEADER_S)
        try:
            return await unary(self._channel, method)(request, timeout=LEADER_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise Refused("not found", str(error.details())) from error
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                raise Refused("conflict", str(error.details())) from error
            text = f"the scheduler does not answer: {error.code().name.lower()}"
            raise Refused("no leader", text) from error

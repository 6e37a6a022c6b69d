"""A node's end of the line on which gateways ask for pods' output, that does as a test says."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.rpc import LIST_LOGS, READ_LOG, handlers

__all__ = ["LogNode"]


class LogNode:
    """Keeps the output of some pods. `says` is what a follower reads; None ends it."""

    def __init__(self, logs: Sequence[pb.PodLog]) -> None:
        self.logs = logs
        self.says: asyncio.Queue[pb.LogPiece | grpc.StatusCode | None] = asyncio.Queue()
        self.asked: list[pb.ReadLogRequest] = []
        self.written_bytes = 0
        self.readers = 0

    @asynccontextmanager
    async def served(self) -> AsyncIterator[int]:
        """Listen; yield the port."""
        server = grpc.aio.server()
        served = {LIST_LOGS: self._list, READ_LOG: self._read}
        server.add_generic_rpc_handlers((handlers("NodeAgent", served),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield port
        finally:
            await server.stop(grace=0)

    async def _list(self, _: pb.ListLogsRequest, __: Any) -> pb.ListLogsReply:
        return pb.ListLogsReply(logs=self.logs)

    async def _read(self, request: pb.ReadLogRequest, context: Any) -> None:
        self.asked.append(request)
        if not any(o.pod == request.pod and o.function == request.function for o in self.logs):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"pod {request.pod}: nothing is here")
        self.readers += 1
        try:
            await context.write(pb.LogPiece())
            while (piece := await self.says.get()) is not None:
                if isinstance(piece, grpc.StatusCode):
                    await context.abort(piece, "it broke")
                await context.write(piece)
                self.written_bytes += len(piece.text)
        finally:
            self.readers -= 1

"""Answers gateways that ask for pods' output, beside the leader's line.

Who may read whose is the gateway's to know; here a pod is told of only to who names its function.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from inferx.exec.agent.logs.reading import PodReader
from inferx.exec.agent.logs.stream import STREAMS, held_bytes
from inferx.exec.agent.pods import Pods
from inferx.exec.wire import wire_pb2 as pb

__all__ = ["POLL_S", "READERS", "LogDesk"]

READERS: Final = 64
"""That one agent serves at once."""
POLL_S: Final = 0.25
"""Between two looks at a pod that wrote nothing."""
ENDED: Final = "ended"


class LogDesk:
    """Of one agent."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self._readers = 0

    # -- lists ---
    async def list(self, request: pb.ListLogsRequest, context: Any) -> pb.ListLogsReply:
        """Answer whose output is here; the pods that run come first, then who ended last."""
        try:
            return pb.ListLogsReply(logs=await asyncio.to_thread(self._list, request))
        except OSError as error:
            await context.abort(grpc.StatusCode.INTERNAL, f"logs: {error}")
            raise

    def _list(self, request: pb.ListLogsRequest) -> Sequence[pb.PodLog]:
        found = [
            pb.PodLog(
                pod=one.pod,
                function=one.named,
                state=one.state,
                held_bytes=sum(
                    held_bytes(self._pods.records.place(one.pod) / f"{stream}.log")
                    for stream in STREAMS
                ),
            )
            for one in self._pods.known()
            if _within(request, one.named)
        ]
        there = {one.pod for one in found}
        return found + [
            pb.PodLog(
                pod=one.pod,
                function=one.function,
                state=ENDED,
                held_bytes=one.held_bytes,
                ended_ns=one.ended_ns,
            )
            for one in reversed(self._pods.logs.all())
            if _within(request, one.function) and one.pod not in there
        ]

    # -- one ---
    async def read(self, request: pb.ReadLogRequest, context: Any) -> None:
        """Send what a pod wrote, as fast as it is taken."""
        if request.stream not in {"", *STREAMS}:
            text = f"stream {request.stream[:40]!r}; expected one of {', '.join(STREAMS)}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        if self._readers >= READERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{READERS} read here already")
        self._readers += 1
        try:
            if await asyncio.to_thread(self._folder, request) is None:
                text = f"pod {request.pod} of {request.function}: no output of it is here"
                await context.abort(grpc.StatusCode.NOT_FOUND, text)
            await self._send(request, context)
        except OSError as error:
            await context.abort(grpc.StatusCode.INTERNAL, f"pod {request.pod}: {error}")
        finally:
            self._readers -= 1

    async def _send(self, request: pb.ReadLogRequest, context: Any) -> None:
        streams = (request.stream,) if request.stream else STREAMS
        lines = request.lines if request.HasField("lines") else None
        with PodReader(
            streams, lines, lambda: self._folder(request), follow=request.follow
        ) as reader:
            # Who asked knows at once that it is here, though the pod may be silent; and what the
            # pod writes after that is theirs.
            await asyncio.to_thread(reader.open)
            await context.write(pb.LogPiece())
            while True:
                # Asked before: what it wrote last is read after it has ended.
                over = not request.follow or self._live(request) is None
                pieces = await asyncio.to_thread(lambda: list(reader.read()))
                for stream, text, skipped in pieces:
                    # Returns when the other side has room for more.
                    await context.write(
                        pb.LogPiece(stream=stream, text=text, skipped_bytes=skipped)
                    )
                if pieces:
                    continue
                if over:
                    return
                await asyncio.sleep(POLL_S)

    def _live(self, request: pb.ReadLogRequest) -> Path | None:
        """Return the folder of a pod that has not ended."""
        for one in self._pods.known():
            if one.pod == request.pod and one.named == request.function:
                return self._pods.records.place(one.pod)
        return None

    def _folder(self, request: pb.ReadLogRequest) -> Path | None:
        """Return where a pod's output is now."""
        live = self._live(request)
        if live is not None:
            return live
        for one in self._pods.logs.all():
            if one.pod == request.pod and one.function == request.function:
                return one.folder
        return None


def _within(request: pb.ListLogsRequest, identity: str) -> bool:
    asked = (request.tenant, request.namespace, request.function)
    parts = identity.rpartition("@")[0].split("/")
    return all(want in {"", part} for want, part in zip(asked, parts, strict=True))

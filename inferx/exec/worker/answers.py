"""Writes one completion: whole, or as the chunks of a stream."""

import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any, Literal

import msgspec

from inferx.exec.worker.openai import Usage
from inferx.exec.worker.stops import StopCutter

__all__ = ["DONE", "Answer", "Telling"]

DONE = b"data: [DONE]\n\n"
Finish = Literal["stop", "length"]


class Answer:
    """The frame of one completion, as chat or as plain text.

    Its id is drawn from the kernel, not from the seed: clones of one snapshot must not tell the
    same.
    """

    def __init__(self, *, model: str, chat: bool) -> None:
        self._chat = chat
        self._head: dict[str, Any] = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, finish: Finish, usage: Usage) -> dict[str, Any]:
        """Return the completion at once."""
        if self._chat:
            said: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        else:
            said = {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._head, "object": kind, "choices": [choice], "usage": usage.body()}

    def begin(self) -> bytes:
        """Return what a stream begins with."""
        return self._chunk({"role": "assistant", "content": ""}, None) if self._chat else b""

    def piece(self, text: str) -> bytes:
        """Return a chunk that tells more of the text."""
        return self._chunk({"content": text} if self._chat else text, None)

    def end(self, finish: Finish) -> bytes:
        """Return the chunk that tells why no more comes."""
        return self._chunk({} if self._chat else "", finish)

    def usage(self, usage: Usage) -> bytes:
        """Return the chunk that tells the usage."""
        return _event({**self._head, "object": self._kind, "choices": [], "usage": usage.body()})

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _chunk(self, said: dict[str, str] | str, finish: Finish | None) -> bytes:
        body = {"delta": said} if self._chat else {"text": said}
        choice = {"index": 0, **body, "logprobs": None, "finish_reason": finish}
        return _event({**self._head, "object": self._kind, "choices": [choice]})


class Telling:
    """An answer as it is generated: its text cut at stops, its tokens counted."""

    def __init__(self, tokens: AsyncGenerator[str, None], cutter: StopCutter, limit: int) -> None:
        self._tokens = tokens
        self._cutter = cutter
        self._limit = limit
        self.count = 0

    async def pieces(self) -> AsyncGenerator[str, None]:
        """Yield texts that are not empty."""
        async for token in self._tokens:
            self.count += 1
            if text := self._cutter.add(token):
                yield text
            if self._cutter.stopped:
                return
        if text := self._cutter.end():
            yield text

    @property
    def finish(self) -> Finish:
        """Why no more comes."""
        if self._cutter.stopped or self.count < self._limit:
            return "stop"
        return "length"


def _event(body: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"

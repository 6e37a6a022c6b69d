"""A request's body on its way to a pod: held while nobody takes it, handed on as it comes after.

Laws:
1. What is held is bounded: the client is not read from while more than that waits.
2. The bytes that a reader looked at are the bytes that are handed on.
"""

import asyncio
from collections.abc import Callable

from inferx.exec.gateway.refusals import Refused

__all__ = ["Body"]


class Body:
    """One request's body.

    Args:
        limit: Bytes it may have.
        ahead: Bytes held before the client is paused.
        pause: Called with whether the client should be paused.
    """

    __slots__ = (
        "_ahead",
        "_changed",
        "_held",
        "_limit",
        "_pause",
        "_paused",
        "_take",
        "ended",
        "failure",
        "on_failure",
        "size",
    )

    def __init__(self, limit: int, ahead: int, pause: Callable[[bool], None]) -> None:
        self._limit = limit
        self._ahead = ahead
        self._pause = pause
        self._paused = False
        self._held: bytes | bytearray = b""
        self._take: Callable[[bytes, bool], None] | None = None
        self._changed: asyncio.Future[None] | None = None
        self.size = 0
        self.ended = False
        self.failure: Refused | None = None
        """Why no more of it comes, though it has not ended."""
        self.on_failure: Callable[[Refused], None] | None = None

    # -- from the client ---
    def feed(self, piece: bytes) -> None:
        """Take a piece that came."""
        if self.failure is not None:
            return
        self.size += len(piece)
        if self.size > self._limit:
            self.fail(Refused("body too large", f"more than {self._limit} bytes of body"))
            return
        if self._take is not None:
            self._take(piece, False)
            return
        held = self._held
        if not held:
            self._held = piece
        elif isinstance(held, bytearray):
            held += piece
        else:
            self._held = bytearray(held) + piece
        if len(self._held) > self._ahead:
            self._set_paused(True)
        self._wake()

    def be_whole(self, piece: bytes) -> None:
        """Take all of it, before anybody looks at it."""
        self._held = piece
        self.size = len(piece)
        self.ended = True

    def end(self) -> None:
        """Take note that it is whole."""
        self.ended = True
        if self._take is not None:
            self._take(b"", True)
        self._wake()

    def fail(self, why: Refused) -> None:
        """Take note that no more comes."""
        if self.failure is None and not self.ended:
            self.failure = why
            self._wake()
            if self.on_failure is not None:
                self.on_failure(why)

    # -- towards the pod ---
    @property
    def held(self) -> bytes | bytearray:
        """What came and was not handed on."""
        return self._held

    async def more(self, ahead: int) -> None:
        """Wait until more of it came than now, or it ended, holding up to `ahead` bytes.

        Raises:
            Refused: No more of it will come.
        """
        self._ahead = max(self._ahead, ahead)
        if len(self._held) <= self._ahead:
            self._set_paused(False)
        size = self.size
        while self.size == size and not self.ended:
            if self.failure is not None:
                raise self.failure
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
        if self.failure is not None:
            raise self.failure

    def take_held(self) -> bytes:
        """Return what is held, and hold it no more."""
        held, self._held = self._held, b""
        return held if isinstance(held, bytes) else bytes(held)

    def hand_to(self, take: Callable[[bytes, bool], None] | None) -> None:
        """Hand on what is held and what comes, with whether it is the last; None: no more."""
        self._take = take
        if take is None:
            return
        held = self.take_held()
        if held or self.ended:
            take(held, self.ended)
        self._set_paused(False)

    def hold_back(self, paused: bool) -> None:  # noqa: FBT001  # a callback of transports
        """Pause the client while its pod is slower."""
        self._set_paused(paused)

    def _set_paused(self, paused: bool) -> None:  # noqa: FBT001
        if paused is not self._paused:
            self._paused = paused
            self._pause(paused)

    def _wake(self) -> None:
        changed = self._changed
        if changed is not None and not changed.done():
            changed.set_result(None)

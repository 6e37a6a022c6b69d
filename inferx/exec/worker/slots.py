"""Who may generate: a bounded number at once, the others in order, and nobody while quiesced."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from inferx.core.errors import InferXError

__all__ = ["ClosedError", "FullError", "Slots"]


class FullError(InferXError):
    """As many wait as may wait."""


class ClosedError(InferXError):
    """No slot will be given any more."""


class Slots:
    """Gives slots in the order in which they were asked for.

    Attributes:
        count: Slots that there are.
        queue_len: How many may wait for one.
        active: Slots held now.
    """

    def __init__(self, count: int, queue_len: int) -> None:
        self.count = count
        self.queue_len = queue_len
        self.active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._paused = False
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    @property
    def paused(self) -> bool:
        """Whether slots are held back."""
        return self._paused

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[None, None]:
        """Hold a slot; it is given on at the end, however that comes.

        Raises:
            FullError: Too many wait already.
            ClosedError: The server ends, or ended while this waited.
        """
        await self._take()
        try:
            yield
        finally:
            self.active -= 1
            self._give()
            if not self.active:
                self._idle.set()

    async def pause(self, timeout_s: float) -> bool:
        """Give no more slots, and wait until none is held; False, and as before, if that fails."""
        self._paused = True
        if await self.idle(timeout_s):
            return True
        self.resume()
        return False

    def resume(self) -> None:
        """Give slots again, to those who waited first."""
        self._paused = False
        self._give()

    def close(self) -> None:
        """Let nobody join; those who wait behind a pause are turned away, for it will not end."""
        self._closed = True
        while self._paused and self._waiting:
            self._waiting.popleft().set_exception(ClosedError("the server ends"))

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no slot is held; while open, others may come right after."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _take(self) -> None:
        if self._closed:
            raise ClosedError("the server ends")
        if self._waiting or self._paused or self.active >= self.count:
            if len(self._waiting) >= self.queue_len:
                raise FullError(f"{len(self._waiting)} requests wait already")
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    # The slot came in the same turn of the loop as the cancellation: give it on.
                    self.active -= 1
                    self._give()
                    if not self.active:
                        self._idle.set()
                elif turn in self._waiting:
                    self._waiting.remove(turn)
                raise
            return
        self._took()

    def _took(self) -> None:
        self.active += 1
        self._idle.clear()

    def _give(self) -> None:
        while self._waiting and not self._paused and self.active < self.count:
            turn = self._waiting.popleft()
            if not turn.done():
                self._took()
                turn.set_result(None)

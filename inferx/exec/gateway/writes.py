"""Messages that go out together: those of one turn of the loop, when all of it has been served.

A message that is written wakes who waits for it, if that sleeps: dear, and paid by the writer. One
after another they find it awake. And between two of them, nothing of a next request is looked at.

Laws:
1. Only a message that is whole is kept, and nothing follows it on its connection until it is out.
2. What is kept is out before the loop waits for anything.
"""

import asyncio

__all__ = ["Writes"]


class Writes:
    """Of all connections of one gateway."""

    __slots__ = ("_kept", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._kept: list[tuple[asyncio.Transport, bytes]] = []

    def keep(self, to: asyncio.Transport, message: bytes) -> None:
        """Write a message with the others of this turn."""
        if not self._kept:
            self._loop.call_soon(self.flush)
        self._kept.append((to, message))

    def flush(self) -> None:
        """Write what is kept, now."""
        kept, self._kept = self._kept, []
        for to, message in kept:
            # A transport that broke tells so a turn of the loop later.
            if not to.is_closing():
                to.write(message)

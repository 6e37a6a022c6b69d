"""Iteration that also tells when nothing comes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

__all__ = ["with_pauses"]

T = TypeVar("T")


async def with_pauses(coming: AsyncIterator[T], pause_s: float) -> AsyncGenerator[T | None]:
    """Yield what comes, and None whenever nothing has for a while."""
    following: asyncio.Future[T] | None = None
    try:
        while True:
            if following is None:
                following = asyncio.ensure_future(anext(coming))
            done, _ = await asyncio.wait((following,), timeout=pause_s)
            if not done:
                yield None
                continue
            try:
                one = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield one
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

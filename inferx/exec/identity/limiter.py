"""Holds requests to their limits, in whole nanoseconds, without a lock and without a timer.

Laws:
1. A rate is GCRA, the leaky bucket as a meter: one integer a bucket, the instant at which it would
   be empty. Time is scaled by the rate's count, so that no rate is rounded.
2. All limits are looked at before any is charged: a refused request costs nothing.
3. Tokens are charged by estimate when a request is let in and settled with what it used. One that
   used more leaves a debt that the next ones wait for; it is never cut off in mid-answer.
4. A bucket that is empty is as good as none and is forgotten; there are `BUCKETS` at most.

Source: ITU-T I.371, annex A (the virtual scheduling form of GCRA).
"""

from collections import OrderedDict
from typing import Final, Literal

import msgspec

from inferx.core.units import NS_PER_S
from inferx.exec.identity.limits import Limits, Rate

__all__ = ["BUCKETS", "Limited", "Limiter", "Ticket"]

BUCKETS: Final = 1 << 18
"""Buckets kept at most. Beyond it the one not looked at for longest is forgotten, and counted."""
SWEPT: Final = 2
"""Buckets looked at for each one that is made: they go at least as fast as they come."""
CONCURRENT_RETRY_NS: Final = NS_PER_S
"""When to come again where all places are taken: nobody knows, and a second hurts nobody."""

What = Literal["requests", "tokens", "concurrent", "quota"]


class Limited(msgspec.Struct, frozen=True):
    """A refusal: what there was too much of, whose limit it is, and when it would pass.

    Attributes:
        what: The limit; `quota` is what a tenant was granted for a longer time, kept elsewhere.
        whose: `tenant:<name>` or a principal's name.
        retry_after_ns: From now; None if it never passes, being more than a burst by itself.
    """

    what: What
    whose: str
    retry_after_ns: int | None


class Ticket(msgspec.Struct):
    """A request that was let in; `Limiter.settle` takes it back once."""

    limits: tuple[tuple[str, Limits], ...]
    estimated_tokens: int
    open: bool = True


class _Bucket:
    __slots__ = ("empty_at", "rate")

    def __init__(self, rate: Rate, empty_at: int) -> None:
        self.rate = rate
        self.empty_at = empty_at  # Nanoseconds times the rate's count.


class Limiter:
    """Of one gateway. Every call is O(1).

    Attributes:
        forgotten: Buckets that were dropped while they still held something, for want of room.
    """

    __slots__ = ("_at_once", "_buckets", "_capacity", "forgotten")

    def __init__(self, *, capacity: int = BUCKETS) -> None:
        self._buckets: OrderedDict[tuple[str, What], _Bucket] = OrderedDict()
        self._at_once: dict[str, int] = {}
        self._capacity = capacity
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._buckets)

    def admit(
        self, now_ns: int, limits: tuple[tuple[str, Limits], ...], *, tokens: int
    ) -> Ticket | Limited:
        """Let a request in, and charge it, if every limit allows it.

        Args:
            now_ns: Now.
            limits: Whose and which: the tenant that is called, and the principal that calls.
            tokens: Estimated: its input, and the output it asks for.
        """
        for whose, limit in limits:
            if refusal := self._refusal(now_ns, whose, limit, tokens):
                return refusal
        for whose, limit in limits:
            if limit.requests is not None:
                self._charge(now_ns, (whose, "requests"), limit.requests, 1)
            if limit.tokens is not None and tokens:
                self._charge(now_ns, (whose, "tokens"), limit.tokens, tokens)
            if limit.concurrent is not None:
                self._at_once[whose] = self._at_once.get(whose, 0) + 1
        return Ticket(limits, tokens)

    def settle(self, now_ns: int, ticket: Ticket, *, tokens: int) -> None:
        """Take a request's end: its place is free, and what it really used is charged."""
        assert ticket.open, "a request ends once"
        ticket.open = False
        for whose, limit in ticket.limits:
            if limit.tokens is not None and tokens != ticket.estimated_tokens:
                key: tuple[str, What] = (whose, "tokens")
                bucket = self._buckets.get(key)
                # A limit that was changed in the meantime stays changed.
                rate = limit.tokens if bucket is None else bucket.rate
                self._charge(now_ns, key, rate, tokens - ticket.estimated_tokens)
            if limit.concurrent is not None:
                left = self._at_once[whose] - 1
                assert left >= 0, "more requests ended than began"
                if left:
                    self._at_once[whose] = left
                else:
                    del self._at_once[whose]

    def _refusal(self, now_ns: int, whose: str, limit: Limits, tokens: int) -> Limited | None:
        if limit.concurrent is not None and self._at_once.get(whose, 0) >= limit.concurrent:
            return Limited("concurrent", whose, CONCURRENT_RETRY_NS)
        asked: tuple[tuple[What, Rate | None, int], ...] = (
            ("requests", limit.requests, 1),
            ("tokens", limit.tokens, tokens),
        )
        for what, rate, count in asked:
            if rate is None:
                continue
            if count > rate.burst:
                return Limited(what, whose, None)
            # The bucket is full where it would be empty only after all of a burst has drained.
            over = self._empty_at(now_ns, (whose, what), rate) - now_ns * rate.count
            if (too_much := over + (count - rate.burst) * rate.period_ns) > 0:
                return Limited(what, whose, -(-too_much // rate.count))
        return None

    def _empty_at(self, now_ns: int, key: tuple[str, What], rate: Rate) -> int:
        """Return the instant at which a bucket is empty, now if it is; in time scaled by count."""
        now = now_ns * rate.count
        bucket = self._buckets.get(key)
        if bucket is None:
            return now
        if bucket.rate != rate:
            # The limit was changed: what is in the bucket drains at the new pace.
            units = max(bucket.empty_at - now_ns * bucket.rate.count, 0) // bucket.rate.period_ns
            bucket.empty_at = now + units * rate.period_ns
            bucket.rate = rate
        return max(bucket.empty_at, now)

    def _charge(self, now_ns: int, key: tuple[str, What], rate: Rate, count: int) -> None:
        """Fill or, with a negative count, drain a bucket."""
        empty_at = self._empty_at(now_ns, key, rate) + count * rate.period_ns
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.empty_at = empty_at
            self._buckets.move_to_end(key)
        elif empty_at > now_ns * rate.count:
            self._make_room(now_ns)
            self._buckets[key] = _Bucket(rate, empty_at)

    def _make_room(self, now_ns: int) -> None:
        for _ in range(SWEPT):
            oldest = next(iter(self._buckets.items()), None)
            if oldest is None:
                return
            key, bucket = oldest
            if bucket.empty_at <= now_ns * bucket.rate.count:
                del self._buckets[key]
            elif len(self._buckets) >= self._capacity:
                del self._buckets[key]
                self.forgotten += 1
            else:
                self._buckets.move_to_end(key)

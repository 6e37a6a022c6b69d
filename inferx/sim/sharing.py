"""Processor sharing in virtual time: all inside advance together, at a speed set by their number.

Laws:
1. Virtual time is the work that one request has received since the server was last empty, so ends
   keep their order whatever the speed does: a request costs O(log n), never a step a token.
2. Virtual time is a float64; instants in ns are integers, and an end is rounded to the nearest.
3. A timer is armed only when the next end moves earlier. One that fires too soon arms the next, one
   that fires for nothing is ignored.

Source: Kleinrock, Queueing Systems, vol. 2, section 4.4 (the model); Parekh and Gallager, IEEE/ACM
ToN 1(3), 1993 (virtual time).
"""

from collections.abc import Callable
from heapq import heappop, heappush

from inferx.sim.clock import SimClock

__all__ = ["UNARMED", "SharedServer"]

UNARMED = -1
"""Stands for the instant of a timer that is not armed."""


class SharedServer:
    """Processor sharing: with n inside, each gains a unit of work every `(base + per * n) * slow`.

    `done(request)` is called at each end. Equal ends go by the lower request number. With
    `per_ns` 0 nobody slows anybody: a server without a queue.
    """

    __slots__ = (
        "_armed_ns",
        "_at_ns",
        "_base_ns",
        "_clock",
        "_cost_ns",
        "_done",
        "_ends",
        "_env",
        "_fired",
        "_per_ns",
        "_slow",
        "_virtual",
    )

    def __init__(
        self, clock: SimClock, base_ns: float, per_ns: float, done: Callable[[int], object]
    ) -> None:
        assert base_ns + per_ns > 0, "work takes time"
        self._clock = clock
        self._env = clock.env
        self._base_ns = base_ns
        self._per_ns = per_ns
        self._done = done
        self._slow = 1.0
        self._ends: list[tuple[float, int]] = []
        self._virtual = 0.0
        self._at_ns = 0
        self._cost_ns = 1.0
        self._armed_ns = UNARMED
        self._fired = self._fire

    def __len__(self) -> int:
        return len(self._ends)

    def join(self, now_ns: int, request: int, work: float) -> None:
        """Take a request in that needs `work` units."""
        ends = self._ends
        if not ends:
            self._virtual = 0.0
            self._at_ns = now_ns
            self._cost_ns = cost_ns = (self._base_ns + self._per_ns) * self._slow
            ends.append((work, request))
            delay_ns = int(work * cost_ns + 0.5)
            self._armed_ns = now_ns + delay_ns
            self._clock.after(delay_ns, self._fired)
            return
        virtual = self._virtual + (now_ns - self._at_ns) / self._cost_ns
        heappush(ends, (virtual + work, request))
        self._virtual = virtual
        self._at_ns = now_ns
        self._price(now_ns)

    def reprice(self, now_ns: int, slow: float) -> None:
        """Let every unit of work take `slow` times its time from now on."""
        self._slow = slow
        if self._ends:
            self._virtual += (now_ns - self._at_ns) / self._cost_ns
            self._at_ns = now_ns
            self._price(now_ns)

    def drop(self) -> list[int]:
        """Forget all requests and return them, in no order."""
        dropped = [request for _, request in self._ends]
        self._ends.clear()
        self._armed_ns = UNARMED
        return dropped

    def _price(self, now_ns: int) -> None:
        """Renew the cost of a unit, and arm a timer if the next end is before the armed one."""
        ends = self._ends
        self._cost_ns = cost_ns = (self._base_ns + self._per_ns * len(ends)) * self._slow
        delay_ns = int((ends[0][0] - self._virtual) * cost_ns + 0.5)
        due_ns = now_ns + delay_ns if delay_ns > 0 else now_ns
        if due_ns < self._armed_ns or self._armed_ns < 0:
            self._armed_ns = due_ns
            self._clock.after(due_ns - now_ns, self._fired)

    def _fire(self) -> None:
        now_ns: int = self._env._now  # type: ignore[assignment]  # noqa: SLF001 - hot.
        if now_ns != self._armed_ns:
            return
        ends = self._ends
        cost_ns = self._cost_ns
        virtual = self._virtual + (now_ns - self._at_ns) / cost_ns
        end, request = ends[0]
        left_ns = (end - virtual) * cost_ns
        if left_ns >= 1.0:
            delay_ns = int(left_ns + 0.5)
            self._armed_ns = now_ns + delay_ns
            self._clock.after(delay_ns, self._fired)
            return
        heappop(ends)
        self._armed_ns = UNARMED
        if ends:
            self._virtual = virtual
            self._at_ns = now_ns
            self._price(now_ns)
        self._done(request)

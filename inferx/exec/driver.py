"""Drives one machine on asyncio: the counterpart of the SimPy driver.

Laws:
1. One task owns one machine. Others post events to its inbox; nothing else reaches the machine, so
   there are no locks, and nothing is awaited inside a step.
2. A step takes all that is in the inbox, in the order in which it was posted, when its task's turn
   comes. On a virtual clock that turn comes before another timer fires, as on SimPy.
3. Records are durable before the commands of their step are sent, and commands are sent in order,
   step by step. A store that refuses a record (a newer leader has fenced this one) ends the task.
4. A machine is stepped no later than its deadline allows; a deadline that was overtaken by an
   earlier one is forgotten, one that moved later is met by a step without events.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

from inferx.core.errors import InferXError
from inferx.core.machine.step import Machine, Record
from inferx.exec.clock import Clock

__all__ = ["INBOX_LIMIT", "Driver", "Effects", "InboxFullError", "drive"]

INBOX_LIMIT = 65_536
"""Events that may wait for a machine's turn. More is an overload that no waiting mends."""

E = TypeVar("E")
C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)


class InboxFullError(InferXError):
    """A machine's inbox has no room: its driver is stuck, or peers send faster than it steps."""


class Effects(Protocol[C_contra]):
    """How the world takes what a machine answers."""

    async def persist(self, records: tuple[Record, ...]) -> None:
        """Make records durable, in one transaction; raise if this is no longer the leader."""
        ...

    def send(self, command: C_contra) -> None:
        """Send a command on its way. It must not wait, and may post to any driver."""
        ...


class Driver(Generic[E, C]):
    """Steps a machine when it is told something, and when its deadline comes."""

    __slots__ = ("_armed_ns", "_clock", "_effects", "_inbox", "_limit", "_machine", "_wake", "name")

    def __init__(
        self,
        name: str,
        machine: Machine[E, C],
        clock: Clock,
        effects: Effects[C],
        *,
        inbox_limit: int = INBOX_LIMIT,
    ) -> None:
        self.name = name
        self._machine = machine
        self._clock = clock
        self._effects = effects
        self._inbox: deque[E] = deque()
        self._limit = inbox_limit
        self._wake = asyncio.Event()
        self._armed_ns = -1

    def post(self, *events: E) -> None:
        """Tell the machine something; it is stepped when its task's turn comes.

        Raises:
            InboxFullError: Too much waits already; nothing of `events` was taken.
        """
        inbox = self._inbox
        if len(inbox) + len(events) > self._limit:
            raise InboxFullError(
                f"{self.name}: {len(inbox)} events wait, expected at most {self._limit}"
            )
        if not inbox:
            self._wake.set()
        inbox.extend(events)

    async def run(self) -> None:
        """Own the machine until cancelled, or until a step or its effects raise."""
        wake, inbox, effects = self._wake, self._inbox, self._effects
        while True:
            await wake.wait()
            wake.clear()
            events = tuple(inbox)
            inbox.clear()
            step = self._machine.step(self._clock.now_ns(), events)
            if step.persist:
                await effects.persist(step.persist)
            for command in step.commands:
                effects.send(command)
            self._arm(step.deadline_ns)

    def _arm(self, deadline_ns: int | None) -> None:
        if deadline_ns is None:
            return
        if self._armed_ns < 0 or deadline_ns < self._armed_ns:
            self._armed_ns = deadline_ns
            self._clock.call_at(deadline_ns, lambda: self._fire(deadline_ns))

    def _fire(self, at_ns: int) -> None:
        if at_ns == self._armed_ns:
            self._armed_ns = -1
            self._wake.set()


async def drive(drivers: Iterable[Driver[Any, Any]]) -> None:
    """Run drivers together until cancelled; if one fails, all end."""
    async with asyncio.TaskGroup() as tasks:
        for driver in drivers:
            tasks.create_task(driver.run(), name=driver.name)

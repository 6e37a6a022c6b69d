"""The audit log: who was let do what, who was not, and what a scheduler decided and why.

Laws:
1. A decision is put into a queue of `QUEUE_ROWS` and written later, in batches: it is never on a
   request's path. If the queue is full, the request goes on, and the event is counted as lost and
   told of: a database that is down must not take the service with it.
2. An administrative act is written *before* it is done, and is not done if it cannot be written:
   acts are few, wait for people rather than for milliseconds, and an unrecorded change of who may
   do what is the one that a log is there for. How the act ended follows by the queue.
   Decisions that are equal but for their instant, and wait together, are one event that says how
   many they were: the log grows with who does what, not with how often.
3. What is queued is written again until the database takes it; a batch that was half taken is not
   written twice.
4. No credential is among what can be written: an event names who, never what they showed.
5. Refusals of callers whom nobody knows are written at `STRANGERS` at most, and those above it are
   counted as lost: whoever can reach a port must not be able to fill a disk.
"""

import asyncio
import logging
import re
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final, Literal, TypeVar

import msgspec

from inferx.core.errors import InferXError
from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock
from inferx.exec.identity.audit_table import AuditDatabaseError, AuditRow, AuditTable
from inferx.exec.identity.limiter import Limited, Limiter
from inferx.exec.identity.limits import Limits, Rate
from inferx.exec.identity.principal import ANONYMOUS, Denied, Principal
from inferx.exec.identity.rights import Allowed

__all__ = ["Audit", "AuditCounts", "AuditUnavailableError", "Equal", "Target"]

QUEUE_ROWS: Final = 65_536
"""A few seconds of a busy gateway, some 30 MB."""
BATCH_ROWS: Final = 2_000
BATCH_WAIT_S: Final = 0.2
"""How long a decision waits for others to be written with."""
RETRY_S: Final = 1.0
ACT_S: Final = 5.0
"""How long an administrative act waits to be written before it is refused."""
CLOSE_S: Final = 10.0
TOLD_EVERY_S: Final = 10.0
RETENTION_NS: Final = 90 * 86_400 * NS_PER_S
FORGET_EVERY_S: Final = 60.0
TEXT_LIMIT: Final = 1024
STRANGERS: Final = Rate(count=50, period_ns=NS_PER_S, burst=1_000)

_CREDENTIALS = re.compile(r"(ix_)[0-9a-fA-F_]{8,}|(eyJ)[\w-]+\.[\w-]+(?:\.[\w-]*)?")
"""API keys and bearer tokens, by what they begin with."""

T = TypeVar("T")
R = TypeVar("R")
_Key = tuple[str, str, "Target", str, str]
"""Who, action, target, outcome, reason."""

_log = logging.getLogger(__name__)


class AuditUnavailableError(InferXError):
    """An administrative act cannot be recorded, and so is not done."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody acts on."""

    type: str
    tenant: str
    namespace: str
    name: str = ""
    request: str = ""


class Equal(msgspec.Struct):
    """Equal decisions: when the first was taken, and how many they are.

    Attributes:
        waits: Whether another one may be counted with them, by who knows that it is equal.
    """

    at_ns: int
    times: int = 1
    waits: bool = True


class AuditCounts(msgspec.Struct):
    """How it goes, for metrics.

    Attributes:
        written: Events that the database has.
        lost: Events that found the queue full, were left in it at the end, or were strangers'
            refusals beyond their rate.
        failures: Times that the database did not take a batch.
        forgotten: Events that were removed for their age.
    """

    written: int = 0
    lost: int = 0
    failures: int = 0
    forgotten: int = 0


class Audit:
    """Of one process; `run` writes what is told."""

    def __init__(
        self,
        table: AuditTable,
        clock: Clock,
        *,
        queue_rows: int = QUEUE_ROWS,
        retention_ns: int = RETENTION_NS,
        forget_every_s: float = FORGET_EVERY_S,
    ) -> None:
        self._table = table
        self._clock = clock
        self._queue_rows = queue_rows
        self._retention_ns = retention_ns
        self._forget_every_s = forget_every_s
        self._queue: deque[AuditRow] = deque()
        self._equal: dict[_Key, Equal] = {}
        """Decisions that are not in the queue yet."""
        self._news = asyncio.Event()
        self._writer = secrets.token_hex(8)
        self._number = 0
        self._prepared = False
        self._tell_from_s = 0.0
        self._strangers = Limiter()
        # One: the database sees one connection, and the event loop none of its waiting.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit")
        self.counts = AuditCounts()

    def decision(
        self,
        who: str,
        action: str,
        target: Target,
        decision: Allowed | Principal | Denied | Limited,
    ) -> Equal | None:
        """Record what was decided about a request. It returns at once, and never fails.

        Returns:
            Where it is counted, with its equals; None where it is lost.
        """
        outcome, reason = "allowed", ""
        if isinstance(decision, Denied):
            outcome, reason = "denied", decision.reason
            if who == ANONYMOUS.name and self._too_many_strangers():
                self.counts.lost += 1
                return None
        elif isinstance(decision, Limited):
            outcome, reason = "limited", f"{decision.what} of {decision.whose}"
        key = (who, action, target, outcome, reason)
        equal = self._equal.get(key)
        if equal is not None:
            equal.times += 1
        elif self._has_room():
            equal = self._equal[key] = Equal(self._clock.now_ns())
            self._news.set()
        return equal

    def scheduled(
        self, who: str, action: str, target: Target, *, outcome: str, reason: str
    ) -> None:
        """Record what a scheduler decided by itself. It returns at once, and never fails.

        Args:
            who: Which scheduler, in which term.
            action: What kind of decision.
            target: Whom it is about.
            outcome: What was decided: which pod, where, from what.
            reason: Why.
        """
        self._put(self._row("scheduling", who, action, target, outcome=outcome, reason=reason))

    @asynccontextmanager
    async def act(self, who: str, action: str, target: Target) -> AsyncGenerator[None]:
        """Record an administrative act, let it be done inside, and record how it ended.

        Raises:
            AuditUnavailableError: It cannot be recorded in time. It is not to be done.
        """
        row = self._row("act", who, action, target, outcome="begun", reason="")
        try:
            async with asyncio.timeout(ACT_S):
                await self._blocking(self._write_now, [row])
        except (AuditDatabaseError, TimeoutError) as error:
            msg = f"{action} {target.type}: the audit log takes no records; nothing was done"
            raise AuditUnavailableError(msg) from error
        self.counts.written += 1
        outcome: Literal["done", "failed"] = "failed"
        try:
            yield
            outcome = "done"
        finally:
            self._put(self._row("act", who, action, target, outcome=outcome, reason=""))

    async def run(self) -> None:
        """Write what is told until cancelled; what is left then is written if the database can."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write())
                tasks.create_task(self._forget())
        finally:
            await self._end()

    async def _write(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(BATCH_WAIT_S)
            taken = await self._flush()
            while not taken:
                await asyncio.sleep(RETRY_S)
                taken = await self._flush()

    async def _flush(self) -> bool:
        """Write all that is queued; return whether the database took it."""
        while self._queue or self._equal:
            if not self._queue:
                self._queue_equal()
            batch = list(islice(self._queue, BATCH_ROWS))
            try:
                await self._blocking(self._write_now, batch)
            except AuditDatabaseError as error:
                self.counts.failures += 1
                waiting = len(self._queue) + len(self._equal)
                self._tell(f"audit: {error}; {waiting} events wait")
                return False
            # Only now: a batch that is being written keeps its place in the queue's bound.
            for _ in batch:
                self._queue.popleft()
            self.counts.written += sum(row.times for row in batch)
        return True

    def _queue_equal(self) -> None:
        equal, self._equal = self._equal, {}
        for (who, action, target, outcome, reason), one in equal.items():
            one.waits = False
            row = self._row("decision", who, action, target, outcome=outcome, reason=reason)
            self._queue.append(msgspec.structs.replace(row, at_ns=one.at_ns, times=one.times))

    async def _forget(self) -> None:
        while True:
            before_ns = self._clock.now_ns() - self._retention_ns
            try:
                # A bite at a time: batches that wait for the thread are written in between.
                while gone := await self._blocking(self._forget_now, before_ns):
                    self.counts.forgotten += gone
            except AuditDatabaseError as error:
                self.counts.failures += 1
                self._tell(f"audit: old events stay: {error}")
            await asyncio.sleep(self._forget_every_s)

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._flush()
        except TimeoutError:
            pass
        left = sum(row.times for row in self._queue)
        left += sum(one.times for one in self._equal.values())
        if left:
            self.counts.lost += left
            _log.error(
                "audit: %d events are lost: the database did not take them", self.counts.lost
            )
        self.close()

    def close(self) -> None:
        """Let go of the database; for a log that was never run."""
        self._thread.submit(self._table.close)
        self._thread.shutdown(wait=False)

    def _row(
        self, what: str, who: str, action: str, target: Target, *, outcome: str, reason: str
    ) -> AuditRow:
        self._number += 1
        return AuditRow(
            writer=self._writer,
            number=self._number,
            at_ns=self._clock.now_ns(),
            what=what,
            who=_clean(who),
            action=action,
            type=_clean(target.type),
            tenant=_clean(target.tenant),
            namespace=_clean(target.namespace),
            name=_clean(target.name),
            outcome=_clean(outcome),
            reason=_clean(reason),
            request=_clean(target.request),
        )

    def _too_many_strangers(self) -> bool:
        limits = (("", Limits(requests=STRANGERS)),)
        return isinstance(self._strangers.admit(self._clock.now_ns(), limits, tokens=0), Limited)

    def _put(self, row: AuditRow) -> None:
        if self._has_room():
            self._queue.append(row)
            self._news.set()

    def _has_room(self) -> bool:
        """Tell whether one more event can wait; one that cannot is lost, and counted."""
        if len(self._queue) + len(self._equal) < self._queue_rows:
            return True
        self.counts.lost += 1
        self._tell(f"audit: the queue is full; {self.counts.lost} events are lost so far")
        return False

    async def _blocking(self, call: Callable[[T], R], argument: T) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, argument)

    def _write_now(self, rows: list[AuditRow]) -> None:
        self._prepare()
        self._table.write(rows)

    def _forget_now(self, before_ns: int) -> int:
        self._prepare()
        return self._table.forget(before_ns)

    def _prepare(self) -> None:
        if not self._prepared:
            self._table.prepare()
            self._prepared = True

    def _tell(self, line: str) -> None:
        """Say that something is wrong: at once, and then not at every request."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._tell_from_s:
            self._tell_from_s = now_s + TOLD_EVERY_S
            _log.error(line)


def _clean(text: str) -> str:
    """Return text that a database of any encoding takes, without credentials misplaced in it."""
    if "ix_" in text or "eyJ" in text:
        text = _CREDENTIALS.sub(r"\1\2...", text)
    if len(text) <= TEXT_LIMIT and text.isascii() and text.isprintable():
        return text
    return ascii(text[:TEXT_LIMIT])[1:-1]

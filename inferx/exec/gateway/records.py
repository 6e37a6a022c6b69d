"""What became of each of the latest requests: kept in memory, told to who may ask.

A record is made when a request is let in, and filled by those who serve it, from times that they
take anyway. Nothing of a body is in it, nor of a key.
"""

import secrets
from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

import msgspec

from inferx.core.types import PodId
from inferx.exec.gateway.choices import Candidate
from inferx.exec.gateway.dispatch import FunctionName
from inferx.exec.tracing.context import TraceContext

__all__ = ["KEPT", "KEPT_PLAIN", "LEFT", "NOBODY", "Lease", "Records", "RequestRecord"]

KEPT: Final = 10_000
"""Requests that are remembered of those that somebody asks for: they waited, or went wrong."""
KEPT_PLAIN: Final = 1_000
"""Requests that are remembered of all others."""
LEFT: Final = "client left"
"""The reason of a request whose client did not wait for it."""
WAITED_NS: Final = 100_000_000
"""A wait that a person would notice."""


NOBODY: "dict[RequestRecord, None]" = {}
"""Among whom a request is that waits no more; nobody is ever put there."""


class Lease(NamedTuple):
    """When this gateway got a pod's slots, and whether the pod was started for them."""

    granted_ns: int
    cold: bool


class RequestRecord(msgspec.Struct, eq=False, gc=False):
    """One request. Times are since 1970; 0 is not yet, or never.

    A struct, for it is made for each request: five times as fast as a class.

    Attributes:
        id: Its `X-Request-Id`.
        arrived_ns: Its head was there.
        queued_ns: It was let in, and asked for a slot.
        ahead: Requests of its function that waited then.
        started_ns: It got a slot.
        sent_ns: It was sent to the pod.
        first_ns: The first of the answer's body came.
        ended_ns: It was over.
        pod: Whose slot it was; -1 before.
        lease: Of that pod.
        candidates: The pods that its own was chosen among; empty where there was no choice.
        among: Those of its function that wait, itself too while it does.
        tries: Turns that it took: another, where a pod took no connection.
        status: Of what the client was told; 0 where it was told nothing.
        reason: Why it was not served; empty where it was.
        trace: Its own span; None where nothing is traced.
        parent_id: Of the caller's span; 0 where there is none.
        decided: Whether the caller said if its trace is recorded.
        queue_id: Of the span of its wait; 0 before anybody was told of it.
        upstream_id: Of the span of its pod's answer; the same.
        pod_headers: Of the pod's answer, where its trace is recorded.
    """

    id: str
    arrived_ns: int
    method: str = ""
    route: str = ""
    function: FunctionName | None = None
    queued_ns: int = 0
    ahead: int = 0
    among: "dict[RequestRecord, None]" = {}
    tries: int = 0
    started_ns: int = 0
    sent_ns: int = 0
    first_ns: int = 0
    ended_ns: int = 0
    pod: PodId = PodId(-1)  # a number
    address: str = ""
    lease: Lease | None = None
    candidates: tuple[Candidate, ...] = ()
    status: int = 0
    reason: str = ""
    output_tokens: int = 0
    trace: TraceContext | None = None
    parent_id: int = 0
    decided: bool = False
    queue_id: int = 0
    upstream_id: int = 0
    pod_headers: Sequence[tuple[bytes, bytes]] = ()

    @property
    def was_cold(self) -> bool:
        """Whether a pod was started while it waited, and it went there."""
        lease = self.lease
        return lease is not None and lease.cold and lease.granted_ns > self.queued_ns

    @property
    def failure(self) -> str:
        """Why it was not served, where that is not its client's doing; "" where it is, or was.

        Also of one that was told 200 already: a stream that waited, an answer that broke off.
        """
        return "" if 400 <= self.status < 500 or self.reason == LEFT else self.reason

    @property
    def is_plain(self) -> bool:
        """Whether it found a free slot and was served: nothing happened to it."""
        waited_ns = (self.started_ns or self.ended_ns) - self.queued_ns
        # Who waited for a pod to start waited for longer than this.
        return (
            waited_ns < WAITED_NS and 0 < self.status < 400 and not (self.reason or self.was_cold)
        )


class Records:
    """The latest requests of one gateway, and those that are under way."""

    def __init__(self, kept: int = KEPT, kept_plain: int = KEPT_PLAIN) -> None:
        self._live: dict[RequestRecord, None] = {}
        self._others: deque[RequestRecord] = deque(maxlen=kept)
        self._plain: deque[RequestRecord] = deque(maxlen=kept_plain)
        self._leases: dict[PodId, Lease] = {}
        # Another gateway, and this one started anew, number from elsewhere.
        self._prefix = secrets.token_hex(4)
        self._count = 0

    def new_id(self) -> str:
        """Return an id that no other request has."""
        self._count += 1
        return f"{self._prefix}-{self._count:x}"

    def begin(self, record: RequestRecord) -> None:
        """Remember a request that was let in."""
        self._live[record] = None

    def end(self, record: RequestRecord) -> bool:
        """Remember a request that is over; the oldest of its kind is forgotten.

        Returns:
            Whether it is a plain one.
        """
        del self._live[record]
        plain = record.is_plain
        (self._plain if plain else self._others).append(record)
        return plain

    def find(self, request_id: str) -> list[RequestRecord]:
        """Return the requests of an id, the latest first: callers may use one again."""
        everywhere = chain(self._live, self._others, self._plain)
        found = [one for one in everywhere if one.id == request_id]
        return sorted(found, key=lambda one: one.arrived_ns, reverse=True)

    # -- leases ---
    def granted(self, pod: PodId, now_ns: int, *, cold: bool) -> None:
        """Take in that slots of a pod were leased."""
        self._leases[pod] = Lease(now_ns, cold)

    def given_back(self, pod: PodId) -> None:
        """Take in that they are held no more."""
        self._leases.pop(pod, None)

    def forget_leases(self) -> None:
        """Take in that none is held any more."""
        self._leases.clear()

    def lease(self, pod: PodId) -> Lease | None:
        """Return what is known of a pod's lease."""
        return self._leases.get(pod)

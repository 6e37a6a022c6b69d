"""Lines in the log about requests: all of them if asked for, else those that somebody looks for."""

import logging
from typing import Final

from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock
from inferx.exec.gateway.records import RequestRecord
from inferx.exec.logs import ids

__all__ = ["RequestLog"]

LINES_PER_S: Final = 10
"""Of requests that were cold or failed; an overload must not become one of the log's."""

_log = logging.getLogger(__name__)


class RequestLog:
    """Tells how requests went.

    Args:
        clock: The time.
        everything: Whether each request is told, without bound.
    """

    def __init__(self, clock: Clock, *, everything: bool = False) -> None:
        self._clock = clock
        self.everything = everything
        self._second = 0
        self._told = self._untold = 0

    def ended(self, record: RequestRecord) -> None:
        """Tell of a request that is over, if it is one to tell of."""
        failed = bool(record.failure)
        if not (self.everything or failed or record.was_cold) or not self._may():
            return
        function = record.function
        assert function is not None, "it was let in"
        trace = record.trace
        untold, self._untold = self._untold, 0
        _log.log(
            logging.WARNING if failed else logging.INFO,
            "%s %s: %s after %.3f s%s",
            record.id,
            function,
            record.status or record.reason or "gone",
            (record.ended_ns - record.arrived_ns) / NS_PER_S,
            f": {record.reason}" if record.reason else "",
            extra=ids(
                request=record.id,
                tenant=function.tenant,
                namespace=function.namespace,
                function=function.name,
                pod=None if record.pod < 0 else record.pod,
                trace=None if trace is None else f"{trace.trace_id:032x}",
                status=record.status,
                reason=record.reason or None,
                cold=record.was_cold,
                waited_ns=max(0, (record.started_ns or record.ended_ns) - record.queued_ns),
                took_ns=record.ended_ns - record.arrived_ns,
                untold=untold or None,
            ),
        )

    def _may(self) -> bool:
        if self.everything:
            return True
        second = self._clock.now_ns() // NS_PER_S
        if second != self._second:
            self._second, self._told = second, 0
        self._told += 1
        if self._told <= LINES_PER_S:
            return True
        self._untold += 1
        return False

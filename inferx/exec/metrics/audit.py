"""What a gateway and a scheduler tell of their audit log."""

from collections.abc import AsyncIterator
from typing import Final

from inferx.exec.identity.audit import Audit, AuditCounts
from inferx.exec.metrics.families import Family, Piece

__all__ = ["FAMILIES", "AuditSource"]

EVENTS: Final = Family(
    "inferx_audit_events",
    "counter",
    "Events of the audit log, by what became of them.",
    ("outcome",),
)
FAILURES: Final = Family(
    "inferx_audit_failures",
    "counter",
    "Times that the audit log's database did not take a batch, which is then tried again.",
)
FAMILIES: Final = (EVENTS, FAILURES)


class AuditSource:
    """One process's audit log; None keeps none, and tells zeros."""

    def __init__(self, audit: Audit | None) -> None:
        self._counts = AuditCounts() if audit is None else audit.counts

    async def pieces(self) -> AsyncIterator[Piece]:
        """See `MetricSource`."""
        counts = self._counts
        yield EVENTS.of(
            ((outcome,), getattr(counts, outcome)) for outcome in ("written", "lost", "forgotten")
        )
        yield FAILURES.one(counts.failures)

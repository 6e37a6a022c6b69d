"""What the client of a driven trace saw, as a table."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from inferx.client.driving import Answer, Call
from inferx.core.units import NS_PER_S

__all__ = ["outcome_table"]


def outcome_table(calls: Sequence[Call], answers: Sequence[Answer]) -> Table:
    """Return how requests ended, how long they took by the client's clock, and who was late."""
    sent = [(call.due_ns, one.sent_ns) for call, one in zip(calls, answers, strict=True)]
    began_ns = min((at - due for due, at in sent if at >= 0), default=0)
    late_ns = max((at - due - began_ns for due, at in sent if at >= 0), default=0)
    told = f"sent at most {late_ns / NS_PER_S:.3f} s late"
    table = Table(
        "outcome", "why", "requests", "TTFT p50", "p99", "end to end p50", "p99", caption=told
    )
    for (outcome, why), count in sorted(Counter((one.outcome, one.why) for one in answers).items()):
        kind = [one for one in answers if (one.outcome, one.why) == (outcome, why)]
        first = [one.first_ns - one.sent_ns for one in kind if one.first_ns >= 0]
        ended = [one.ended_ns - one.sent_ns for one in kind if one.ended_ns >= 0]
        table.add_row(outcome, why, f"{count:,}", *_quantiles(first), *_quantiles(ended))
    return table


def _quantiles(times_ns: Sequence[int]) -> tuple[str, str]:
    if not times_ns:
        return "", ""
    p50, p99 = np.quantile(times_ns, (0.5, 0.99), method="inverted_cdf") / NS_PER_S
    return f"{p50:.3f} s", f"{p99:.3f} s"

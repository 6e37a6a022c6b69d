"""What the client of a driven trace saw, as a table."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from inferx.client.driving import Answer
from inferx.core.units import NS_PER_S

__all__ = ["outcome_table"]


def outcome_table(answers: Sequence[Answer]) -> Table:
    """Return how requests ended, and how long they took by the client's clock."""
    table = Table("outcome", "why", "requests", "TTFT p50", "p99", "end to end p50", "p99")
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

"""Earliest deadline first: whoever must start soonest.

Source: Jackson, "Scheduling a Production Line to Minimize Maximum Tardiness", Management Science
Research Project 43, UCLA, 1955, and Liu, Layland, "Scheduling Algorithms for Multiprogramming in a
Hard-Real-Time Environment", Journal of the ACM 20(1), 1973, pp. 55 and 56, section 7, theorem 7
(the deadline driven algorithm). On one server it meets all deadlines that can be met: of jobs that
are all there, and of jobs of one length whose times are multiples of it. No constants.

A request's deadline is its own, or its function's `queue_timeout`; it says when the wait ends, not
the service. A function's want is as urgent as the oldest request behind it.

Differs: what has begun is not interrupted, so the theorem of 1973 on periodic tasks does not carry
over; a request whose deadline has passed is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inferx.policy import ClusterView, PolicyBundle, RouterView, Waiting, Want, plain

__all__ = ["EarliestDeadline", "bundle"]


@dataclass(frozen=True, slots=True)
class EarliestDeadline:
    """Serves whose deadline comes first."""

    def next_request(self, waiting: Sequence[Waiting], view: RouterView) -> int:
        """Return the index of the request with the first deadline, the oldest of them."""
        return min(range(len(waiting)), key=lambda at: waiting[at].deadline_ns)

    def next_want(self, wants: Sequence[Want], view: ClusterView) -> int:
        """Return the index of the want whose oldest request is refused first."""
        specs = view.functions.specs
        return min(
            range(len(wants)),
            key=lambda at: wants[at].since_ns + specs[wants[at].function].queue_timeout_ns,
        )


def bundle() -> PolicyBundle:
    """Return the bundle."""
    return replace(plain.bundle(), name="earliest-deadline", queueing=EarliestDeadline())

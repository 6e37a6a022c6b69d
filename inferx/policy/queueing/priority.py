"""Priority: the most urgent first, and who waits longest among equals.

Source: Cobham, "Priority Assignment in Waiting Line Problems", Journal of the Operations Research
Society of America 2(1), 1954, pp. 70-76: head of the line. A customer in service is not
interrupted. No constants.

Requests have a priority of their own, functions one by description; larger is more urgent.

Differs: a request is refused when it has waited too long, so that the least urgent cannot wait for
ever; urgent wants go first where room has come, but take nobody's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inferx.policy import ClusterView, PolicyBundle, RouterView, Waiting, Want, plain

__all__ = ["HeadOfTheLine", "bundle"]


@dataclass(frozen=True, slots=True)
class HeadOfTheLine:
    """Serves the greatest priority first."""

    def next_request(self, waiting: Sequence[Waiting], view: RouterView) -> int:
        """Return the index of the most urgent request, the oldest of them."""
        return max(range(len(waiting)), key=lambda at: waiting[at].request.priority)

    def next_want(self, wants: Sequence[Want], view: ClusterView) -> int:
        """Return the index of the most urgent function, of them the one that waits longest."""
        specs = view.functions.specs
        return max(range(len(wants)), key=lambda at: specs[wants[at].function].priority)


def bundle() -> PolicyBundle:
    """Return the bundle."""
    return replace(plain.bundle(), name="priority", queueing=HeadOfTheLine())

"""Power of two choices: the less busy of two pods drawn at random.

Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE Transactions on
Parallel and Distributed Systems 12(10), 2001, p. 1099, corollary 2: each customer draws d = 2
servers, independently, uniformly and with replacement, and waits at the one with the fewest
customers. With many servers at load l, the mean time in system is the sum over i >= 1 of
l^((d^i - d) / (d - 1)) service times, where one choice gives 1 / (1 - l).

Differs: draws are among the pods with a free slot; load is requests in service from this router,
where others may serve as well; a tie goes to the pod drawn first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from numpy.random import Generator

from inferx.policy import LeasedPod, PolicyBundle, RequestArrived, RouterView, plain

__all__ = ["PowerOfTwo", "bundle"]


@dataclass(frozen=True, slots=True)
class PowerOfTwo:
    """Routes to the less busy of two pods drawn with replacement."""

    def route(
        self,
        request: RequestArrived,
        candidates: Sequence[LeasedPod],
        view: RouterView,
        rng: Generator,
    ) -> int:
        """Return the index of the less busy of two. Cost: O(1), one draw."""
        count = len(candidates)
        # One draw for the pair: a call to the generator is what costs here.
        one, two = divmod(int(rng.random() * count * count), count)
        return two if candidates[two].inflight < candidates[one].inflight else one


def bundle() -> PolicyBundle:
    """Return the bundle."""
    return replace(plain.bundle(), name="power-of-two", routing=PowerOfTwo())

"""Session affinity by rendezvous hashing: a tenant's requests go to the same pod.

Source: Thaler, Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM
Transactions on Networking 6(1), 1998, pp. 1-14. Every pair of a key k and a server s has the weight
W = (A * ((A * s + B) xor D(k)) + B) mod 2^31 with A = 1103515245 and B = 12345, where D(k) is a
31-bit digest of the key; the key goes to the server of the greatest weight. Where a server leaves,
only its keys move, and to all others alike; a new one takes its share and moves no other key. As in
RFC 8584, section 3.2: D is CRC-32 without its highest bit, equal weights go to the least server.

Differs: the key is the tenant, for requests name no session; a tenant whose pod has no free slot
goes to its next one, for the policy cannot tell a pod that is full from one that left, and waits
for neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

from numpy.random import Generator

from inferx.policy import LeasedPod, PolicyBundle, RequestArrived, RouterView, plain

__all__ = ["Rendezvous", "bundle", "weight"]

_A, _B, _MASK = 1_103_515_245, 12_345, (1 << 31) - 1


def weight(digest: int, pod: int) -> int:
    """Return how much a key of this digest is drawn to a pod, in 0..2^31-1."""
    return (_A * ((_A * pod + _B) ^ digest) + _B) & _MASK


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Routes a tenant to the pod of the greatest weight that has a free slot."""

    def route(
        self,
        request: RequestArrived,
        candidates: Sequence[LeasedPod],
        view: RouterView,
        rng: Generator,
    ) -> int:
        """Return the index of the tenant's pod. Cost: O(candidates)."""
        digest = crc32(request.tenant.to_bytes(8, "little", signed=True)) & _MASK
        return max(
            range(len(candidates)),
            key=lambda index: (weight(digest, candidates[index].id), -candidates[index].id),
        )


def bundle() -> PolicyBundle:
    """Return the bundle."""
    return replace(plain.bundle(), name="session-affine", routing=Rendezvous())

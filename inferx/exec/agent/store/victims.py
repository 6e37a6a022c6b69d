"""Which snapshots would have to go for others to fit; nothing is removed here."""

from collections.abc import Callable, Sequence

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.tier import Tier

__all__ = ["choose_victims"]


def choose_victims(
    tier: Tier, size_bytes: int, order: Sequence[str] | None, may_go: Callable[[str], bool]
) -> list[str]:
    """Return what has to go from a tier for so many bytes to fit, in order.

    Args:
        tier: The tier.
        size_bytes: What is to fit.
        order: Which to take, the first one first; None is all, the least recently used first.
        may_go: Whether a snapshot may; one in use never does.

    Raises:
        AgentError: It would not fit even without all that may go.
    """
    here = {manifest.id: manifest for manifest in tier.contents().manifests}
    if order is None:
        order = sorted(here, key=lambda one: (tier.last_used_ns(one), one))
    victims: list[str] = []
    freed_bytes = 0
    for snapshot in (one for one in dict.fromkeys(order) if one in here):
        if _why_not(tier, size_bytes, freed_bytes) is None:
            return victims
        if may_go(snapshot) and not tier.users(snapshot):
            victims.append(snapshot)
            freed_bytes += here[snapshot].size_bytes
    if (error := _why_not(tier, size_bytes, freed_bytes)) is not None:
        raise error
    return victims


def _why_not(tier: Tier, size_bytes: int, freed_bytes: int) -> AgentError | None:
    try:
        tier.require_room(size_bytes, freed_bytes=freed_bytes)
    except AgentError as error:
        return error
    return None

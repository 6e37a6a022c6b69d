"""A node's tiers, as its configuration names them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

import msgspec

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.folder import FolderTier
from inferx.exec.agent.store.store import SnapshotStore
from inferx.exec.agent.store.tier import TierName

__all__ = ["FolderConfig", "open_store"]

_WARMEST_FIRST: Final[tuple[TierName, ...]] = get_args(TierName)


class FolderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tier that is a folder: of tmpfs, of a local disk, or of a shared file system."""

    tier: TierName
    folder: Path
    budget_bytes: int


def open_store(configs: Sequence[FolderConfig]) -> SnapshotStore:
    """Return the store of these folders, in any order, one for a tier; makes them where needed.

    Raises:
        AgentError: A tier is named twice, or a folder cannot be used.
    """
    names = [config.tier for config in configs]
    for name in names:
        if names.count(name) > 1:
            raise AgentError(f"tier {name} is configured twice; expected once", phase="open")
    return SnapshotStore(
        [
            FolderTier(config.tier, config.folder, budget_bytes=config.budget_bytes)
            for config in sorted(configs, key=lambda one: _WARMEST_FIRST.index(one.tier))
        ]
    )

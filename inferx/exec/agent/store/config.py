"""A node's tiers, as its configuration names them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, assert_never, get_args

import msgspec

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.folder import FolderTier
from inferx.exec.agent.store.s3 import S3Config, S3Tier
from inferx.exec.agent.store.store import SnapshotStore
from inferx.exec.agent.store.tier import Tier, TierName

__all__ = ["BucketConfig", "FolderConfig", "TierConfig", "open_store"]

_WARMEST_FIRST: Final[tuple[TierName, ...]] = get_args(TierName)


class FolderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tier that is a folder: of tmpfs, of a local disk, or of a shared file system."""

    tier: TierName
    folder: Path
    budget_bytes: int


class BucketConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tier that is a bucket: nothing is asked of it before it is used."""

    tier: TierName
    bucket: S3Config

    @property
    def budget_bytes(self) -> int:
        """What all snapshots together may take."""
        return self.bucket.budget_bytes


TierConfig = FolderConfig | BucketConfig


def open_store(configs: Sequence[TierConfig]) -> SnapshotStore:
    """Return the store of these tiers, in any order; makes folders where needed.

    Raises:
        AgentError: A tier is named twice, or a folder cannot be used.
    """
    names = [config.tier for config in configs]
    for name in names:
        if names.count(name) > 1:
            raise AgentError(f"tier {name} is configured twice; expected once", phase="open")
    return SnapshotStore(
        [_opened(one) for one in sorted(configs, key=lambda one: _WARMEST_FIRST.index(one.tier))]
    )


def _opened(config: TierConfig) -> Tier:
    match config:
        case FolderConfig():
            return FolderTier(config.tier, config.folder, budget_bytes=config.budget_bytes)
        case BucketConfig():
            return S3Tier(config.tier, config.bucket)
        case _:
            assert_never(config)

"""Snapshots on this node's tiers: written whole, verified when read, moved within budgets.

A writer asks a tier for room (`FolderTier.begin`), writes into the folder that it gets, and
commits; from then on the snapshot is there, under the id that its content spells. `SnapshotStore`
moves snapshots between tiers and makes room.

A tier that is a bucket (`S3Tier`) is brought whole snapshots of others, and restores fetch from it.

Phases of errors: open, lock, recover; manifest, fit; room, begin, commit; get, hold, verify; copy,
cancel, delete.
"""

from inferx.exec.agent.store.checksum import Watch
from inferx.exec.agent.store.config import BucketConfig, FolderConfig, TierConfig, open_store
from inferx.exec.agent.store.fit import Mismatch, mismatch, require_fit
from inferx.exec.agent.store.folder import FolderTier
from inferx.exec.agent.store.manifest import (
    Draft,
    Entry,
    GpuModel,
    Manifest,
    Phase,
    Platform,
    Sizes,
)
from inferx.exec.agent.store.s3 import S3Config, S3Tier
from inferx.exec.agent.store.staging import Staging
from inferx.exec.agent.store.store import Found, SnapshotStore
from inferx.exec.agent.store.tier import Contents, Held, Hold, Recovery, Tier, TierName

__all__ = [
    "BucketConfig",
    "Contents",
    "Draft",
    "Entry",
    "FolderConfig",
    "FolderTier",
    "Found",
    "GpuModel",
    "Held",
    "Hold",
    "Manifest",
    "Mismatch",
    "Phase",
    "Platform",
    "Recovery",
    "S3Config",
    "S3Tier",
    "Sizes",
    "SnapshotStore",
    "Staging",
    "Tier",
    "TierConfig",
    "TierName",
    "Watch",
    "mismatch",
    "open_store",
    "require_fit",
]

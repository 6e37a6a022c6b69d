"""Snapshots on this node's tiers: written whole, verified when read, moved within budgets.

A writer asks a tier for room (`FolderTier.begin`), writes into the folder that it gets, and
commits; from then on the snapshot is there, under the id that its content spells. `SnapshotStore`
moves snapshots between tiers and makes room.

Phases of errors: open, lock, recover; manifest, fit; room, begin, commit; get, hold, verify; copy,
cancel, delete.
"""

from inferx.exec.agent.store.checksum import Watch
from inferx.exec.agent.store.config import FolderConfig, open_store
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
from inferx.exec.agent.store.staging import Staging
from inferx.exec.agent.store.store import Found, SnapshotStore
from inferx.exec.agent.store.tier import Contents, Held, Recovery, Tier, TierName

__all__ = [
    "Contents",
    "Draft",
    "Entry",
    "FolderConfig",
    "FolderTier",
    "Found",
    "GpuModel",
    "Held",
    "Manifest",
    "Mismatch",
    "Phase",
    "Platform",
    "Recovery",
    "Sizes",
    "SnapshotStore",
    "Staging",
    "Tier",
    "TierName",
    "Watch",
    "mismatch",
    "open_store",
    "require_fit",
]

"""A node's tiers as `node.toml` names them: folders, and a bucket where nodes share one."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from inferx.core.units import GIB
from inferx.exec.agent.store.config import BucketConfig, FolderConfig, TierConfig
from inferx.exec.agent.store.s3 import S3Config
from inferx.exec.agent.store.tier import TierName
from inferx.spec.document import shown
from inferx.spec.table import Table

__all__ = ["own_tier", "path_of", "read_tiers"]

_TIERS: Final[tuple[TierName, ...]] = ("dram", "nvme", "shared")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_REGION: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


def own_tier(state: Path) -> tuple[FolderConfig, ...]:
    """Return the tiers of a node that names none: its disk, beside the agent's state."""
    return (FolderConfig(tier="nvme", folder=state / "snapshots", budget_bytes=64 * GIB),)


def path_of(table: Table, key: str, default: Path | None = None) -> Path:
    """Return a path, which means the same wherever the agent is started."""
    text = table.text(key, None if default is None else str(default))
    if not text.startswith("/"):
        raise table.error(key, shown(text), "a path from the root")
    return Path(text)


def read_tiers(store: Table, state: Path) -> tuple[TierConfig, ...]:
    """Read `[store.dram]`, `[store.nvme]`, `[store.shared]`; without any, the disk."""
    found: list[TierConfig] = []
    for tier in _TIERS:
        if tier in store:
            table = store.table(tier)
            if tier == "shared" and "bucket" in table:
                found.append(BucketConfig(tier=tier, bucket=_bucket(table)))
            else:
                folder = path_of(table, "path")
                size_bytes = table.size("budget", minimum=1)
                found.append(FolderConfig(tier=tier, folder=folder, budget_bytes=size_bytes))
            table.close()
    return tuple(found) or own_tier(state)


def _bucket(table: Table) -> S3Config:
    """Read a tier that is a bucket; credentials are the SDK's affair, and no key here."""
    if "path" in table:
        raise table.error("path", "both path and bucket", "one of them")
    endpoint = table.text("endpoint", "-").removeprefix("-")
    if endpoint and not _is_url(endpoint):
        # Not shown: it may have a password in it.
        raise table.error("endpoint", "something else", "https://HOST[:PORT], and nothing more")
    return S3Config(
        bucket=_matching(table, "bucket", _BUCKET, "a bucket's name"),
        budget_bytes=table.size("budget", minimum=1),
        prefix=_matching(table, "prefix", _PREFIX, "names with slashes between them", ""),
        region=_matching(table, "region", _REGION, "a region's name", ""),
        endpoint=endpoint,
    )


def _matching(
    table: Table, key: str, pattern: re.Pattern[str], expected: str, default: str | None = None
) -> str:
    if default is not None and key not in table:
        return default
    text = table.text(key)
    if not pattern.fullmatch(text):
        raise table.error(key, shown(text), expected)
    return text


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return False
    plain = url.username is None and url.path in {"", "/"} and not url.query and not url.fragment
    return url.scheme in {"http", "https"} and bool(url.hostname) and port != 0 and plain

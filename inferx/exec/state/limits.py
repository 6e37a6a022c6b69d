"""What a store takes, the same for every implementation: keys, prefixes, and sizes of commits."""

from collections.abc import Sequence

from inferx.exec.state.store import Change, Expect, Put, RefusedError

__all__ = [
    "COMMIT_BYTES",
    "COMMIT_PARTS",
    "KEY_BYTES",
    "TTL_S_MAX",
    "check_commit",
    "check_key",
    "check_prefix",
    "check_ttl",
    "prefix_end",
]

KEY_BYTES = 512
COMMIT_PARTS = 128
"""Conditions of a commit, and changes: what etcd takes if nobody says otherwise."""
COMMIT_BYTES = 1_400_000
"""Keys and values of a commit together: etcd's 1.5 MiB less what its messages add."""
TTL_S_MAX = 86_400.0


def check_key(key: str) -> None:
    """Refuse what is no key: empty, too long, ending in `/`, or not printable."""
    if not key or key.endswith("/") or not key.isprintable():
        raise RefusedError(f"{key!r} is not a key: expected printable text that does not end in /")
    if len(key) * 4 > KEY_BYTES and (size := len(key.encode())) > KEY_BYTES:
        raise RefusedError(f"the key {key[:40]}... has {size} bytes; expected {KEY_BYTES} at most")


def check_prefix(prefix: str) -> None:
    """Refuse what is no prefix: `t1` would answer for `t10`, `t1/` does not."""
    if not prefix.endswith("/") or not prefix.isprintable() or len(prefix.encode()) > KEY_BYTES:
        raise RefusedError(
            f"{prefix[:KEY_BYTES]!r} is not a prefix: expected printable text that ends in /, "
            f"{KEY_BYTES} bytes at most"
        )


def prefix_end(prefix: str) -> str:
    """Return the first key that comes after all those under a prefix."""
    return prefix[:-1] + chr(ord("/") + 1)


def check_ttl(ttl_s: float) -> None:
    """Refuse a lease that would never run out, or at once."""
    if not 0 < ttl_s <= TTL_S_MAX:
        raise RefusedError(
            f"a lease of {ttl_s} s: expected more than 0 and {TTL_S_MAX:.0f} at most"
        )


def check_commit(expects: Sequence[Expect], changes: Sequence[Change]) -> None:
    """Refuse a commit that not every store could take."""
    parts = max(len(expects), len(changes))
    if parts > COMMIT_PARTS:
        raise RefusedError(
            f"a commit of {len(changes)} changes under {len(expects)} conditions: expected "
            f"{COMMIT_PARTS} of each at most"
        )
    size = 0
    for expect in expects:
        check_key(expect.key)
        size += len(expect.key)
    seen: set[str] = set()
    for change in changes:
        check_key(change.key)
        if change.key in seen:
            raise RefusedError(f"{change.key} is changed twice in one commit: expected once")
        seen.add(change.key)
        size += len(change.key) + (len(change.value) if isinstance(change, Put) else 0)
    if size > COMMIT_BYTES:
        largest = max(changes, key=lambda each: len(each.value) if isinstance(each, Put) else 0)
        raise RefusedError(
            f"a commit of {size} bytes, {largest.key} the largest part: expected {COMMIT_BYTES} "
            "at most"
        )

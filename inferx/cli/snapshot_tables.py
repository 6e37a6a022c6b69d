"""What `inferx snapshot list | inspect | verify | copy | rm` find and do, as JSON and as tables.

Each has one function that returns plain facts, and one that makes tables of them.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from rich.table import Table

from inferx.core.units import GIB, MIB, NS_PER_MS, NS_PER_S
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import Found, Platform, SnapshotStore, TierName, Watch, mismatch
from inferx.exec.agent.store.manifest import ID_DIGITS, check_id, encode

__all__ = [
    "copy",
    "copy_tables",
    "find_id",
    "inspect_facts",
    "inspect_tables",
    "list_facts",
    "list_tables",
    "remove",
    "remove_tables",
    "verify_facts",
    "verify_tables",
]

_SHOWN_ID: Final = 12
"""Digits of an id in tables; whole ids are in the JSON, and any beginning of one is understood."""

_Facts = Mapping[str, Any]


def find_id(store: SnapshotStore, beginning: str) -> str:
    """Return the one snapshot id that begins so; a whole id as it is.

    Raises:
        AgentError: None does, or several do; or nothing was given, as by a variable that is empty.
    """
    if not beginning:
        raise AgentError("no snapshot is named; expected an id, or its beginning", phase="get")
    if len(beginning) == ID_DIGITS:
        return check_id(beginning)
    found = [one.manifest.id for one in store.everything() if one.manifest.id.startswith(beginning)]
    match found:
        case [only]:
            return only
        case []:
            msg = f"no tier has a snapshot {beginning!r}"
        case _:
            shown = ", ".join(one[:_SHOWN_ID] for one in found[:3])
            msg = f"{len(found)} snapshots begin with {beginning!r}: {shown}; expected one"
    raise AgentError(msg, phase="get")


# -- list ---
def list_facts(store: SnapshotStore, *, function: str = "") -> dict[str, Any]:
    """Return all snapshots, or those of one function, and how full the tiers are."""
    return {
        "snapshots": [
            _snapshot(store, found)
            for found in store.everything()
            if function in {"", found.manifest.function}
        ],
        "tiers": [
            {
                "tier": tier.name,
                "used_bytes": tier.used_bytes(),
                "budget_bytes": tier.budget_bytes,
            }
            for tier in store.tiers
        ],
        "unreadable": store.unreadable(),
    }


def _snapshot(store: SnapshotStore, found: Found) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "id": manifest.id,
        "function": manifest.function,
        "created": _instant(manifest.created_ns),
        "snapshotter": manifest.snapshotter,
        "size_bytes": manifest.size_bytes,
        "device_bytes": manifest.sizes.device_bytes,
        "host_bytes": manifest.sizes.host_bytes,
        "tiers": list(found.tiers),
        "users": sorted(
            {user for name in found.tiers for user in store.tier(name).users(manifest.id)}
        ),
    }


def list_tables(facts: _Facts) -> list[Table]:
    """Return what `list_facts` found, for people."""
    snapshots = Table("snapshot", "function", "created", "size", "tiers", "in use by")
    snapshots.columns[3].justify = "right"
    for one in facts["snapshots"]:
        snapshots.add_row(
            one["id"][:_SHOWN_ID],
            one["function"],
            one["created"],
            _size(one["size_bytes"]),
            ", ".join(one["tiers"]),
            ", ".join(one["users"]),
        )
    tiers = Table("tier", "used", "budget")
    for column in tiers.columns[1:]:
        column.justify = "right"
    for one in facts["tiers"]:
        tiers.add_row(one["tier"], _size(one["used_bytes"]), _size(one["budget_bytes"]))
    return [snapshots, tiers, *_lines("cannot be used", facts["unreadable"])]


# -- inspect ---
def inspect_facts(
    store: SnapshotStore, snapshot: str, *, node: Platform | None = None
) -> dict[str, Any]:
    """Return all about a snapshot, and how this node differs from what it needs, where given."""
    found = store.get(snapshot)
    manifest: dict[str, Any] = msgspec.json.decode(encode(found.manifest))
    facts = {**_snapshot(store, found), "manifest": manifest}
    if node is not None:
        facts["mismatches"] = [
            {"forbids": one.forbids, "reason": one.reason} for one in mismatch(found.manifest, node)
        ]
    return facts


def inspect_tables(facts: _Facts) -> list[Table]:
    """Return what `inspect_facts` found, for people."""
    about = Table(show_header=False)
    for name in ("id", "function", "created", "snapshotter"):
        about.add_row(name, facts[name])
    for name in ("size_bytes", "device_bytes", "host_bytes"):
        about.add_row(name.removesuffix("_bytes"), _size(facts[name]))
    about.add_row("tiers", ", ".join(facts["tiers"]))
    about.add_row("in use by", ", ".join(facts["users"]))
    manifest = facts["manifest"]
    gpu_rows = {"gpus": "GPU", "node_gpus": "GPU of its node"}
    for name, value in manifest["platform"].items():
        if name in gpu_rows:
            for gpu in value:
                told = (gpu["model"], gpu["mig_profile"], gpu["uuid"])
                about.add_row(gpu_rows[name], ", ".join(part for part in told if part))
        elif value:
            about.add_row(name.replace("_", " "), value)
    for phase in manifest["phases"]:
        about.add_row(f"{phase['name']}, ms", f"{phase['duration_ns'] / NS_PER_MS:,.1f}")
    files = Table("file", "size", "XXH3")
    files.columns[1].justify = "right"
    for entry in manifest["files"]:
        files.add_row(entry["path"], _size(entry["size_bytes"]), entry["xxh3_128"])
    differences = [
        f"{'forbids' if one['forbids'] else 'differs'}: {one['reason']}"
        for one in facts.get("mismatches", ())
    ]
    return [about, files, *_lines("this node", differences)]


# -- verify ---
def verify_facts(
    store: SnapshotStore,
    snapshots: Sequence[str],
    *,
    tier: TierName | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Read every byte of these snapshots, of all copies or of one tier's."""
    found: list[dict[str, Any]] = []
    for snapshot in snapshots:
        there = store.get(snapshot)
        for name in there.tiers if tier is None else (tier,):
            watch = Watch(there.manifest.size_bytes, progress)
            faults = list(store.tier(name).verify(snapshot, watch))
            found.append({"id": snapshot, "tier": name, "sound": not faults, "faults": faults})
    return {"copies": found, "sound": all(one["sound"] for one in found)}


def verify_tables(facts: _Facts) -> list[Table]:
    """Return what `verify_facts` found, for people."""
    table = Table("snapshot", "tier", "every byte")
    for one in facts["copies"]:
        told = "as written" if one["sound"] else "\n".join(one["faults"])
        table.add_row(one["id"][:_SHOWN_ID], one["tier"], told)
    return [table]


# -- copy ---
def copy(store: SnapshotStore, snapshots: Sequence[str], *, to: TierName) -> dict[str, Any]:
    """Have a copy of each snapshot on a tier; there already is fine.

    Raises:
        AgentError: One is nowhere, is damaged or does not fit; those before it are there.
    """
    order = [tier.name for tier in store.tiers]
    found: list[dict[str, Any]] = []
    for snapshot in snapshots:
        target = store.tier(to).name
        there = store.get(snapshot)
        if any(order.index(name) > order.index(target) for name in there.tiers):
            store.promote(snapshot, to)
        else:
            store.sink(snapshot, to, keep=True)
        copied_bytes = 0 if to in there.tiers else there.manifest.size_bytes
        tiers = list(store.where(snapshot))
        found.append({"id": snapshot, "copied_bytes": copied_bytes, "tiers": tiers})
    return {"copied": found}


def copy_tables(facts: _Facts) -> list[Table]:
    """Return what `copy` did, for people."""
    table = Table("snapshot", "copied", "tiers")
    table.columns[1].justify = "right"
    for one in facts["copied"]:
        table.add_row(one["id"][:_SHOWN_ID], _size(one["copied_bytes"]), ", ".join(one["tiers"]))
    return [table]


# -- rm ---
def remove(
    store: SnapshotStore,
    snapshots: Sequence[str],
    *,
    tier: TierName | None = None,
    last_copy: bool = False,
) -> dict[str, Any]:
    """Remove snapshots: all copies, or the one of a tier, which may be the last if told.

    Raises:
        AgentError: One is in use, is nowhere, or is a last copy; those before it are gone.
    """
    gone: list[dict[str, Any]] = []
    for snapshot in snapshots:
        before_bytes = _used_bytes(store)
        names: tuple[TierName, ...]
        if tier is None:
            names = store.delete(snapshot)
        else:
            store.evict(snapshot, tier, last_copy=last_copy)
            names = (tier,)
        freed_bytes = max(before_bytes - _used_bytes(store), 0)
        gone.append({"id": snapshot, "tiers": list(names), "freed_bytes": freed_bytes})
    return {"removed": gone}


def _used_bytes(store: SnapshotStore) -> int:
    return sum(tier.used_bytes() for tier in store.tiers)


def remove_tables(facts: _Facts) -> list[Table]:
    """Return what `remove` did, for people."""
    table = Table("removed", "from", "freed")
    table.columns[2].justify = "right"
    for one in facts["removed"]:
        freed = _size(one["freed_bytes"])
        table.add_row(one["id"][:_SHOWN_ID], ", ".join(one["tiers"]), freed)
    return [table]


def _lines(title: str, lines: Sequence[str]) -> list[Table]:
    if not lines:
        return []
    table = Table(title)
    for line in lines:
        table.add_row(line)
    return [table]


def _size(size_bytes: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:,.1f} {name}"
    return f"{size_bytes} B"


def _instant(instant_ns: int) -> str:
    return datetime.fromtimestamp(instant_ns / NS_PER_S, tz=UTC).isoformat(timespec="seconds")

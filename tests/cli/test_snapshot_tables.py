"""What the snapshot commands find and do: facts as JSON, the same as tables."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from rich.table import Table
from snapshots import PLATFORM, put

from inferx.cli.snapshot_tables import (
    copy,
    copy_tables,
    find_id,
    inspect_facts,
    inspect_tables,
    list_facts,
    list_tables,
    remove,
    remove_tables,
    verify_facts,
    verify_tables,
)
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderTier, GpuModel, Platform, SnapshotStore


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(
        [
            FolderTier("dram", tmp_path / "dram", budget_bytes=1 << 20),
            FolderTier("nvme", tmp_path / "nvme", budget_bytes=1 << 30),
        ]
    )


@pytest.fixture
def snapshot(store: SnapshotStore) -> str:
    nvme = store.tier("nvme")
    assert isinstance(nvme, FolderTier)
    found = put(nvme, 1, created_ns=1_700_000_000_000_000_000).id
    store.promote(found, "dram")
    return found


def shown(tables: list[Table]) -> str:
    console = Console(width=160, no_color=True)
    with console.capture() as capture:
        for table in tables:
            console.print(table)
    return capture.get()


def as_json(facts: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(facts))
    assert told == facts, "builtins alone"
    return told


def test_list_tells_snapshots_tiers_users_and_what_is_unreadable(
    store: SnapshotStore, snapshot: str
) -> None:
    nvme = store.tier("nvme")
    assert isinstance(nvme, FolderTier)
    (nvme.root / "snapshots" / ("0" * 40)).mkdir()
    with store.tier("dram").hold(snapshot, "pod-1", now_ns=0):
        facts = as_json(list_facts(store))
    (one,) = facts["snapshots"]
    assert (one["id"], one["tiers"], one["users"]) == (snapshot, ["dram", "nvme"], ["pod-1"])
    assert one["created"] == "2023-11-14T22:13:20+00:00"
    assert facts["tiers"][0] == {"tier": "dram", "used_bytes": 3_100, "budget_bytes": 1 << 20}
    text = shown(list_tables(facts))
    for word in (snapshot[:12], "acme/chat/llama@1", "3.0 KiB", "dram, nvme", "pod-1", "1.0 GiB"):
        assert word in text
    assert "cannot be used" in text
    (line,) = facts["unreadable"]
    assert line.endswith("manifest.json: cannot be read: No such file or directory")
    assert find_id(store, "0" * 40) == "0" * 40
    assert remove(store, ["0" * 40])["removed"][0]["tiers"] == ["nvme"]
    assert list_facts(store)["unreadable"] == []
    assert list_facts(store, function="acme/chat/other@1")["snapshots"] == []


def test_inspect_tells_the_manifest_and_what_this_node_lacks(
    store: SnapshotStore, snapshot: str
) -> None:
    node = msgspec.structs.replace(PLATFORM, driver="590.48", kernel="6.18.1")
    facts = as_json(inspect_facts(store, snapshot, node=node))
    assert facts["manifest"]["files"][0]["path"] == "core-1.img"
    assert [one["forbids"] for one in facts["mismatches"]] == [True, False]
    text = shown(inspect_tables(facts))
    for word in (
        "deeper/pages-1.img",
        "NVIDIA H100 80GB HBM3, GPU-a",
        "forbids: GPU driver was 580.159.03, here 590.48",
        "differs: kernel was 6.12.0, here 6.18.1",
    ):
        assert word in text
    assert "mismatches" not in inspect_facts(store, snapshot)


def test_inspect_tells_every_field_of_what_a_snapshot_requires(store: SnapshotStore) -> None:
    gpus = tuple(GpuModel(model="H100", uuid=f"GPU-{index}") for index in "ab")
    told = {
        name: gpus if name.endswith("gpus") else f"a {name}" for name in Platform.__struct_fields__
    }
    nvme = store.tier("nvme")
    assert isinstance(nvme, FolderTier)
    found = put(nvme, 1, platform=Platform(**told)).id
    text = shown(inspect_tables(as_json(inspect_facts(store, found))))
    for name, value in told.items():
        if isinstance(value, str):
            assert value in text, name
    assert text.count("H100, GPU-b") == 2


def test_verify_tells_which_copy_is_broken(store: SnapshotStore, snapshot: str) -> None:
    assert as_json(verify_facts(store, [snapshot]))["sound"]
    nvme = store.tier("nvme")
    assert isinstance(nvme, FolderTier)
    (nvme.root / "snapshots" / snapshot / "files" / "core-1.img").write_bytes(b"")
    facts = as_json(verify_facts(store, [snapshot]))
    assert not facts["sound"]
    assert [one["sound"] for one in facts["copies"]] == [True, False]
    text = shown(verify_tables(facts))
    assert "as written" in text
    assert "core-1.img: has 0 bytes, its manifest says 100" in text
    assert verify_facts(store, [snapshot], tier="dram")["sound"]


def test_rm_removes_a_copy_or_all_of_them(store: SnapshotStore, snapshot: str) -> None:
    facts = as_json(remove(store, [snapshot], tier="dram"))
    assert facts == {"removed": [{"id": snapshot, "tiers": ["dram"], "freed_bytes": 3_100}]}
    with pytest.raises(AgentError, match="tier nvme has the last copy"):
        remove(store, [snapshot], tier="nvme")
    assert "nvme" in shown(remove_tables(remove(store, [snapshot])))
    assert list_facts(store)["snapshots"] == []


def test_any_beginning_of_an_id_is_understood_where_it_is_of_one(
    store: SnapshotStore, snapshot: str
) -> None:
    assert find_id(store, snapshot[:5]) == snapshot
    with pytest.raises(AgentError, match="no tier has a snapshot 'xyz'"):
        find_id(store, "xyz")
    with pytest.raises(AgentError, match="no snapshot is named; expected an id"):
        find_id(store, "")
    dram = store.tier("dram")
    assert isinstance(dram, FolderTier)
    begins = ""
    for number in range(2, 100):
        other = put(dram, number).id
        begins = next((one for one in (snapshot[:1], snapshot[:2]) if other.startswith(one)), "")
        if begins:
            break
    assert begins, "expected two ids that begin alike"
    with pytest.raises(AgentError, match=f"snapshots begin with '{begins}'"):
        find_id(store, begins)


def test_a_copy_goes_up_and_down_and_is_not_made_twice(store: SnapshotStore, snapshot: str) -> None:
    assert remove(store, [snapshot], tier="dram")
    found = as_json(copy(store, [snapshot], to="dram"))
    assert found == {"copied": [{"id": snapshot, "copied_bytes": 3_100, "tiers": ["dram", "nvme"]}]}
    remove(store, [snapshot], tier="nvme")
    assert copy(store, [snapshot], to="nvme")["copied"][0]["copied_bytes"] == 3_100
    assert copy(store, [snapshot], to="nvme")["copied"][0]["copied_bytes"] == 0
    assert re.search(r"3\.0 KiB.*dram, nvme", shown(copy_tables(found)))
    with pytest.raises(AgentError, match="this node has no tier shared"):
        copy(store, [snapshot], to="shared")
    with pytest.raises(AgentError, match="no tier has snapshot"):
        copy(store, ["0" * 40], to="dram")

"""Snapshots on several tiers: moved, found and removed by the laws of the store."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from snapshots import leftovers, put, require_sound

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderConfig, FolderTier, SnapshotStore, open_store
from inferx.exec.agent.store.tier import TierName


class Node:
    """A node's store over three folders, of which the last may be another node's, too."""

    def __init__(self, root: Path, shared: Path) -> None:
        names: tuple[TierName, ...] = ("dram", "nvme", "shared")
        self.tiers = [
            FolderTier(name, shared if name == "shared" else root / name, budget_bytes=10_000)
            for name in names
        ]
        self.dram, self.nvme, self.shared = self.tiers
        self.store = SnapshotStore(self.tiers)

    def require_sound(self) -> dict[str, set[str]]:
        for tier in self.tiers:
            assert leftovers(tier.root) == []
        return {tier.name: require_sound(tier) for tier in self.tiers}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, tmp_path / "shared")


def test_promoted_snapshot_is_on_both_tiers_and_progress_is_told(node: Node) -> None:
    snapshot = put(node.shared, 1).id
    told: list[tuple[int, int]] = []
    node.store.promote(snapshot, "dram", progress=lambda done, total: told.append((done, total)))
    assert node.store.where(snapshot) == ("dram", "shared")
    assert node.dram.get(snapshot) == node.shared.get(snapshot)
    assert max(told) == (3_100, 3_100)
    node.store.promote(snapshot, "dram")
    node.require_sound()


def test_sunk_snapshot_leaves_all_warmer_tiers_unless_kept(node: Node) -> None:
    snapshot = put(node.dram, 1).id
    node.store.sink(snapshot, "nvme", keep=True)
    assert node.store.where(snapshot) == ("dram", "nvme")
    node.store.sink(snapshot, "shared", keep=False)
    assert node.store.where(snapshot) == ("shared",)
    node.require_sound()


def test_snapshot_in_use_is_not_sunk_and_nothing_is_copied(node: Node) -> None:
    snapshot = put(node.dram, 1).id
    tier, held = node.store.hold(snapshot, "pod-1", now_ns=1)
    assert tier is node.dram
    with held, pytest.raises(AgentError, match=r"tier dram: .* is in use by pod-1"):
        node.store.sink(snapshot, "nvme", keep=False)
    assert node.store.where(snapshot) == ("dram",)


def test_move_in_the_wrong_direction_or_from_nowhere_is_one_error(node: Node) -> None:
    snapshot = put(node.nvme, 1).id
    with pytest.raises(
        AgentError, match=r"cannot copy .* to tier shared: it is not on a tier besi"
    ):
        node.store.promote(snapshot, "shared")
    with pytest.raises(
        AgentError, match=r"cannot copy .* to tier dram: it is not on a tier beside"
    ):
        node.store.sink(snapshot, "dram", keep=True)
    with pytest.raises(AgentError, match="it is not on nvme or shared"):
        node.store.promote("0" * 40, "dram")
    two = SnapshotStore(node.tiers[:2])
    with pytest.raises(AgentError, match="this node has no tier shared; it has dram, nvme"):
        two.sink(snapshot, "shared", keep=True)


def test_what_would_not_fit_is_refused_before_a_byte_is_copied(node: Node) -> None:
    put(node.dram, 1, size_bytes=8_000)
    snapshot = put(node.nvme, 2).id

    def never(done_bytes: int, total_bytes: int) -> None:
        raise AssertionError(done_bytes, total_bytes)

    with pytest.raises(AgentError, match="tier dram: 3,100 bytes do not fit: 8,100 of the budget"):
        node.store.promote(snapshot, "dram", progress=never)
    assert leftovers(node.dram.root) == []


def test_changed_byte_is_found_when_it_is_copied_and_nothing_is_left(node: Node) -> None:
    snapshot = put(node.nvme, 1).id
    pages = node.nvme.root / "snapshots" / snapshot / "files" / "deeper" / "pages-1.img"
    content = bytearray(pages.read_bytes())
    content[-1] ^= 0x80
    pages.write_bytes(content)
    with pytest.raises(AgentError, match=r"pages-1.img: has checksum .*, its manifest says"):
        node.store.promote(snapshot, "dram")
    pages.write_bytes(content[:-1])
    with pytest.raises(AgentError, match="has 2,999 bytes, its manifest says 3,000"):
        node.store.promote(snapshot, "dram")
    pages.unlink()
    with pytest.raises(AgentError, match=r"cannot copy .*: No such file or directory at .*pages-1"):
        node.store.promote(snapshot, "dram")
    assert node.store.where(snapshot) == ("nvme",)
    assert leftovers(node.dram.root) == []


def test_cancelled_copy_leaves_nothing(node: Node) -> None:
    snapshot = put(node.nvme, 1).id
    cancel = Event()
    with pytest.raises(AgentError, match="cancelled"):
        node.store.promote(snapshot, "dram", progress=lambda *_: cancel.set(), cancel=cancel)
    assert node.require_sound()["dram"] == set()
    assert node.nvme.users(snapshot) == ()


def test_newest_snapshot_of_a_function_is_found_on_its_warmest_tier(node: Node) -> None:
    old = put(node.dram, 1, created_ns=1)
    new = put(node.shared, 2, created_ns=2)
    put(node.dram, 3, function="acme/chat/other@1", created_ns=3)
    node.store.promote(new.id, "nvme")
    found = node.store.newest("acme/chat/llama@1")
    assert found is not None
    assert (found.manifest, found.tiers) == (new, ("nvme", "shared"))
    usable = node.store.newest("acme/chat/llama@1", usable=lambda one: one.id != new.id)
    assert usable is not None
    assert usable.manifest == old
    assert node.store.newest("acme/chat/llama@2") is None
    assert node.store.get(new.id) == found
    with pytest.raises(AgentError, match="no tier has snapshot 0000"):
        node.store.get("0" * 40)


def test_what_cannot_be_read_is_not_told_as_what_is_not_there(node: Node) -> None:
    snapshot = "0" * 40
    (node.nvme.root / "snapshots" / snapshot).mkdir()
    with pytest.raises(AgentError, match=r"manifest.json: cannot be read: No such file"):
        node.store.get(snapshot)


def test_last_copy_stays_unless_told(node: Node) -> None:
    snapshot = put(node.nvme, 1).id
    with pytest.raises(AgentError, match="tier nvme has the last copy"):
        node.store.evict(snapshot, "nvme", last_copy=False)
    node.store.sink(snapshot, "shared", keep=True)
    node.store.evict(snapshot, "nvme", last_copy=False)
    assert node.store.where(snapshot) == ("shared",)
    node.store.evict(snapshot, "shared", last_copy=True)
    assert node.store.where(snapshot) == ()


def test_all_copies_are_deleted_or_none_where_one_is_in_use(node: Node) -> None:
    snapshot = put(node.dram, 1).id
    node.store.sink(snapshot, "shared", keep=True)
    with node.shared.hold(snapshot, "pod-9", now_ns=0), pytest.raises(AgentError, match="pod-9"):
        node.store.delete(snapshot)
    assert node.store.where(snapshot) == ("dram", "shared")
    node.store.delete(snapshot)
    assert node.store.where(snapshot) == ()
    with pytest.raises(AgentError, match="no tier has snapshot"):
        node.store.delete(snapshot)


def three_on_nvme(node: Node) -> list[str]:
    """Fill NVMe with three snapshots that are in the shared store, too."""
    found = [put(node.nvme, seed, created_ns=10 * seed).id for seed in (1, 2, 3)]
    for snapshot in found:
        node.store.sink(snapshot, "shared", keep=True)
    return found


def test_room_is_made_of_what_was_used_least_recently(node: Node) -> None:
    first, second, third = three_on_nvme(node)
    assert node.store.make_room("nvme", 700) == ()
    node.nvme.hold(first, "pod", now_ns=99).release()
    assert node.store.make_room("nvme", 3_000) == (second,)
    assert node.require_sound()["nvme"] == {first, third}


def test_room_is_made_in_the_order_that_is_passed_in_and_of_nothing_else(node: Node) -> None:
    first, second, third = three_on_nvme(node)
    with pytest.raises(AgentError, match="do not fit"):
        node.store.make_room("nvme", 9_000, order=[third, "f" * 40, first])
    assert node.require_sound()["nvme"] == {first, second, third}
    assert node.store.make_room("nvme", 5_000, order=[third, first]) == (third, first)


def test_room_is_never_made_of_what_is_in_use_or_the_last_copy(node: Node) -> None:
    first, second, third = three_on_nvme(node)
    node.store.evict(second, "shared", last_copy=True)
    with node.nvme.hold(first, "pod", now_ns=0):
        with pytest.raises(AgentError, match="tier nvme: 5,000 bytes do not fit"):
            node.store.make_room("nvme", 5_000)
        assert node.require_sound()["nvme"] == {first, second, third}
        assert node.store.make_room("nvme", 3_000) == (third,)
        assert node.store.make_room("nvme", 6_000, last_copies=True) == (second,)
        with pytest.raises(AgentError, match="do not fit"):
            node.store.make_room("nvme", 9_000, last_copies=True)
    assert node.store.where(first) == ("nvme", "shared")


def test_two_that_make_room_at_once_never_remove_both_copies(tmp_path: Path) -> None:
    here = Node(tmp_path / "a", tmp_path / "shared")
    for seed in range(6):
        snapshot = put(here.nvme, seed).id
        here.store.sink(snapshot, "shared", keep=True)
        there = Node(tmp_path / "a", tmp_path / "shared")

        def evict(node: Node, name: TierName, snapshot: str = snapshot) -> int:
            try:
                node.store.evict(snapshot, name, last_copy=False)
            except AgentError:
                return 0
            return 1

        with ThreadPoolExecutor(2) as pool:
            gone = list(pool.map(evict, (here, there), ("nvme", "shared"), timeout=30))
        assert sum(gone) <= 1
        assert len(here.store.where(snapshot)) == 2 - sum(gone)
        here.store.delete(snapshot)


def test_two_nodes_that_sink_the_same_to_one_folder_make_one_snapshot(tmp_path: Path) -> None:
    nodes = [Node(tmp_path / name, tmp_path / "shared") for name in "abcd"]
    snapshots = [put(node.nvme, 7).id for node in nodes]

    def sink(node: Node) -> None:
        # All four reserve for what will be one; where that is too much at once, they ask again.
        retry(lambda: node.store.sink(snapshots[0], "shared", keep=True))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(sink, nodes, timeout=60))
    assert len(set(snapshots)) == 1
    for node in nodes:
        assert node.require_sound()["shared"] == set(snapshots)


def retry(call: Callable[[], object], times: int = 200) -> None:
    for _ in range(times):
        try:
            call()
        except AgentError as error:
            if "do not fit" not in str(error):
                raise
            time.sleep(0.01)
        else:
            return
    raise AssertionError


def test_threads_that_promote_the_same_copy_it_once(node: Node) -> None:
    snapshot = put(node.shared, 1, size_bytes=9_000).id
    copied: list[int] = []

    def promote(_: int) -> None:
        node.store.promote(snapshot, "dram", progress=lambda done, _: copied.append(done))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(promote, range(6), timeout=30))
    assert max(copied) == 9_100
    assert copied.count(9_100) == 1
    assert node.require_sound()["dram"] == {snapshot}


def test_store_of_a_configuration_has_its_tiers_from_warm_to_cold(tmp_path: Path) -> None:
    dram = FolderConfig(tier="dram", folder=tmp_path / "dram", budget_bytes=5)
    shared = FolderConfig(tier="shared", folder=tmp_path / "shared", budget_bytes=7)
    store = open_store([shared, dram])
    assert [(tier.name, tier.budget_bytes) for tier in store.tiers] == [("dram", 5), ("shared", 7)]
    assert set(store.recover()) == {"dram", "shared"}
    with pytest.raises(AgentError, match="tier dram is configured twice"):
        open_store([dram, dram])

"""The store against a model of sets: whatever is asked in whatever order, crashes included."""

import shutil
import tempfile
from pathlib import Path
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from snapshots import draft, fill, leftovers, put, require_sound

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderTier, Held, SnapshotStore, Staging
from inferx.exec.agent.store.tier import TierName

NAMES: Final[tuple[TierName, ...]] = ("dram", "nvme", "shared")
BUDGETS: Final = {"dram": 4_000, "nvme": 7_000, "shared": 12_000}
SIZES: Final = (900, 1_900, 2_900, 5_900)
"""Bytes of the snapshots that there are, less 100; the last fits DRAM never."""

seeds = st.integers(0, len(SIZES) - 1)
names = st.sampled_from(NAMES)


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="inferx-store-", dir="/dev/shm"))
        self.store = self.opened()
        self.there: dict[TierName, set[int]] = {name: set() for name in NAMES}
        self.ids: dict[int, str] = {}
        self.held: list[tuple[TierName, int, Held]] = []
        self.staging: list[tuple[TierName, int, Staging]] = []
        self.now_ns = 10_000
        self.used: dict[tuple[TierName, int], int] = {}

    def opened(self) -> SnapshotStore:
        return SnapshotStore(
            [FolderTier(name, self.root / name, budget_bytes=BUDGETS[name]) for name in NAMES]
        )

    def teardown(self) -> None:
        for _, _, held in self.held:
            held.release()
        for _, _, staging in self.staging:
            staging.abandon()
        shutil.rmtree(self.root)

    # -- what the model says ---
    def free(self, name: TierName) -> int:
        reserved = sum(SIZES[seed] + 100 for tier, seed, _ in self.staging if tier == name)
        return BUDGETS[name] - reserved - sum(SIZES[seed] + 100 for seed in self.there[name])

    def fits(self, name: TierName, seed: int) -> bool:
        return SIZES[seed] + 100 <= self.free(name)

    def in_use(self, name: TierName, seed: int) -> bool:
        return any((tier, one) == (name, seed) for tier, one, _ in self.held)

    def copies(self, seed: int) -> int:
        return sum(seed in there for there in self.there.values())

    def add(self, name: TierName, seed: int, used_ns: int) -> None:
        if seed not in self.there[name]:
            self.there[name].add(seed)
            self.used[name, seed] = used_ns

    def tier(self, name: TierName) -> FolderTier:
        tier = self.store.tier(name)
        assert isinstance(tier, FolderTier)
        return tier

    # -- what is done ---
    @rule(name=names, seed=seeds)
    def commit(self, name: TierName, seed: int) -> None:
        try:
            self.ids[seed] = put(self.tier(name), seed, size_bytes=SIZES[seed]).id
        except AgentError:
            assert not self.fits(name, seed)
        else:
            assert self.fits(name, seed)
            self.add(name, seed, 1_000)

    @rule(name=names, seed=seeds)
    def begin(self, name: TierName, seed: int) -> None:
        if not self.fits(name, seed):
            return
        staging = self.tier(name).begin(SIZES[seed] + 100)
        fill(staging.folder, seed, SIZES[seed])
        self.staging.append((name, seed, staging))

    @precondition(lambda self: self.staging)
    @rule(whole=st.booleans())
    def end(self, whole: bool) -> None:
        name, seed, staging = self.staging.pop()
        if whole:
            self.ids[seed] = staging.commit(draft()).id
            self.add(name, seed, 1_000)
        else:
            staging.abandon()

    @precondition(lambda self: self.ids)
    @rule(seed=seeds, place=st.integers(0, 2), keep=st.booleans(), up=st.booleans())
    def move(self, seed: int, place: int, keep: bool, up: bool) -> None:
        if seed not in self.ids:
            return
        name = NAMES[place]
        around = NAMES[place + 1 :] if up else NAMES[:place]
        source = next((one for one in around if seed in self.there[one]), None)
        here = seed in self.there[name]
        removed = [one for one in around if not up and not keep and seed in self.there[one]]
        possible = (here or (source is not None and self.fits(name, seed))) and not any(
            self.in_use(one, seed) for one in removed
        )
        try:
            if up:
                self.store.promote(self.ids[seed], name)
            else:
                self.store.sink(self.ids[seed], name, keep=keep)
        except AgentError:
            assert not possible
            return
        assert possible
        if source is not None:
            self.add(name, seed, self.used[source, seed])
        for one in removed:
            self.there[one].remove(seed)

    @precondition(lambda self: self.ids)
    @rule(seed=seeds)
    def delete(self, seed: int) -> None:
        if seed not in self.ids:
            return
        possible = self.copies(seed) and not any(self.in_use(one, seed) for one in NAMES)
        try:
            self.store.delete(self.ids[seed])
        except AgentError:
            assert not possible
            return
        assert possible
        for there in self.there.values():
            there.discard(seed)

    @precondition(lambda self: self.ids)
    @rule(name=names, seed=seeds)
    def hold(self, name: TierName, seed: int) -> None:
        if seed in self.there[name]:
            self.now_ns += 1
            held = self.tier(name).hold(self.ids[seed], "pod", now_ns=self.now_ns)
            self.held.append((name, seed, held))
            self.used[name, seed] = self.now_ns

    @precondition(lambda self: self.held)
    @rule()
    def release(self) -> None:
        self.held.pop(0)[2].release()

    @rule(name=names, seed=seeds, last=st.booleans())
    def make_room(self, name: TierName, seed: int, last: bool) -> None:
        size_bytes = SIZES[seed] + 100
        free, gone = self.free(name), []
        for one in sorted(self.there[name], key=lambda one: (self.used[name, one], self.ids[one])):
            if free >= size_bytes:
                break
            if not self.in_use(name, one) and (last or self.copies(one) > 1):
                gone.append(one)
                free += SIZES[one] + 100
        try:
            found = self.store.make_room(name, size_bytes, last_copies=last)
        except AgentError:
            assert free < size_bytes
            return
        assert free >= size_bytes
        assert list(found) == [self.ids[one] for one in gone]
        self.there[name] -= set(gone)

    @rule()
    def crash(self) -> None:
        """End as a process does: its locks are gone, and nothing is cleaned up."""
        for _, _, held in self.held:
            held.release()
        for _, _, staging in self.staging:
            staging._lock.release()
        self.held, self.staging = [], []
        (self.root / "nvme" / "deleted" / "half").mkdir()
        self.store = self.opened()
        for recovery in self.store.recover().values():
            assert recovery.unreadable == ()

    # -- what is always so ---
    @invariant()
    def tiers_have_what_the_model_has(self) -> None:
        for name in NAMES:
            tier = self.tier(name)
            assert require_sound(tier) == {self.ids[seed] for seed in self.there[name]}
            assert tier.used_bytes() == BUDGETS[name] - self.free(name) <= BUDGETS[name]
            staged = [one for one in self.staging if one[0] == name]
            assert len(leftovers(tier.root)) == len(staged)


TestModel = Model.TestCase
TestModel.settings = settings(stateful_step_count=25)

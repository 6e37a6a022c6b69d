"""All tiers of a node: what is where, moved up and down, and removed when room is needed.

Laws: a snapshot in use is never removed, and its last copy only when told to. While a copy is
removed because there is another, that other is held: so two that make room at the same time, on two
tiers or two nodes, cannot each remove the copy that the other one counts on.
"""

from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from threading import Condition, Event
from typing import Final

import msgspec

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.checksum import Watch
from inferx.exec.agent.store.manifest import Manifest, check_id
from inferx.exec.agent.store.tier import Hold, Recovery, Tier, TierName
from inferx.exec.agent.store.victims import choose_victims

__all__ = ["Found", "SnapshotStore"]

_MOVER: Final = "a copy being removed elsewhere"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot and the tiers that have it, the warmest first."""

    manifest: Manifest
    tiers: tuple[TierName, ...]


class SnapshotStore:
    """Snapshots on tiers, given from the warmest to the coldest; for any number of threads."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = tuple(tiers)
        self._busy: set[tuple[TierName, str]] = set()
        self._idle = Condition()
        names = [tier.name for tier in self._tiers]
        assert len(set(names)) == len(names), f"a tier twice: {names}"

    @property
    def tiers(self) -> Sequence[Tier]:
        """All tiers, the warmest first."""
        return self._tiers

    def tier(self, name: TierName) -> Tier:
        """Return a tier by name."""
        for tier in self._tiers:
            if tier.name == name:
                return tier
        known = ", ".join(tier.name for tier in self._tiers)
        raise AgentError(f"this node has no tier {name}; it has {known}", phase="get")

    def recover(self) -> dict[TierName, Recovery]:
        """Remove what crashes have left on all tiers; for the start."""
        return {tier.name: tier.recover() for tier in self._tiers}

    # -- looking ---
    def everything(self, *, tiers: Collection[TierName] | None = None) -> list[Found]:
        """Return all snapshots, by function, then age, oldest first; with `tiers`, of these."""
        manifests: dict[str, Manifest] = {}
        there: dict[str, list[TierName]] = {}
        for tier in self._named(tiers):
            for manifest in tier.contents().manifests:
                manifests.setdefault(manifest.id, manifest)
                there.setdefault(manifest.id, []).append(tier.name)
        found = sorted(manifests.values(), key=lambda one: (one.function, one.created_ns, one.id))
        return [Found(manifest=one, tiers=tuple(there[one.id])) for one in found]

    def unreadable(self) -> list[str]:
        """Return a line for each snapshot that is there and cannot be used."""
        return [line for tier in self._tiers for line in tier.contents().unreadable]

    def _named(self, names: Collection[TierName] | None) -> list[Tier]:
        return [tier for tier in self._tiers if names is None or tier.name in names]

    def warmest(self, snapshot: str, tiers: Collection[TierName]) -> Tier | None:
        """Return the warmest of these tiers that has a snapshot; colder ones are not asked."""
        check_id(snapshot)
        return next((tier for tier in self._named(tiers) if tier.has(snapshot)), None)

    def where(self, snapshot: str) -> tuple[TierName, ...]:
        """Return the tiers that have a snapshot, the warmest first."""
        check_id(snapshot)
        return tuple(tier.name for tier in self._tiers if tier.has(snapshot))

    def get(self, snapshot: str) -> Found:
        """Return a snapshot by id.

        Raises:
            AgentError: No tier has it; or what one has of it cannot be read, and why.
        """
        tiers = self.where(snapshot)
        if not tiers:
            for tier in self._tiers:
                if tier.has_any(snapshot):
                    return Found(manifest=tier.get(snapshot), tiers=(tier.name,))
            raise AgentError(f"no tier has snapshot {snapshot}", phase="get")
        return Found(manifest=self.tier(tiers[0]).get(snapshot), tiers=tiers)

    def newest(
        self,
        function: str,
        *,
        usable: Callable[[Manifest], bool] = lambda _: True,
        tiers: Collection[TierName] | None = None,
    ) -> Found | None:
        """Return a function's newest snapshot that is usable; of two made at once, one id's.

        With `tiers`, one that is on one of them; others are not looked at.
        """
        found = [
            one
            for one in self.everything(tiers=tiers)
            if one.manifest.function == function and usable(one.manifest)
        ]
        return found[-1] if found else None

    def hold(
        self,
        snapshot: str,
        holder: str,
        *,
        now_ns: int,
        tiers: Collection[TierName] | None = None,
    ) -> tuple[Tier, Hold]:
        """Use the warmest copy of a snapshot, until it is released or this process ends.

        With `tiers`, a copy on one of them. Colder ones than the one that is found are not asked.
        """
        for tier in self._named(tiers):
            if not tier.has(snapshot):
                continue
            try:
                return tier, tier.hold(snapshot, holder, now_ns=now_ns)
            except AgentError:
                if tier.has(snapshot):
                    raise
        where = "no tier has" if tiers is None else f"neither of {', '.join(tiers)} has"
        raise AgentError(f"{where} snapshot {snapshot}", phase="hold")

    # -- moving ---
    def promote(
        self,
        snapshot: str,
        to: TierName,
        *,
        progress: Callable[[int, int], None] | None = None,
        cancel: Event | None = None,
    ) -> None:
        """Copy a snapshot to a warmer tier; there already is fine.

        Args:
            snapshot: Which.
            to: The tier.
            progress: Called with bytes done and in all.
            cancel: Ends it when set; nothing is left of it.

        Raises:
            AgentError: It is nowhere, would not fit (known before anything is written), what was
                read is not what was written, or cancelled.
        """
        target = self.tier(to)
        colder = self._tiers[self._tiers.index(target) + 1 :]
        self._copy(snapshot, target, colder, progress, cancel)

    def sink(
        self,
        snapshot: str,
        to: TierName,
        *,
        keep: bool,
        progress: Callable[[int, int], None] | None = None,
        cancel: Event | None = None,
    ) -> None:
        """Copy a snapshot to a colder tier and, unless `keep`, remove it from all warmer ones.

        Raises:
            AgentError: As `promote`, and where a copy that is to be removed is in use.
        """
        target = self.tier(to)
        warmer = self._tiers[: self._tiers.index(target)]
        if not keep:
            self._require_idle(snapshot, warmer)
        self._copy(snapshot, target, warmer, progress, cancel)
        if not keep:
            for tier in warmer:
                if tier.has(snapshot):
                    self.evict(snapshot, tier.name, last_copy=False)

    def _copy(
        self,
        snapshot: str,
        target: Tier,
        sources: Sequence[Tier],
        progress: Callable[[int, int], None] | None,
        cancel: Event | None,
    ) -> None:
        with self._alone(target.name, check_id(snapshot)):
            if target.has(snapshot):
                return
            source = next((tier for tier in sources if tier.has(snapshot)), None)
            if source is None:
                names = " or ".join(tier.name for tier in sources) or "a tier beside it"
                msg = f"cannot copy {snapshot} to tier {target.name}: it is not on {names}"
                raise AgentError(msg, phase="get")
            manifest = source.get(snapshot)
            target.take(manifest, source, Watch(manifest.size_bytes, progress, cancel))

    @contextmanager
    def _alone(self, name: TierName, snapshot: str) -> Generator[None]:
        """Let one thread bring a snapshot to a tier; others wait, and then find it there."""
        key = (name, snapshot)
        with self._idle:
            self._idle.wait_for(lambda: key not in self._busy)
            self._busy.add(key)
        try:
            yield
        finally:
            with self._idle:
                self._busy.remove(key)
                self._idle.notify_all()

    # -- removing ---
    def delete(self, snapshot: str) -> tuple[TierName, ...]:
        """Remove all copies of a snapshot, or none where one is in use.

        Returns:
            The tiers that had it; copies with a manifest that cannot be read are removed, too.

        Raises:
            AgentError: In use, or nowhere.
        """
        self._require_idle(snapshot, self._tiers)
        holding = [tier for tier in self._tiers if tier.has_any(snapshot)]
        if not holding:
            raise AgentError(f"no tier has snapshot {snapshot}", phase="delete")
        for tier in holding:
            tier.delete(snapshot)
        return tuple(tier.name for tier in holding)

    def evict(self, snapshot: str, name: TierName, *, last_copy: bool) -> None:
        """Remove the copy of one tier; the last one only with `last_copy`.

        Raises:
            AgentError: In use, not there, or the last.
        """
        tier = self.tier(name)
        if last_copy:
            tier.delete(snapshot)
            return
        with self._other_copy(snapshot, tier):
            tier.delete(snapshot)

    @contextmanager
    def _other_copy(self, snapshot: str, but: Tier) -> Generator[None]:
        """Hold a copy on another tier."""
        for tier in reversed(self._tiers):
            if tier is but or not tier.has(snapshot):
                continue
            with tier.hold(snapshot, _MOVER, now_ns=0):
                yield
            return
        msg = f"tier {but.name} has the last copy of {snapshot}"
        raise AgentError(msg, phase="delete")

    def make_room(
        self,
        name: TierName,
        size_bytes: int,
        *,
        order: Sequence[str] | None = None,
        last_copies: bool = False,
    ) -> tuple[str, ...]:
        """Remove snapshots from a tier until so many bytes fit.

        Args:
            name: The tier.
            size_bytes: What is to fit.
            order: Which may go, the first one first; None is all of them, the least recently used
                first.
            last_copies: Whether copies may go that are the last.

        Returns:
            What is gone; nothing where there is room.

        Raises:
            AgentError: It would not fit even so; then nothing is removed. Or what could have gone
                came into use meanwhile.
        """
        tier = self.tier(name)

        def may_go(snapshot: str) -> bool:
            return last_copies or self.where(snapshot) != (name,)

        victims = choose_victims(tier, size_bytes, order, may_go)
        gone: list[str] = []
        for victim in victims:
            try:
                self.evict(victim, name, last_copy=last_copies)
            except AgentError:
                # In use since, or its other copy went: whether it matters is told below.
                if tier.has(victim):
                    continue
            gone.append(victim)
        tier.require_room(size_bytes)
        return tuple(gone)

    def _require_idle(self, snapshot: str, tiers: Sequence[Tier]) -> None:
        for tier in tiers:
            if users := tier.users(check_id(snapshot)):
                msg = f"tier {tier.name}: {snapshot} is in use by {', '.join(users)}"
                raise AgentError(msg, phase="delete")

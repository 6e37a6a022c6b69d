"""Carries out what the agent machine decided, on this node; and finds again what ran before it.

A start finds three kinds of pods. Those that nothing was being done to are adopted as they are. One
that was being suspended or snapshotted is asked where its GPU state is, and brought back to what it
was; where that fails it is killed. One whose start, restore, resume or
stop was cut short is killed: half a restore is never gone on with.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from inferx.core.commands import (
    Copy,
    Create,
    Drop,
    NodeCommand,
    Restore,
    Resume,
    Snapshot,
    Stop,
    Suspend,
)
from inferx.core.events import FoundPod
from inferx.core.types import FunctionId, GpuId, PodId, Tier
from inferx.exec.agent.freezing import Freezing
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pod import Pod
from inferx.exec.agent.pod_records import PodRecord
from inferx.exec.agent.pods import Pods
from inferx.exec.agent.ports import AgentError, Live
from inferx.exec.agent.store import SnapshotStore, TierName
from inferx.exec.logs import function_ids, ids

__all__ = ["Executor", "Recovered"]

_TIER: dict[Tier, TierName] = {Tier.DRAM: "dram", Tier.NVME: "nvme", Tier.REMOTE: "shared"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a start found.

    Attributes:
        adopted: Pods that go on, suspended ones included.
        killed: Pods that were in the middle of something.
        stuck: Pods that were to be killed and are there still.
        leftovers: Half-written and half-deleted snapshots that were removed.
        unreadable: Snapshots that are there and cannot be used, a line for each.
    """

    adopted: tuple[int, ...]
    killed: tuple[int, ...]
    stuck: tuple[int, ...]
    leftovers: int
    unreadable: tuple[str, ...]


class Executor:
    """Does one command at a time on one pod; on different ones at once."""

    def __init__(self, pods: Pods) -> None:
        self.pods = pods
        self.freezing = Freezing(pods)

    def perform(self, command: NodeCommand, phases: Phases) -> None:
        """Do what a command says.

        Raises:
            AgentError: It could not be done; then the pod is gone, as the scheduler expects, or is
                there still because it could not be ended (`stays`).
        """
        try:
            self._perform(command, phases)
        except AgentError as error:
            if not isinstance(command, Copy | Drop | Stop):
                # The scheduler takes a failure for the pod's end, whatever could be saved of it.
                try:
                    self.pods.stop(command.pod)
                    error.stays = False
                except AgentError as failed:
                    error.stays = True
                    error.add_note(f"and it could not be ended: {failed}")
            raise

    def _perform(self, command: NodeCommand, phases: Phases) -> None:
        pods, freezing = self.pods, self.freezing
        match command:
            case Create():
                pods.create(command.pod, command.function, command.gpus, phases)
            case Restore():
                freezing.restore(
                    command.pod,
                    command.function,
                    command.gpus,
                    phases,
                    coldest=_TIER[command.source],
                    keep=command.keep,
                )
            case Resume():
                pods.resume(command.pod, command.gpus, phases)
            case Suspend():
                pods.suspend(command.pod, phases)
            case Snapshot():
                freezing.snapshot(command.pod, phases, leave=command.leave)
            case Stop():
                with phases.step("stop"):
                    pods.stop(command.pod)
            case Copy():
                with phases.step("copy"):
                    self._copy(command.function, _TIER[command.source], _TIER[command.target])
            case Drop():
                with phases.step("drop"):
                    self._drop(command.function, _TIER[command.tier])

    def _copy(self, function: FunctionId, source: TierName, target: TierName) -> None:
        store = self.pods.node.store
        name = self.pods.function(function).launch.function
        found = store.newest(name)
        if found is None or source not in found.tiers:
            raise AgentError(f"no snapshot of {name} on tier {source}")
        snapshot = found.manifest.id
        names = [tier.name for tier in store.tiers]
        if target not in names:
            raise AgentError(f"this node has no tier {target}; its tiers are {', '.join(names)}")
        if names.index(target) < names.index(source):
            store.make_room(target, found.manifest.size_bytes)
            store.promote(snapshot, target)
        else:
            store.sink(snapshot, target, keep=True)

    def _drop(self, function: FunctionId, tier: TierName) -> None:
        store = self.pods.node.store
        name = self.pods.function(function).launch.function
        # What nobody needs any more is not to be in use.
        self.pods.pages.look()
        for found in store.everything():
            if found.manifest.function == name and tier in found.tiers:
                self._evict(store, found.manifest.id, tier)

    @staticmethod
    def _evict(store: SnapshotStore, snapshot: str, tier: TierName) -> None:
        try:
            store.evict(snapshot, tier, last_copy=True)
        except AgentError as error:
            if tier in store.where(snapshot):
                raise
            # It is no snapshot any more; what is left of its files goes at the next start.
            _log.warning("%s", error)

    # -- after a restart ---
    def recover(self) -> Recovered:
        """Adopt what runs, end what was in the middle of something, remove what is left over.

        To be called before the first command.

        Raises:
            AgentError: Pods of before hold GPUs, and no GPU can be seen: they are left as they are.
        """
        pods, node = self.pods, self.pods.node
        records, empty = pods.records.read()
        live = {one.pod: one for one in node.sandbox.live()}
        self._require_gpus([one for one in records if pods.records.name(one.pod) in live])
        adopted: list[int] = []
        killed: list[int] = []
        for record in records:
            there = live.get(pods.records.name(record.pod))
            if there is not None and self._adopt(record, there):
                adopted.append(record.pod)
            else:
                # What it holds is nobody else's before it has ended.
                pods.begin(record)
                pods.room.adopt(record.pod, record.slices)
                killed.append(record.pod)
        for pod in empty:
            pods.stop(PodId(pod))
        stuck = [pod for pod in killed if not self._ended(pod)]
        names = frozenset(pods.records.name(pod) for pod in (*adopted, *stuck))
        for name in node.sandbox.traces():
            if name not in names:
                node.sandbox.stop(name)
        node.network.recover(names)
        tiers = node.store.recover().values()
        return Recovered(
            tuple(adopted),
            tuple(pod for pod in killed if pod not in stuck),
            tuple(stuck),
            sum(tier.removed for tier in tiers),
            tuple(line for tier in tiers for line in tier.unreadable),
        )

    def _require_gpus(self, records: Sequence[PodRecord]) -> None:
        """Raise where GPUs that cannot be seen would be taken for GPUs that are lost."""
        holders = sum(1 for record in records if record.slices)
        if holders and not self.pods.room.gpus():
            told = self.pods.node.capabilities
            why = "; ".join(
                f"{one.name}: {one.reason}" for one in told if one.name.startswith("gpu/")
            )
            raise AgentError(
                f"{holders} pods hold GPUs, and no GPU can be seen ({why}); expected theirs:"
                " mend that, or end them by `inferx agent end`",
                phase="recover",
            )

    def _ended(self, pod: int) -> bool:
        """End a pod that is not to go on; tell whether it could be."""
        try:
            self.pods.stop(PodId(pod))
        except AgentError as error:
            _log.warning("pod %s cannot be ended: %s", pod, error, extra=ids(pod=pod))
            return False
        return True

    def _adopt(self, record: PodRecord, live: Live) -> bool:
        if record.state in {"creating", "restoring", "resuming", "stopping"}:
            return False
        try:
            record = self._numbered(record)
            cut_short = record.state in {"suspending", "snapshotting"}
            if cut_short:
                record = replace(record, state=record.before, before="")
            one = Pod(record, self.pods.spec_of(record), live)
            self.pods.pages.adopt(one)
            if cut_short:
                self.pods.moving.settle(one)
            elif record.state == "ready":
                # It may have been throttled.
                self.pods.node.sandbox.thaw(one.spec.pod)
            self.pods.room.adopt(record.pod, record.slices)
            self.pods.keep(one)
        except AgentError as error:
            _log.warning(
                "pod %s cannot be adopted: %s",
                record.pod,
                error,
                extra=ids(pod=record.pod, **function_ids(record.named)),
            )
            return False
        return True

    def _numbered(self, record: PodRecord) -> PodRecord:
        """Return a record with the number that its function has now: files come and go."""
        known = self.pods.functions.values()
        found = [one.id for one in known if one.launch.function == record.named]
        if not found:
            raise AgentError(f"{record.named} is no function of this node any more", phase="adopt")
        return replace(record, function=found[0])

    def running(self) -> Sequence[FoundPod]:
        """Return all pods that have been started, as a node tells them when it joins.

        Their GPUs are told as they are numbered now: one that is gone is still counted as it was.
        """
        now = {gpu.uuid: gpu.index for gpu in self.pods.room.gpus()}
        told = {"standby": "suspended", "stopping": "stuck"}
        records = [*(one.record for one in self.pods.all()), *self.pods.stuck()]
        return [
            FoundPod(
                PodId(record.pod),
                FunctionId(record.function),
                tuple(
                    GpuId(now.get(part.gpu, then))
                    for part, then in zip(record.slices, record.gpus, strict=True)
                ),
                told.get(record.state, "ready"),
            )
            for record in records
        ]

    def on_disk(self) -> Sequence[FunctionId]:
        """Return the functions of which this node's disk has a snapshot."""
        there = {
            found.manifest.function
            for found in self.pods.node.store.everything(tiers=("dram", "nvme"))
        }
        known = self.pods.functions.values()
        return [one.id for one in known if one.launch.function in there]

"""Snapshots of pods: taken, and restored; each step timed, each failure undone.

Taken: quiesce, room, lock, checkpoint, verify, dump, commit; then the pod goes on, or stop.
Restored: fit, verify, reserve, network, restore, onto the GPUs, unlock, wake, health.

Every byte is verified before every restore: what a disk did to a page of memory would be met long
after, and by nobody who could tell why.
"""

import contextlib
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from inferx.core.types import FunctionId, GpuId, PodId
from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.fetching import newest_within, reading
from inferx.exec.agent.lazy_pages import telling
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pod import Pod, untouched
from inferx.exec.agent.pods import Pods
from inferx.exec.agent.ports import AgentError, SliceShape
from inferx.exec.agent.snapshot_platform import platform_of
from inferx.exec.agent.store import (
    Draft,
    FolderTier,
    Found,
    Held,
    Manifest,
    Phase,
    Sizes,
    TierName,
    Watch,
    require_fit,
)
from inferx.exec.agent.store.checksum import faults

__all__ = ["Freezing"]


class Freezing:
    """Takes and restores snapshots of this node's pods."""

    def __init__(self, pods: Pods) -> None:
        self.pods = pods
        self._node = pods.node

    def snapshot(
        self,
        pod: PodId,
        phases: Phases,
        *,
        leave: bool,
        to: TierName = "nvme",
        keep_connections: bool = False,
    ) -> Manifest:
        """Write a pod's state to a tier; with `leave` the pod has ended after.

        With `keep_connections` its clients wait for one restore that keeps them, too.

        Raises:
            AgentError: It could not be; `survived` says whether the pod goes on.
        """
        pods, sandbox = self.pods, self._node.sandbox
        one = pods.get(pod)
        name, was_ready = one.spec.pod, one.record.state == "ready"
        with untouched():
            one.require("ready", "standby")
            deployed = pods.function(FunctionId(one.record.function))
            with phases.step("share"):
                pods.moving.check_share(one)
                # Asked before anything moves: a pod that cannot be written is not disturbed.
                self.require_writing(name)
                if keep_connections and one.record.network:
                    # Its namespace goes with the pod; what is restored has another.
                    text = f"{name}: connections can be kept on the host's network only"
                    raise AgentError(text)
            tier = self._tier(to)
            pods.pages.await_whole(one, phases)
            # Asked while there is something to ask: a pod that leaves is gone after its dump.
            image_digest = sandbox.digest_of(name)
        with pods.changing(one, "snapshotting"):
            pids = pods.moving.quiet(one, phases) if was_ready else []
            held = pods.moving.device_bytes(pids) if was_ready else one.record.device_bytes
            with phases.step("room"):
                # What is suspended is in its host memory already.
                staging = tier.begin(sandbox.memory_bytes(name) + (held if was_ready else 0))
            with staging:
                if was_ready:
                    pods.moving.to_host(one, pids, held, phases)
                else:
                    with phases.step("thaw"):
                        sandbox.thaw(name)
                host = sandbox.memory_bytes(name)
                with phases.step("dump", host):
                    self._node.snapshotter.dump(
                        one.spec,
                        one.live,
                        staging.folder,
                        leave=leave,
                        keep_connections=keep_connections,
                    )
                with phases.step("commit", host):
                    sizes = Sizes(device_bytes=held, host_bytes=host)
                    draft = self._draft(one, deployed, sizes, phases, image_digest)
                    manifest = staging.commit(draft)
            if not leave:
                record = replace(one.record, device_bytes=held)
                self._go_on(Pod(record, one.spec, one.live), phases)
        if leave:
            with phases.step("stop"):
                self._end_written(pod, manifest, tier)
        return manifest

    def require_writing(self, pod: str) -> None:
        """Raise where no pod of this node can be written to files."""
        if refuses := self._node.snapshotter.refuses:
            raise AgentError(f"pod {pod}: cannot be dumped: {refuses}", phase="dump")

    def _end_written(self, pod: PodId, manifest: Manifest, tier: FolderTier) -> None:
        """End a pod that was written; without its end there is no snapshot that was asked for."""
        try:
            self.pods.stop(pod)
        except AgentError as error:
            try:
                tier.delete(manifest.id)
            except AgentError as failed:
                error.add_note(f"and its snapshot is there: {failed}")
            raise

    def _go_on(self, one: Pod, phases: Phases) -> None:
        """Have a pod be again what it was before it was written."""
        if one.record.state == "ready":
            self.pods.moving.onto_gpus(one, one.record.slices, phases)
            self.pods.moving.wake(one, phases)
        else:
            with phases.step("freeze"):
                self._node.sandbox.freeze(one.spec.pod)
        self.pods.keep(one)

    def restore(
        self,
        pod: PodId,
        function: FunctionId,
        gpus: Sequence[GpuId],
        phases: Phases,
        *,
        snapshot: str = "",
        coldest: TierName | None = None,
        keep: bool = False,
        keep_connections: bool = False,
        lazy: bool | None = None,
    ) -> Pod:
        """Bring a pod back from a function's newest snapshot, or from a certain one.

        Without GPUs it ends suspended.

        Args:
            pod: The pod to be.
            function: Its function.
            gpus: Its GPUs.
            phases: Takes the steps' times.
            snapshot: Which snapshot; empty is the newest.
            coldest: Tier to read from, or a warmer one; None is any.
            keep: Whether a copy of what is only in the shared store stays on the node's disk.
            keep_connections: Go on with connections that the dump has kept.
            lazy: Whether it runs before its pages are there; None is where that pays.

        Raises:
            AgentError: It could not be; nothing is left of it.
        """
        pods, node = self.pods, self._node
        deployed = pods.function(function)
        slices = pods.slices(deployed, gpus)
        name = pods.records.name(pod)
        with phases.step("fit"):
            found = self._find(deployed, slices, snapshot, coldest)
        manifest = found.manifest
        with phases.step("host-memory"):
            launch, size_bytes = deployed.launch, manifest.sizes.host_bytes
            promise = pods.host_room.for_restore(name, launch, size_bytes)
        kept = contextlib.ExitStack()
        kept.enter_context(promise)
        now_ns = time.time_ns()
        with (
            kept,
            reading(
                node.store, found, name, phases, kept, now_ns=now_ns, coldest=coldest, keep=keep
            ) as (tier, held),
            self._verified(held, phases),
            pods.entering(
                pod,
                function,
                gpus,
                "restoring",
                phases,
                needs_bytes=manifest.sizes.device_bytes,
                snapshot=manifest.id,
                # What was checked, for the image's name may be moved to another.
                image_digest=manifest.platform.image_digest,
            ) as (spec, record),
            telling(name, pods.records.folder(pod)),
        ):
            serves = bool(gpus) or not deployed.spec.gpus
            if lazy is None:
                # What is to lie suspended is in no hurry.
                lazy = serves and pods.pages.pays(manifest, tier.name)
            with phases.step("restore", manifest.size_bytes):
                live = node.snapshotter.restore(
                    spec, held.folder, lazy=lazy, keep_connections=keep_connections
                )
            if lazy:
                kept.enter_context(tier.hold(manifest.id, name, now_ns=0))
                pods.pages.hold(name, spec.folder, kept.pop_all())
            else:
                # All of it is in the pod's cgroup now.
                promise.release()
            made = replace(
                record,
                built_on=tuple(gpu.uuid for gpu in manifest.platform.gpus),
                built_among=manifest.platform.node_gpus,
                device_bytes=manifest.sizes.device_bytes,
            )
            one = Pod(made, spec, live)
            if serves:
                onto = pods.moving.onto_gpus(one, slices, phases)
                pods.moving.wake(one, phases)
                one.record = replace(one.record, state="ready", built_on=onto, built_among=())
            else:
                with phases.step("freeze"):
                    node.sandbox.freeze(spec.pod)
                one.record = replace(one.record, state="standby")
            pods.keep(one)
        return one

    def _find(
        self,
        deployed: Deployed,
        slices: tuple[SliceShape, ...],
        snapshot: str,
        coldest: TierName | None,
    ) -> Found:
        node, store = self._node, self._node.store
        digest = node.sandbox.image_digest(deployed.launch)
        onto = tuple(shape.gpu for shape in slices)
        platform = platform_of(self.pods, deployed, onto, digest)
        if snapshot:
            found = store.get(snapshot)
        else:
            found = newest_within(store, deployed.launch.function, coldest)
        manifest = found.manifest
        writer, reader = manifest.snapshotter, node.snapshotter.name
        if writer != reader:
            reads = f"none: {refuses}" if (refuses := node.snapshotter.refuses) else f"{reader}'s"
            text = f"snapshot {manifest.id} was written by {writer}; this node reads {reads}"
            raise AgentError(text, phase="fit")
        if not slices:
            # Its GPUs are chosen when it is resumed.
            platform = replace(platform, gpus=manifest.platform.gpus)
        require_fit(manifest, platform)
        if slices and manifest.platform.gpus:
            built_on = tuple(gpu.uuid for gpu in manifest.platform.gpus)
            self.pods.moving.moves(manifest.platform.node_gpus, built_on, onto)
        return found

    @contextmanager
    def _verified(self, held: Held, phases: Phases) -> Generator[None]:
        """Read all of a snapshot that is held, which also has it in memory for who comes next."""
        with phases.step("verify", held.manifest.size_bytes):
            if wrong := faults(held.folder, held.manifest, Watch()):
                more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
                raise AgentError(f"snapshot {held.manifest.id} is damaged: {wrong[0]}{more}")
        yield

    def _tier(self, name: TierName) -> FolderTier:
        tier = self._node.store.tier(name)
        if not isinstance(tier, FolderTier):
            raise AgentError(f"tier {name} cannot be written to from here", phase="room")
        return tier

    def _draft(
        self, one: Pod, deployed: Deployed, sizes: Sizes, phases: Phases, image_digest: str
    ) -> Draft:
        slices = one.record.slices
        gpus = tuple(shape.gpu for shape in slices) or one.record.built_on
        among = one.record.built_among
        return Draft(
            function=one.record.named,
            created_ns=time.time_ns(),
            snapshotter=self._node.snapshotter.name,
            platform=platform_of(self.pods, deployed, gpus, image_digest, among=among),
            sizes=sizes,
            phases=tuple(
                Phase(name=step.phase, duration_ns=step.duration_ns) for step in phases.as_tuple()
            ),
        )

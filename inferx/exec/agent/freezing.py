"""Snapshots of pods: taken, and restored; each step timed, each failure undone.

Taken: quiesce, lock, checkpoint, verify, dump, commit; then the pod goes on, or has ended.
Restored: fit, reserve, network, restore, onto the GPUs, unlock, wake, health.
"""

import hashlib
import time
from collections.abc import Sequence

from msgspec.structs import replace

from inferx.core.types import FunctionId, GpuId, PodId
from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.host_room import require_host_room
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pods import Pod, Pods
from inferx.exec.agent.ports import AgentError, Launch, SliceShape
from inferx.exec.agent.share import check_checkpointable
from inferx.exec.agent.store import (
    Draft,
    FolderTier,
    GpuModel,
    Manifest,
    Phase,
    Platform,
    Sizes,
    TierName,
    require_fit,
)

__all__ = ["Freezing", "command_digest"]


def command_digest(launch: Launch) -> str:
    """Return a digest of all that a pod was told at its start: a restored one was told the same."""
    told = (launch.command, launch.env, launch.mounts, launch.cwd, launch.image)
    return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()


class Freezing:
    """Takes and restores snapshots of this node's pods."""

    def __init__(self, pods: Pods) -> None:
        self.pods = pods
        self._node = pods.node

    def snapshot(
        self, pod: PodId, phases: Phases, *, leave: bool, to: TierName = "nvme"
    ) -> Manifest:
        """Write a pod's state to a tier; with `leave` the pod has ended after.

        Raises:
            AgentError: It could not be; `survived` says whether the pod goes on.
        """
        pods, node = self.pods, self._node
        one = pods.get(pod)
        deployed = pods.function(FunctionId(one.record.function))
        was_ready = one.record.state == "ready"
        with phases.step("share"):
            check_checkpointable(node.shares[deployed.spec.enforcement], one.record.named)
        with pods.changing(one, "snapshotting"):
            pids = pods.quiet(one, phases)
            held = pods.device_bytes(pids) if was_ready else one.record.device_bytes
            if was_ready and pids:
                with phases.step("host-memory"):
                    require_host_room(node.sandbox, one.spec, held)
                pods.gpu_state.to_host(pids, phases, moved_bytes=held)
            try:
                manifest = self._write(one, deployed, held, phases, leave=leave, to=to)
            except AgentError:
                if was_ready and pids:
                    # To its own GPUs, whose room it never gave back.
                    pods.onto_gpus(one, one.record.slices, Phases())
                raise
            if not leave:
                if was_ready and pids:
                    pods.onto_gpus(replace_device(one, held), one.record.slices, phases)
                if was_ready:
                    pods.wake(one, phases)
        if leave:
            pods.stop(pod)
        else:
            pods.keep(Pod(replace(one.record, device_bytes=held), one.spec, one.live))
        return manifest

    def restore(
        self,
        pod: PodId,
        function: FunctionId,
        gpus: Sequence[GpuId],
        phases: Phases,
        *,
        snapshot: str = "",
    ) -> Pod:
        """Bring a pod back from a function's newest snapshot, or from a certain one.

        Without GPUs it ends suspended.
        """
        pods, node = self.pods, self._node
        deployed = pods.function(function)
        slices = pods.slices(deployed, gpus)
        with phases.step("fit"):
            manifest = self._find(deployed, slices, snapshot)
        _, held = node.store.hold(manifest.id, pods.records.name(pod), now_ns=time.time_ns())
        with (
            held,
            pods.entering(
                pod,
                function,
                gpus,
                "restoring",
                phases,
                needs_bytes=manifest.sizes.device_bytes,
                snapshot=manifest.id,
            ) as (spec, record),
        ):
            with phases.step("restore", manifest.size_bytes):
                live = node.snapshotter.restore(spec, held.folder)
            built_on = tuple(gpu.uuid for gpu in manifest.platform.gpus)
            device_bytes = manifest.sizes.device_bytes
            one = Pod(replace(record, built_on=built_on, device_bytes=device_bytes), spec, live)
            if gpus or not deployed.spec.gpus:
                onto = pods.onto_gpus(one, slices, phases)
                pods.wake(one, phases)
                one.record = replace(one.record, state="ready", built_on=onto)
            else:
                with phases.step("freeze"):
                    node.sandbox.freeze(spec.pod)
                one.record = replace(one.record, state="standby")
            pods.keep(one)
        return one

    def _find(self, deployed: Deployed, slices: tuple[SliceShape, ...], snapshot: str) -> Manifest:
        platform = self._platform(deployed, slices)
        if snapshot:
            manifest = self._node.store.get(snapshot).manifest
        else:
            found = self._node.store.newest(deployed.launch.function)
            if found is None:
                raise AgentError(f"no snapshot of {deployed.launch.function} on this node")
            manifest = found.manifest
        writer, reader = manifest.snapshotter, self._node.snapshotter.name
        if writer != reader:
            text = f"snapshot {manifest.id} was written by {writer}; this node reads {reader}'s"
            raise AgentError(text, phase="fit")
        if not slices:
            # Its GPUs are chosen when it is resumed.
            platform = replace(platform, gpus=manifest.platform.gpus)
        require_fit(manifest, platform)
        return manifest

    def _write(
        self, one: Pod, deployed: Deployed, held: int, phases: Phases, *, leave: bool, to: TierName
    ) -> Manifest:
        node, name = self._node, one.spec.pod
        tier = node.store.tier(to)
        if not isinstance(tier, FolderTier):
            raise AgentError(f"tier {to} cannot be written to from here", phase="begin")
        host = node.sandbox.memory_bytes(name)
        if one.record.state == "standby":
            node.sandbox.thaw(name)
        with tier.begin(host) as staging:
            with phases.step("dump", host):
                node.snapshotter.dump(one.spec, one.live, staging.folder, leave=leave)
            with phases.step("commit", host):
                slices = one.record.slices
                gpus = tuple(shape.gpu for shape in slices) or one.record.built_on
                manifest = staging.commit(
                    Draft(
                        function=one.record.named,
                        created_ns=time.time_ns(),
                        snapshotter=node.snapshotter.name,
                        platform=self._platform(deployed, slices, gpus=gpus),
                        sizes=Sizes(device_bytes=held, host_bytes=host),
                        phases=tuple(
                            Phase(name=step.phase, duration_ns=step.duration_ns)
                            for step in phases.as_tuple()
                        ),
                    )
                )
        return manifest

    def _platform(
        self, deployed: Deployed, slices: tuple[SliceShape, ...], *, gpus: Sequence[str] = ()
    ) -> Platform:
        by_uuid = {gpu.uuid: gpu for gpu in self.pods.room.gpus()}
        held = [by_uuid[uuid] for uuid in gpus or [shape.gpu for shape in slices]]
        return replace(
            self._node.platform,
            driver=self._node.platform.driver if deployed.spec.gpus else "",
            gpus=tuple(
                GpuModel(model=gpu.name, uuid=gpu.uuid, mig_profile=gpu.mig_profile) for gpu in held
            ),
            command_digest=command_digest(deployed.launch),
        )


def replace_device(one: Pod, held: int) -> Pod:
    """Return a pod that is known to hold so much GPU state."""
    return Pod(replace(one.record, device_bytes=held), one.spec, one.live)

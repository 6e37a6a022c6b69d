"""Pods as containers of containerd.

Laws:
1. A container's record is made first and removed last: what there is of a pod can be found by its
   name, also by an agent that was killed in the middle.
2. The agent's own containers carry its label, in a containerd namespace of their own. Others are
   neither listed nor stopped.
3. `stop` ends with nothing left: task, processes, cgroup, writable layer, root, server of pages.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from inferx.exec.agent.containers import rootfs
from inferx.exec.agent.containers.container_criu import CRIU_OPTIONS, make_folder
from inferx.exec.agent.containers.containerd import client as api
from inferx.exec.agent.containers.containerd import containerd_pb2 as pb
from inferx.exec.agent.containers.containerd.ending import call_unless_gone, end_task
from inferx.exec.agent.containers.containerd.image import Image, image_at
from inferx.exec.agent.containers.containerd.peer import shim_programs
from inferx.exec.agent.containers.containerd.pulling import ImagePuller
from inferx.exec.agent.containers.kernel_facts import cgroup_memory, cgroup_pids, give_devices
from inferx.exec.agent.containers.leftovers import (
    clear_cgroup,
    kill_shim,
    kill_workers,
    runtime_state,
    unmount_and_remove,
    unmount_below,
)
from inferx.exec.agent.containers.oci import EditsFor, cgroup_of, check_name, no_edits, runtime_spec
from inferx.exec.agent.containers.shares import with_shares
from inferx.exec.agent.ports import AgentError, Capability, Launch, Live, PodSpec
from inferx.exec.agent.processes.page_server import stop_pages
from inferx.exec.agent.processes.procfs import started

__all__ = ["ContainerdSandbox"]

SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
OPTIONS_TYPE = "containerd.runc.v1.Options"

AGENT_LABEL = "inferx.agent"
FOLDER_LABEL = "inferx.folder"
CGROUP_LABEL = "inferx.cgroup"
IMAGE_LABEL = "inferx.image"

RUNS = (pb.RUNNING, pb.PAUSED, pb.PAUSING)


class ContainerdSandbox:
    """Runs pods through containerd and the runtime that it is told to use."""

    name = "containerd"

    def __init__(
        self,
        client: api.Client,
        *,
        owner: str = "inferx",
        cgroup_parent: str = "inferx",
        runtime: str = "io.containerd.runc.v2",
        snapshotter: str = "overlayfs",
        edits: EditsFor = no_edits,
        pull: bool = True,
        secrets: Path | None = None,
        kill_s: float = 30.0,
        restore_s: float = 600.0,
    ) -> None:
        """Take a connection; nothing is called before it is needed.

        Args:
            client: Where containerd is.
            owner: Label of this agent's containers.
            cgroup_parent: Cgroup that pods' cgroups are made in.
            runtime: Of containerd.
            snapshotter: Of containerd, for images.
            edits: What a pod's devices add to its container.
            pull: Whether an image that is missing is pulled.
            secrets: File of what registries want to know.
            kill_s: How long a killed pod may take to go.
            restore_s: How long a start or a restore may take in the runtime.
        """
        self.client = client
        self.runtime = runtime
        self._owner = owner
        self._parent = cgroup_parent
        self._snapshotter = snapshotter
        self._edits = edits
        self._images = ImagePuller(client, snapshotter=snapshotter, pull=pull, secrets=secrets)
        self._kill_s = kill_s
        self._restore_s = restore_s

    def probe(self) -> Capability:
        """Ask containerd for its version. Which runc its shims find is told, where it can be."""
        name = f"sandbox/{self.name}"
        facts = {"socket": self.client.socket, "runtime": self.runtime}
        if os.geteuid() != 0:
            return Capability(name=name, available=False, reason="needs root", facts=facts)
        try:
            there = Path(self.client.socket).exists()
            reason = "" if there else f"no containerd: {self.client.socket} is not there"
        except OSError as error:
            reason = f"no containerd: {self.client.socket} cannot be looked at: {error.strerror}"
        if reason:
            return Capability(name=name, available=False, reason=reason, facts=facts)
        try:
            answer = self.client.call(api.VERSION, pb.Empty(), phase="inspect", deadline_s=5.0)
        except AgentError as error:
            return Capability(name=name, available=False, reason=str(error), facts=facts)
        facts["containerd_version"] = answer.version
        facts |= shim_programs(self.client.socket)
        return Capability(name=name, available=True, facts=facts)

    def close(self) -> None:
        """Close the connection; pods go on."""
        self.client.close()

    def start(self, spec: PodSpec) -> Live:
        """Start a pod's command in a container of its own."""

        def options() -> pb.Options | None:
            return None

        return self.create(spec, options=options, phase="start")

    def create(
        self, spec: PodSpec, *, options: Callable[[], pb.Options | None], phase: str
    ) -> Live:
        """Make a container and run it; its processes are new, or come from what `options` name.

        Args:
            spec: The pod.
            options: Called when the name is this pod's: may prepare its folder, and tells the
                runtime's options.
            phase: For errors.

        Raises:
            AgentError: Something failed, and what was made is removed again; or a pod of this name
                is there, and is left as it is.
        """
        check_name(spec, phase)
        make_folder(spec, phase)
        image = self._image(spec) if spec.launch.image else None
        self._claim(spec, image, phase)
        try:
            own = options()
            if image:
                mounts = self._writable_layer(spec, image, phase)
            else:
                rootfs.lay_out(spec.folder / "rootfs", rootfs.host_mounts())
                mounts = []
            log = f"file://{quote(str(spec.folder))}"
            self.client.call(
                api.CREATE_TASK,
                pb.CreateTaskRequest(
                    container_id=spec.pod,
                    rootfs=mounts,
                    stdout=f"{log}/stdout.log",
                    stderr=f"{log}/stderr.log",
                    options=api.packed(OPTIONS_TYPE, own) if own else None,
                ),
                phase=phase,
                deadline_s=self._restore_s,
            )
            pid = self.client.call(
                api.START_TASK,
                pb.TaskRequest(container_id=spec.pod),
                phase=phase,
                deadline_s=self._restore_s,
            ).pid
        except BaseException:
            # What was the matter is told; that it could not be removed would hide it.
            with contextlib.suppress(AgentError):
                self.stop(spec.pod)
            raise
        return Live(pod=spec.pod, pid=pid, started=started(pid))

    def stop(self, pod: str) -> None:
        """Kill a pod and remove all that was made for it."""
        found = self._record(pod)
        if found is None:
            return
        folder = Path(found.labels[FOLDER_LABEL])
        # First what may hold a runtime up.
        stop_pages(folder)
        kill_workers(folder / "criu")
        if not end_task(self.client, pod, within_s=self._kill_s):
            # Who asked for it was killed meanwhile: its shim waits for a task that never comes.
            kill_shim(self.client.namespace, pod)
        # A shim that was killed leaves its container to containerd, which cleans up in its time.
        clear_cgroup(found.labels[CGROUP_LABEL], within_s=self._kill_s)
        if found.snapshot_key:
            call_unless_gone(
                self.client,
                api.REMOVE_SNAPSHOT,
                pb.SnapshotRequest(snapshotter=found.snapshotter, key=found.snapshot_key),
            )
        for left in (*runtime_state(self.client.namespace, pod), folder / "rootfs"):
            unmount_and_remove(left)
        unmount_below(folder / "criu")
        call_unless_gone(self.client, api.DELETE_CONTAINER, pb.ContainerRequest(id=pod))

    def live(self) -> Sequence[Live]:
        """Return the pods whose first process runs, frozen ones included."""
        tasks = self.client.call(api.LIST_TASKS, pb.ListTasksRequest(), phase="inspect").tasks
        running = {task.id: task.pid for task in tasks if task.status in RUNS}
        return [
            Live(pod=pod, pid=running[pod], started=started(running[pod]))
            for pod in self._ours()
            if pod in running
        ]

    def traces(self) -> Sequence[str]:
        """Return the names of all pods that have left something, which `stop` removes."""
        return sorted(self._ours())

    def pids(self, pod: str) -> Sequence[int]:
        """Return all processes of a pod, as the host counts; those of a killed shim's, too."""
        return cgroup_pids(self.cgroup(pod))

    def memory_bytes(self, pod: str) -> int:
        """Return what the pod's cgroup is charged."""
        return cgroup_memory(self.cgroup(pod))

    def cgroup(self, pod: str) -> str:
        """Return a pod's cgroup, from the root of each hierarchy."""
        return cgroup_of(self._parent, pod)

    def image_digest(self, launch: Launch) -> str:
        """Return the digest that the image's name leads to now; it is pulled if it is missing."""
        return self._images.get(launch.image).digest if launch.image else ""

    def digest_of(self, pod: str) -> str:
        """Return the digest that it had when the pod was made: its name may have moved on."""
        found = self._record(pod)
        return found.labels.get(IMAGE_LABEL, "") if found else ""

    def admit(self, spec: PodSpec) -> None:
        """Make the device nodes in a pod's `/dev` those of its slices."""
        request = pb.TaskRequest(container_id=spec.pod)
        task = self.client.call(api.GET_TASK, request, phase="devices").process
        give_devices(task.pid, self._edits(spec))

    def freeze(self, pod: str) -> None:
        """Stop all of a pod's processes where they are."""
        self._turn(api.PAUSE_TASK, pod, (pb.PAUSED, pb.PAUSING))

    def thaw(self, pod: str) -> None:
        """Let a frozen pod go on."""
        self._turn(api.RESUME_TASK, pod, (pb.RUNNING,))

    def _turn(
        self, method: api.Call[pb.TaskRequest, pb.Empty], pod: str, wanted: Sequence[int]
    ) -> None:
        """Freeze or thaw; a pod that is so already is fine."""
        request = pb.TaskRequest(container_id=pod)
        try:
            self.client.call(method, request, phase="freeze")
        except api.Refused:
            there = self.client.call(api.GET_TASK, request, phase="freeze").process.status
            if there not in wanted:
                raise

    def _image(self, spec: PodSpec) -> Image:
        """Return a pod's image: the one that was checked, whatever its name leads to by now."""
        if spec.image_digest:
            return image_at(self.client, spec.image_digest, spec.launch.image)
        return self._images.get(spec.launch.image)

    def _ours(self) -> Sequence[str]:
        request = pb.ListContainersRequest(filters=[f'labels."{AGENT_LABEL}"=={self._owner}'])
        found = self.client.call(api.LIST_CONTAINERS, request, phase="inspect").containers
        return sorted(one.id for one in found)

    def _record(self, pod: str) -> pb.Container | None:
        try:
            answer = self.client.call(api.GET_CONTAINER, pb.ContainerRequest(id=pod), phase="stop")
        except api.Refused as refused:
            if refused.code == "NOT_FOUND":
                return None
            raise
        found = answer.container
        if found.labels.get(AGENT_LABEL) != self._owner:
            raise AgentError(f"container {pod} is not this agent's; it is left alone", phase="stop")
        return found

    def _claim(self, spec: PodSpec, image: Image | None, phase: str) -> None:
        """Make the container's record: from now on the name is this pod's."""
        cgroup = self.cgroup(spec.pod)
        mounts = () if image else rootfs.host_mounts()
        edits = with_shares(self._edits(spec), spec)
        oci = runtime_spec(
            spec,
            root="rootfs" if image else str(spec.folder / "rootfs"),
            cgroup=cgroup,
            criu_config=spec.folder / CRIU_OPTIONS,
            root_mounts=mounts,
            edits=edits if image else rootfs.without_what_is_there(edits, mounts),
            image_env=image.env if image else None,
            entrypoint=image.entrypoint if image else (),
        )
        container = pb.Container(
            id=spec.pod,
            labels={
                AGENT_LABEL: self._owner,
                FOLDER_LABEL: str(spec.folder),
                CGROUP_LABEL: cgroup,
                IMAGE_LABEL: image.digest if image else "",
            },
            image=spec.launch.image,
            runtime=pb.Container.Runtime(name=self.runtime),
            spec=pb.Any(type_url=SPEC_TYPE, value=msgspec.json.encode(oci)),
            snapshotter=self._snapshotter if image else "",
            snapshot_key=self._layer(spec.pod) if image else "",
        )
        try:
            self.client.call(
                api.CREATE_CONTAINER, pb.ContainerMessage(container=container), phase=phase
            )
        except api.Refused as refused:
            if refused.code == "ALREADY_EXISTS":
                raise AgentError(f"pod {spec.pod} is there already", phase=phase) from refused
            raise

    def _layer(self, pod: str) -> str:
        return f"{self._owner}-{pod}"

    def _writable_layer(self, spec: PodSpec, image: Image, phase: str) -> Sequence[pb.Mount]:
        """Make the layer that mount points are made in, over an image's files."""
        request = pb.PrepareSnapshotRequest(
            snapshotter=self._snapshotter,
            key=self._layer(spec.pod),
            parent=image.chain,
            # Kept by containerd's collector until it is removed by name.
            labels={"containerd.io/gc.root": "pod"},
        )
        try:
            answer = self.client.call(api.PREPARE_SNAPSHOT, request, phase=phase)
        except api.Refused as refused:
            if refused.code != "NOT_FOUND":
                raise
            raise AgentError(
                f"image {spec.launch.image!r} is not unpacked for {self._snapshotter}", phase=phase
            ) from refused
        return list(answer.mounts)

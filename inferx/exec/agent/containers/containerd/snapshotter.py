"""Dumps and restores pods of containerd: its runtime runs CRIU, straight from and to a folder.

Nothing passes through containerd's content store, which would copy and hash it. `container_criu`
tells what becomes of connections.
"""

from pathlib import Path

from inferx.exec.agent.containers import container_criu
from inferx.exec.agent.containers.containerd import client as api
from inferx.exec.agent.containers.containerd import containerd_pb2 as pb
from inferx.exec.agent.containers.containerd.peer import shim_programs
from inferx.exec.agent.containers.containerd.sandbox import ContainerdSandbox
from inferx.exec.agent.ports import Capability, Live, PodSpec

__all__ = ["ContainerdSnapshotter"]

CHECKPOINT_TYPE = "containerd.runc.v1.CheckpointOptions"


class ContainerdSnapshotter:
    """CRIU, as the runtime of a `ContainerdSandbox` runs it."""

    name = "containerd"
    refuses = ""

    def __init__(
        self,
        sandbox: ContainerdSandbox,
        *,
        criu: str = "",
        dump_s: float = 600.0,
    ) -> None:
        """Work on the pods of a sandbox.

        Args:
            sandbox: Whose pods.
            criu: Program that serves lazy pages; empty is the one that containerd's shims find,
                which dumps and restores in any case.
            dump_s: How long a dump may take.
        """
        self._sandbox = sandbox
        self._criu = criu
        self._dump_s = dump_s

    def probe(self) -> Capability:
        """Find out whether containerd answers, and whether its shims find a CRIU that works.

        One that is known to be missing or too old is a reason; one that cannot be looked for is
        taken to be there, and the facts say so.
        """
        name = f"snapshotter/{self.name}"
        below = self._sandbox.probe()
        reason = below.reason or container_criu.unfit(below.facts)
        return Capability(name=name, available=not reason, reason=reason, facts=below.facts)

    def dump(
        self, spec: PodSpec, live: Live, into: Path, *, leave: bool, keep_connections: bool = False
    ) -> None:
        """Write a pod into an empty folder; with `leave` nothing of it is left in containerd."""
        work = container_criu.prepare_dump(spec, live, into, keep_connections=keep_connections)
        options = pb.CheckpointOptions(
            exit=leave,
            open_tcp=keep_connections,
            file_locks=True,
            image_path=str(into),
            work_path=str(work),
        )
        request = pb.CheckpointTaskRequest(
            container_id=spec.pod, options=api.packed(CHECKPOINT_TYPE, options)
        )
        try:
            self._sandbox.client.call(
                api.CHECKPOINT_TASK, request, phase="dump", deadline_s=self._dump_s
            )
        except api.Refused as error:
            begun = error.code != "UNAVAILABLE" or any(work.iterdir())
            raise container_criu.failed_dump(
                error, spec, live, into, work, stop=self._sandbox.stop, begun=begun
            ) from error
        try:
            container_criu.seal_dump(into)
        finally:
            if leave:
                self._sandbox.stop(spec.pod)

    def restore(
        self, spec: PodSpec, source: Path, *, lazy: bool = False, keep_connections: bool = False
    ) -> Live:
        """Bring a dumped pod back in a container of the spec's name and network."""
        container_criu.check_dump(spec.pod, source)

        def options() -> pb.Options:
            work = container_criu.prepare_restore(
                spec,
                source,
                self._sandbox.cgroup(spec.pod),
                criu=self._pages_program() if lazy else "",
                lazy=lazy,
                keep_connections=keep_connections,
            )
            return pb.Options(criu_image_path=str(source), criu_work_path=str(work))

        try:
            live = self._sandbox.create(spec, options=options, phase="restore")
        except api.Refused as error:
            work = spec.folder / container_criu.RESTORE_WORK
            raise container_criu.failed_restore(error, spec, work) from error
        try:
            self._sandbox.admit(spec)
        except BaseException:
            self._sandbox.stop(spec.pod)
            raise
        return live

    def _pages_program(self) -> str:
        return self._criu or shim_programs(self._sandbox.client.socket).get("criu", "criu")

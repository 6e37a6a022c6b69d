"""Dumps and restores pods of runc alone: it runs CRIU, from and to a folder.

`container_criu` tells what becomes of connections.
"""

from pathlib import Path

from inferx.exec.agent.containers import container_criu
from inferx.exec.agent.containers.runc import RuncSandbox
from inferx.exec.agent.ports import AgentError, Capability, Live, PodSpec
from inferx.exec.agent.processes.procfs import started

__all__ = ["RuncSnapshotter"]


class RuncSnapshotter:
    """CRIU, as runc runs it, on the pods of a `RuncSandbox`."""

    name = "runc"
    refuses = ""

    def __init__(self, sandbox: RuncSandbox) -> None:
        """Work on the pods of a sandbox."""
        self._sandbox = sandbox

    def probe(self) -> Capability:
        """Find out whether runc is there, and a CRIU that works."""
        name = f"snapshotter/{self.name}"
        below = self._sandbox.probe()
        reason = below.reason or container_criu.unfit(below.facts)
        return Capability(name=name, available=not reason, reason=reason, facts=below.facts)

    def dump(
        self, spec: PodSpec, live: Live, into: Path, *, leave: bool, keep_connections: bool = False
    ) -> None:
        """Write a pod into an empty folder; with `leave` nothing of it is left in runc."""
        work = container_criu.prepare_dump(spec, live, into, keep_connections=keep_connections)
        words = ["--image-path", str(into), "--work-path", str(work)]
        if not leave:
            words.append("--leave-running")
        try:
            self._sandbox.program.run("checkpoint", *words, spec.pod, phase="dump")
        except AgentError as error:
            raise container_criu.failed_dump(
                error, spec, live, into, work, stop=self._sandbox.stop
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
        sandbox = self._sandbox
        with sandbox.claimed(spec, "restore"):
            work = container_criu.prepare_restore(
                spec,
                source,
                sandbox.cgroup(spec.pod),
                criu=sandbox.criu,
                lazy=lazy,
                keep_connections=keep_connections,
            )
            pid_file = work / "pid"
            words = ("--image-path", str(source), "--work-path", str(work))
            try:
                sandbox.run(spec, "restore", "restore", *words, "--pid-file", str(pid_file))
            except AgentError as error:
                raise container_criu.failed_restore(error, spec, work) from error
            pid = int(pid_file.read_text())
            sandbox.admit(spec)
        return Live(pod=spec.pod, pid=pid, started=started(pid))

"""Pods that are plain processes of the host: no images, but a cgroup and, as root, own pids.

As root with cgroups a pod is *contained*: its cgroup, a pid and a mount namespace (for `/proc`) of
its own, and, if told, another network namespace; all of it goes with the pod. Otherwise it is a
process group, and `probe` says what is lost.

The files are the host's, and so are users and devices: this isolates nothing. It is for machines
without containerd, and for functions that are trusted.
"""

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from inferx.exec.agent.ports import AgentError, Capability, Launch, Live, PodSpec
from inferx.exec.agent.processes import launch, procfs
from inferx.exec.agent.processes.cgroup import Cgroups
from inferx.exec.agent.processes.page_server import stop_pages
from inferx.exec.agent.processes.records import Record, Records

__all__ = ["STDERR", "STDOUT", "ProcessSandbox"]

STDOUT = "stdout.log"
STDERR = "stderr.log"
KILL_S = 10.0
POLL_S = 0.002
LOST = "no memory limit, no own pids, no snapshots; what leaves its session is not killed"


class ProcessSandbox:
    """Sandbox of plain processes.

    Args:
        state: Folder of the records by which pods are found again; made if it is not there.
        cgroups: Where pods are counted and killed.
        contained: Whether pods get a cgroup and pids of their own; without, where that is possible.
    """

    name = "process"

    def __init__(
        self, state: Path, cgroups: Cgroups | None = None, *, contained: bool | None = None
    ) -> None:
        self.cgroups = cgroups or Cgroups()
        if contained is None:
            contained = procfs.may_administer() and self.cgroups.probe().available
        self.contained = contained
        self._records = Records(state)
        self._boot = procfs.boot()

    def probe(self) -> Capability:
        """Plain processes can always be had; `facts` tell how well they are kept."""
        facts = {"contained": str(self.contained).lower()}
        if not self.contained:
            facts["lost"] = LOST
        return Capability(name="sandbox/process", available=True, facts=facts)

    # -- Sandbox ---
    def start(self, spec: PodSpec) -> Live:
        """Start the command in the pod's folder's logs; an image is refused."""
        self._prepare(spec)
        try:
            if self.contained:
                record = self._contain(spec, spec.launch.command, last_pid=0)
                first = procfs.children(record.init)
                pid = first[0] if first else 0
            else:
                record = self._record(spec)
                pid = launch.launch(self._plan(spec), what=f"pod {spec.pod}")
            return self.adopt(record, pid)
        except BaseException:
            self.stop(spec.pod)
            raise

    def stop(self, pod: str) -> None:
        """Kill all of a pod, and forget it."""
        record = self._records.load(pod)
        if record is not None:
            stop_pages(Path(record.folder))
        if self.contained:
            self.cgroups.kill(pod)
            if record is not None and self._ours(record.init, record.init_started, record):
                # Killed before it was in the cgroup, or moved out by someone else.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.init, signal.SIGKILL)
            self.cgroups.remove(pod)
        elif record is not None:
            self._kill_session(record)
        if record is not None:
            # The first process ends last: once it is collected, none of its namespace is left.
            self._collect(record, wait_s=KILL_S)
        self._records.remove(pod)

    def live(self) -> Sequence[Live]:
        """Return the pods whose first process runs."""
        found: list[Live] = []
        for pod in self._records.pods():
            record = self._records.load(pod)
            if record is None:
                continue
            if self._ours(record.pid, record.started, record):
                found.append(Live(pod=pod, pid=record.pid, started=record.started))
            else:
                self._collect(record)
        return found

    def traces(self) -> Sequence[str]:
        """Return the names of all pods that have left something, which `stop` removes."""
        names = {*self._records.pods(), *self._records.begun()}
        if self.contained:
            names.update(self.cgroups.pods())
        return sorted(names)

    def pids(self, pod: str) -> Sequence[int]:
        """Return the processes of the function, without those that serve the pod itself."""
        record = self.record(pod)
        if not self.contained:
            return self._session(record)
        space = procfs.namespace(record.init, "pid")
        return [
            pid
            for pid in self.cgroups.pids(pod)
            if pid != record.init and procfs.namespace(pid, "pid") == space
        ]

    def memory_bytes(self, pod: str) -> int:
        """Memory charged to the cgroup; without one, what its processes keep resident."""
        if self.contained:
            return self.cgroups.memory_bytes(pod)
        return sum(procfs.resident_bytes(pid) for pid in self.pids(pod))

    def image_digest(self, launch: Launch) -> str:  # noqa: ARG002
        """There are no images."""
        return ""

    def digest_of(self, pod: str) -> str:  # noqa: ARG002
        """There are no images."""
        return ""

    def admit(self, spec: PodSpec) -> None:
        """All devices of the host are every pod's already."""

    def freeze(self, pod: str) -> None:
        """Stop a pod where it is; it keeps its memory."""
        if self.contained:
            self.cgroups.freeze(pod)
        else:
            self._signal(self.record(pod), signal.SIGSTOP)

    def thaw(self, pod: str) -> None:
        """Let a pod go on."""
        if self.contained:
            self.cgroups.thaw(pod)
        else:
            self._signal(self.record(pod), signal.SIGCONT)

    # -- for the snapshotter ---
    def hollow(self, spec: PodSpec, *, last_pid: int) -> Record:
        """Make all of a pod but its processes; the next one inside gets the number after."""
        self._prepare(spec)
        try:
            return self._contain(spec, (), last_pid=last_pid)
        except BaseException:
            self.stop(spec.pod)
            raise

    def adopt(self, record: Record, pid: int) -> Live:
        """Note which process is the pod's first."""
        record.pid = pid
        record.started = procfs.started(pid)
        if not record.started:
            raise AgentError(f"pod {record.pod}: ended as soon as it was started", phase="start")
        self._records.save(record)
        return Live(pod=record.pod, pid=pid, started=record.started)

    def record(self, pod: str) -> Record:
        """Return what is remembered of a pod, which must be known."""
        record = self._records.load(pod)
        if record is None:
            raise AgentError(f"pod {pod}: there is none of that name", phase="pod")
        return record

    # -- inside ---
    def _prepare(self, spec: PodSpec) -> None:
        if spec.launch.image:
            raise AgentError(
                f"pod {spec.pod}: a plain process has no image, expected none but got"
                f" {spec.launch.image}",
                phase="start",
            )
        if not spec.launch.command:
            raise AgentError(f"pod {spec.pod}: no command to run", phase="start")
        said = spec.launch
        if not self.contained and (
            spec.network or said.memory_bytes or said.cpu_milli or said.mounts
        ):
            raise AgentError(
                f"pod {spec.pod}: a network namespace, a limit of memory or CPU and mounts need"
                " root and cgroups",
                phase="start",
            )
        if self._records.load(spec.pod) is not None:
            raise AgentError(f"pod {spec.pod}: there is one of that name", phase="start")
        launch.adopt_orphans()
        spec.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _record(self, spec: PodSpec) -> Record:
        """Remember a pod before anything of it is there, so that nothing is left unknown."""
        record = Record(
            pod=spec.pod, folder=str(spec.folder), boot=self._boot, network=spec.network
        )
        self._records.save(record)
        return record

    def _contain(self, spec: PodSpec, command: Sequence[str], *, last_pid: int) -> Record:
        record = self._record(spec)
        limits = spec.launch
        self.cgroups.create(spec.pod, memory_bytes=limits.memory_bytes, cpu_milli=limits.cpu_milli)
        plan = self._plan(spec)
        plan.command = command
        plan.cgroups = [str(each) for each in self.cgroups.entries(spec.pod)]
        plan.join = [(spec.network, launch.CLONE_NEWNET)] if spec.network else []
        plan.new = True
        plan.last_pid = last_pid
        record.init = launch.launch(plan, what=f"pod {spec.pod}")
        record.init_started = procfs.started(record.init)
        self._records.save(record)
        return record

    @staticmethod
    def _plan(spec: PodSpec) -> launch.Plan:
        env = {"PATH": launch.PATH, "LANG": "C.UTF-8", "HOME": "/"}
        env |= dict(spec.launch.env) | dict(spec.env)
        if spec.launch.port:
            env["PORT"] = str(spec.launch.port)
        return launch.Plan(
            command=spec.launch.command,
            env=env,
            mounts=[(m.source, m.target, m.read_only) for m in spec.launch.mounts],
            files=standard_files(spec.folder),
            cwd=spec.launch.cwd,
            lock=True,
        )

    def _ours(self, pid: int, started: int, record: Record) -> bool:
        return record.boot == self._boot and procfs.is_running(pid, started)

    @staticmethod
    def _collect(record: Record, *, wait_s: float = 0.0) -> None:
        """Collect what has ended of a pod, as far as it is our child: zombies keep their pids."""
        deadline = time.monotonic() + wait_s
        for pid, started in ((record.init, record.init_started), (record.pid, record.started)):
            while started and procfs.started(pid, zombies=True) == started:
                # Only this very process: the number may be another child's by now.
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    # Another's child, of an agent before us: to be collected there.
                    if not procfs.started(pid):
                        break
                if time.monotonic() >= deadline:
                    break
                # A first process ends after all others inside, also those that only we can collect.
                for other in procfs.inner_zombies():
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(other, os.WNOHANG)
                time.sleep(POLL_S)
        if not record.pid or record.init:
            return
        # Without a first process of its own, a pod's orphans have become our children.
        for pid in procfs.all_pids():
            if procfs.session_of(pid, zombies=True) == record.pid and not procfs.started(pid):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _signal(self, record: Record, number: signal.Signals) -> None:
        for pid in self._session(record):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _session(self, record: Record) -> list[int]:
        """Return the processes of a pod without a cgroup."""
        if not record.pid or record.boot != self._boot:
            return []
        return [pid for pid in procfs.all_pids() if procfs.session_of(pid) == record.pid]

    def _kill_session(self, record: Record) -> None:
        deadline = time.monotonic() + KILL_S
        while pids := self._session(record):
            if time.monotonic() > deadline:
                raise AgentError(
                    f"pod {record.pod}: processes {pids} did not end within {KILL_S:g} s",
                    phase="kill",
                )
            self._signal(record, signal.SIGKILL)
            self._collect(record)
            time.sleep(POLL_S)


def standard_files(folder: Path) -> list[tuple[int, str, int]]:
    """Return standard input, output and error of a pod, as the launcher takes them."""
    return [
        (0, "/dev/null", launch.READ),
        (1, str(folder / STDOUT), launch.APPEND),
        (2, str(folder / STDERR), launch.APPEND),
    ]

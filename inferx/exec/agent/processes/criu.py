"""Snapshots of plain processes, by CRIU.

CRIU runs inside the pod's own pid, mount and network namespaces and so saves none of them: an image
is the processes alone, with the numbers that they have inside, which are free in each new pod. That
is what makes clones, other network namespaces and other cgroups a matter of where CRIU is started.

Connections: a snapshot may be restored many times, and a connection only once, where its addresses
are and before its peer gives up. They are therefore closed (the peer sees a reset) unless
`keep_connections` is asked for, at the dump and again at the restore.

What a pod has open must be there at the restore, with the size it had: its own files are not in
the image, but standard output and error are led to those of the new pod.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from inferx.exec.agent.ports import AgentError, Capability, Live, PodSpec
from inferx.exec.agent.processes import criu_lock, criu_probe, launch, procfs
from inferx.exec.agent.processes.criu_files import emptied, errors_in, said_in
from inferx.exec.agent.processes.criu_image import Image, choose_last_pid
from inferx.exec.agent.processes.page_server import pages_of, serve_pages, stop_pages
from inferx.exec.agent.processes.process import STDERR, STDOUT, ProcessSandbox
from inferx.exec.agent.processes.records import Record

__all__ = ["CriuSnapshotter"]

END_S = 10.0
RELEASE_S = 10.0
"""How long it may take to let packets through again."""
POLL_S = 0.002
GHOST_BYTES = 1 << 30
"""Largest deleted file that is kept in the image: shared memory is often such a file."""
WORK = "criu"


class CriuSnapshotter:
    """Snapshotter for `ProcessSandbox`.

    Args:
        sandbox: Whose pods they are.
        path: CRIU; see `criu_probe.find_criu`.
        timeout_s: Longest dump or restore.
    """

    name = "criu"
    refuses = ""

    def __init__(
        self, sandbox: ProcessSandbox, *, path: str = "", timeout_s: float = 600.0
    ) -> None:
        self._sandbox = sandbox
        self._asked = path
        self._path = criu_probe.find_criu(path)
        self._timeout_s = timeout_s

    def probe(self) -> Capability:
        """Find out which CRIU there is, and ask it whether the kernel has what it needs."""
        facts = {"path": self._path} if self._path else {}
        if not self._path:
            reason = f"no CRIU: {self._asked or 'criu'} is not there, or cannot be run"
        else:
            reason = criu_probe.why_not(self._path, facts)
        if not reason and not self._sandbox.contained:
            reason = "no permission: pods have no cgroups and pids of their own"
        return Capability(name="snapshotter/criu", available=not reason, reason=reason, facts=facts)

    def dump(
        self,
        spec: PodSpec,
        live: Live,
        into: Path,
        *,
        leave: bool,
        keep_connections: bool = False,
    ) -> None:
        """Write a pod's processes into an empty folder.

        With `leave` the pod is still to be stopped, as any that has ended. With `keep_connections`
        in addition, packets of its connections are dropped from then on, by a table of nftables
        that a restore removes.
        """
        what = f"pod {spec.pod}: cannot be dumped"
        record = self._dumpable(what, spec, live, into)
        pids = self._sandbox.pids(spec.pod)
        image = Image(
            root=procfs.own_pid(live.pid),
            numbers=tuple(sorted({own for pid in pids for own in procfs.own_numbers(pid)})),
            stdout=str(Path(record.folder) / STDOUT),
            stderr=str(Path(record.folder) / STDERR),
            lock="",
            sizes={},
        )
        work = emptied(spec.folder / WORK)
        arguments = ["dump", "--tree", str(image.root), *_common(work, "dump.log")]
        arguments += ["--ghost-limit", str(GHOST_BYTES), "--skip-in-flight"]
        if keep_connections:
            # The last says in the log how the lock is called.
            arguments += ["--tcp-established", "--network-lock", "nftables", "-v3"]
        else:
            # Nothing to lose, and so no packets to hold back.
            arguments += ["--tcp-close", "--network-lock", "skip"]
        if not leave:
            arguments.append("--leave-running")
        try:
            self._run(self._inside(record, arguments, into, work), what, work / "dump.log")
            if leave:
                self._await_end(what, spec.pod)
            lock = criu_lock.table_of(work / "dump.log") if keep_connections else ""
            msgspec.structs.replace(image, lock=lock, sizes=Image.measure(into)).save(into)
        except BaseException as error:
            emptied(into)
            if keep_connections:
                self._unlock(record, work)
            if isinstance(error, AgentError) and not procfs.is_running(live.pid, live.started):
                raise AgentError(f"{error}; the pod has ended", phase="dump") from error
            raise

    def restore(
        self,
        spec: PodSpec,
        source: Path,
        *,
        lazy: bool = False,
        keep_connections: bool = False,
    ) -> Live:
        """Bring a dump back as a new pod, or as one of several.

        With `lazy`, who brings the pages is in the pod's cgroup, and kills the pod if it fails:
        pages that nobody brings would read as zeros.
        """
        what = f"pod {spec.pod}: cannot be restored"
        try:
            image = Image.load(source)
        except AgentError as error:
            raise AgentError(f"{what}: {error}", phase="restore") from error
        if keep_connections and not image.lock:
            raise AgentError(
                f"{what}: connections are to be kept, but {source} was dumped without them",
                phase="restore",
            )
        last_pid = choose_last_pid(image.numbers, most=procfs.most_pids())
        record = self._sandbox.hollow(spec, last_pid=last_pid)
        try:
            work = emptied(spec.folder / WORK)
            if lazy:
                self._bring_pages(what, spec, record, source, work)
            arguments = ["restore", "--restore-detached", *_common(work, "restore.log")]
            arguments.append("--tcp-established" if keep_connections else "--tcp-close")
            if lazy:
                arguments.append("--lazy-pages")
            plan = self._inside(record, arguments, source, work)
            plan.cgroups = self._entries(spec.pod)
            for number, old, new in ((3, image.stdout, STDOUT), (4, image.stderr, STDERR)):
                arguments += ["--inherit-fd", f"fd[{number}]:{old.lstrip('/')}"]
                plan.files = [*plan.files, (number, str(spec.folder / new), launch.APPEND)]
            plan.command = [self._path, *arguments]
            self._run(plan, what, work / "restore.log")
            return self._sandbox.adopt(record, self._find(what, spec.pod, image.root))
        except BaseException:
            stop_pages(spec.folder)
            self._sandbox.stop(spec.pod)
            raise

    def release(self, spec: PodSpec, source: Path, *, within_s: float = RELEASE_S) -> None:
        """Let packets of a dump's kept connections through again, if it is not to be restored.

        Peers then learn that nobody is there. Not needed after a restore that kept them.

        Raises:
            AgentError: It is no dump, or it was not done in time; then it can be tried again.
        """
        if lock := Image.load(source).lock:
            said = spec.folder / WORK / "criu.log"
            criu_lock.remove(lock, network=spec.network, said=said, within_s=within_s)

    # -- inside ---
    def _dumpable(self, what: str, spec: PodSpec, live: Live, into: Path) -> Record:
        """Check what can be known before, and return the pod's record."""
        if not self._path:
            raise AgentError(f"{what}: no CRIU", phase="dump")
        record = self._sandbox.record(live.pod)
        if not record.init:
            raise AgentError(f"{what}: it has no pids of its own", phase="dump")
        if record.pid != live.pid or not procfs.is_running(live.pid, live.started):
            raise AgentError(f"{what}: process {live.pid} is no longer it", phase="dump")
        if not into.is_dir() or any(into.iterdir()):
            raise AgentError(f"{what}: expected {into} to be an empty folder", phase="dump")
        if self._sandbox.cgroups.frozen(live.pod):
            raise AgentError(f"{what}: it is frozen, and has to be thawed first", phase="dump")
        if (pages := pages_of(spec.folder)) != "whole":
            raise AgentError(f"{what}: its pages are {pages}", phase="dump")
        return record

    def _inside(
        self, record: Record, arguments: Sequence[str], folder: Path, work: Path
    ) -> launch.Plan:
        """Return how CRIU is run in a pod's namespaces, with the images as its folder."""
        spaces = Path(f"/proc/{record.init}/ns")
        return launch.Plan(
            command=[self._path, *arguments],
            env={"PATH": launch.PATH},
            join=[
                (str(spaces / "net"), launch.CLONE_NEWNET),
                (str(spaces / "mnt"), launch.CLONE_NEWNS),
                (str(spaces / "pid"), launch.CLONE_NEWPID),
            ],
            files=_quiet_files(work),
            folder=str(folder),
            tied=True,
            wait=True,
        )

    @staticmethod
    def _unlock(record: Record, work: Path) -> None:
        """Remove the lock of a CRIU that was killed; a filter that stays is told in its log."""
        if table := criu_lock.table_of(work / "dump.log"):
            with contextlib.suppress(AgentError):
                said = work / "criu.log"
                criu_lock.remove(table, network=record.network, said=said, within_s=RELEASE_S)

    def _entries(self, pod: str) -> list[str]:
        return [str(each) for each in self._sandbox.cgroups.entries(pod)]

    def _run(self, plan: launch.Plan, what: str, log: Path) -> None:
        try:
            code = launch.run(plan, what=what, timeout_s=self._timeout_s)
        except AgentError as error:
            if said := said_in(log):
                raise AgentError(f"{error}: {said} (see {log})", phase=plan.command[1]) from error
            raise
        if code:
            ended = f"CRIU was killed by signal {code - 128}" if code > 128 else f"CRIU: {code}"
            said = errors_in(log) or f"{ended}; {said_in(log) or 'it says nothing'}"
            raise AgentError(f"{what}: {said} (see {log})", phase=plan.command[1])

    def _bring_pages(
        self, what: str, spec: PodSpec, record: Record, source: Path, work: Path
    ) -> None:
        """Start who brings the pages of a lazy restore: in the pod's cgroup, and gone with it."""
        try:
            serve_pages(
                self._path,
                source,
                work,
                spec.folder,
                cgroups=self._entries(record.pod),
                guards=record.init,
            )
        except AgentError as error:
            raise AgentError(f"{what}: {error}", phase="restore") from error

    def _find(self, what: str, pod: str, root: int) -> int:
        for pid in self._sandbox.pids(pod):
            if procfs.own_pid(pid) == root:
                return pid
        raise AgentError(f"{what}: it ended at once", phase="restore")

    def _await_end(self, what: str, pod: str) -> None:
        deadline = time.monotonic() + END_S
        while pids := self._sandbox.pids(pod):
            if time.monotonic() > deadline:
                raise AgentError(f"{what}: processes {pids} outlive the dump", phase="dump")
            time.sleep(POLL_S)


def _common(work: Path, log: str, *, managed: bool = True) -> list[str]:
    """Return what all actions are given: images where it runs, logs in the pod's folder."""
    given = ["--images-dir", ".", "--work-dir", str(work), "--log-file", log, "-v2"]
    if managed:
        # Processes stay in the cgroup that CRIU runs in, and that is the new pod's.
        given += ["--manage-cgroups=ignore", "--file-locks"]
    return given


def _quiet_files(work: Path) -> list[tuple[int, str, int]]:
    said = str(work / "criu.log")
    return [(0, "/dev/null", launch.READ), (1, said, launch.APPEND), (2, said, launch.APPEND)]

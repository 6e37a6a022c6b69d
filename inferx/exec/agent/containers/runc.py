"""Pods as containers of runc alone, for nodes where containerd is not the agent's to use.

Laws:
1. A pod's record, a small file beside runc's own state, is made first and removed last: what there
   is of a pod can be found by its name, also by an agent that was killed in the middle.
2. runc's state folder is this agent's alone: all that is in it is.
3. A pod's output goes through a pipe and a `cat` that outlives the agent. CRIU cannot bring back a
   file of the host that a container has open, and a pipe's other end must not be the agent.
"""

import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.containers import rootfs
from inferx.exec.agent.containers.container_criu import (
    CRIU_OPTIONS,
    make_folder,
    program_version,
    write_options,
)
from inferx.exec.agent.containers.kernel_facts import cgroup_memory, cgroup_pids, give_devices
from inferx.exec.agent.containers.leftovers import (
    clear_cgroup,
    kill_workers,
    unmount_and_remove,
    unmount_below,
)
from inferx.exec.agent.containers.oci import EditsFor, cgroup_of, check_name, no_edits, runtime_spec
from inferx.exec.agent.containers.runc_program import RuncProgram
from inferx.exec.agent.containers.shares import with_shares
from inferx.exec.agent.ports import AgentError, Capability, Launch, Live, PodSpec
from inferx.exec.agent.processes.page_server import stop_pages
from inferx.exec.agent.processes.procfs import inner_zombies, started
from inferx.exec.agent.store.durable import make_folder as make_own
from inferx.exec.agent.store.durable import sync_folder, told
from inferx.exec.files import aside_of, write_whole

__all__ = ["RuncSandbox"]

RUNS = ("running", "paused")


class _Record(msgspec.Struct, frozen=True):
    """What must be known to remove a pod."""

    folder: str
    cgroup: str


class RuncSandbox:
    """Runs pods by the runc program."""

    name = "runc"

    def __init__(
        self,
        state: Path,
        *,
        runc: str = "runc",
        criu: str = "",
        cgroup_parent: str = "inferx",
        edits: EditsFor = no_edits,
        kill_s: float = 30.0,
        restore_s: float = 600.0,
    ) -> None:
        """Say where and how; nothing is made before it is needed.

        Args:
            state: Folder of this agent's runc, on a file system that a reboot empties.
            runc: The program.
            criu: The program that runc is to use; empty is the one in the PATH.
            cgroup_parent: Cgroup that pods' cgroups are made in.
            edits: What a pod's devices add to its container.
            kill_s: How long a killed pod may take to go.
            restore_s: How long runc may take for a start, a dump or a restore.
        """
        self.criu = criu or "criu"
        self._edits = edits
        self._state = state
        self._runc = runc
        self.program = RuncProgram(state, name=runc, criu=self.criu, within_s=restore_s)
        self._parent = cgroup_parent
        self._kill_s = kill_s

    def probe(self) -> Capability:
        """Look for runc, and for the CRIU that it would use."""
        name = f"sandbox/{self.name}"
        found = shutil.which(self._runc)
        facts = {"runc": found or self._runc}
        if criu := shutil.which(self.criu):
            facts |= {"criu": criu, "criu_version": program_version(criu)}
        reason = ""
        if os.geteuid() != 0:
            reason = "needs root"
        elif found is None:
            reason = f"no {self._runc} in the PATH"
        elif version := program_version(found):
            facts["runc_version"] = version
        else:
            reason = f"{found} cannot be run"
        return Capability(name=name, available=not reason, reason=reason, facts=facts)

    def start(self, spec: PodSpec) -> Live:
        """Start a pod's command in a container of its own."""
        with self.claimed(spec, "start"):
            self.run(spec, "run", "start")
        return self._live(spec.pod)

    @contextlib.contextmanager
    def claimed(self, spec: PodSpec, phase: str) -> Generator[None]:
        """Make a pod's record and bundle; what fails within removes them, and the pod."""
        check_name(spec, phase)
        if spec.launch.image:
            raise AgentError(
                f"pod {spec.pod}: image {spec.launch.image!r} needs containerd; runc alone runs the"
                " host's own files",
                phase=phase,
            )
        make_folder(spec, phase)
        cgroup = self.cgroup(spec.pod)
        mounts = rootfs.host_mounts()
        oci = runtime_spec(
            spec,
            root="rootfs",
            cgroup=cgroup,
            criu_config=spec.folder / CRIU_OPTIONS,
            root_mounts=mounts,
            edits=rootfs.without_what_is_there(with_shares(self._edits(spec), spec), mounts),
        )
        try:
            make_own(self._state / "pods")
            record = _Record(folder=str(spec.folder), cgroup=cgroup)
            # Whole or not at all: one that cannot be read could not be removed either.
            aside = self._aside(spec.pod)
            write_whole(aside, msgspec.json.encode(record))
            self._record(spec.pod).hardlink_to(aside)
            aside.unlink()
            sync_folder(aside.parent)
        except FileExistsError as error:
            raise AgentError(f"pod {spec.pod} is there already", phase=phase) from error
        except OSError as error:
            raise AgentError(f"pod {spec.pod} cannot be made: {error}", phase=phase) from error
        try:
            (spec.folder / "config.json").write_bytes(msgspec.json.encode(oci))
            rootfs.lay_out(spec.folder / "rootfs", mounts)
            write_options(spec.folder / CRIU_OPTIONS, keep_connections=False)
            yield
        except BaseException:
            # What was the matter is told; that it could not be removed would hide it.
            with contextlib.suppress(AgentError):
                self.stop(spec.pod)
            raise

    def run(self, spec: PodSpec, verb: str, phase: str, *more: str) -> None:
        """Run or restore a claimed pod, its output going to its folder."""
        reader, writer = os.pipe()
        try:
            with (spec.folder / "stdout.log").open("ab") as log:
                relay = subprocess.Popen(
                    ["/bin/cat"], stdin=reader, stdout=log, start_new_session=True
                )
            # Reaped when the pod's last process has closed its output.
            threading.Thread(target=relay.wait, name=f"log-{spec.pod}", daemon=True).start()
            self.program.run(
                verb,
                "--detach",
                "--bundle",
                str(spec.folder),
                *more,
                spec.pod,
                phase=phase,
                output=writer,
            )
        finally:
            os.close(reader)
            os.close(writer)

    def stop(self, pod: str) -> None:
        """Kill a pod and remove all that was made for it; its output stays in its folder."""
        try:
            record = msgspec.json.decode(self._record(pod).read_bytes(), type=_Record)
        except FileNotFoundError:
            self._forget(pod)
            return
        except (OSError, *UNDECODABLE) as error:
            raise AgentError(f"pod {pod}: its record cannot be read: {error}", phase="stop") from (
                error
            )
        folder = Path(record.folder)
        # First what may hold runc up, or make anew what is removed here.
        self.program.end(pod)
        stop_pages(folder)
        kill_workers(folder / "criu")
        # Of a start that was cut short runc may know nothing: then the cgroup tells.
        with contextlib.suppress(AgentError):
            self.program.run("delete", "--force", pod, phase="stop")
        clear_cgroup(record.cgroup, within_s=self._kill_s)
        # What runc leaves is a child of whoever is first on this machine, or in its container: of
        # this agent, perhaps.
        for pid in inner_zombies():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        unmount_and_remove(self._state / "runc" / pod)
        unmount_and_remove(folder / "rootfs")
        unmount_below(folder / "criu")
        (folder / "config.json").unlink(missing_ok=True)
        self._forget(pod)

    def live(self) -> Sequence[Live]:
        """Return the pods whose first process runs, frozen ones included."""
        known = self._known()
        # A pod that is being started has a record before runc has a state.
        states = {pod: self._ask(pod) for pod in known if (self._state / "runc" / pod).exists()}
        return [
            Live(pod=pod, pid=state["pid"], started=started(state["pid"]))
            for pod, state in states.items()
            if state.get("status") in RUNS
        ]

    def traces(self) -> Sequence[str]:
        """Return the names of all pods that have left something, which `stop` removes."""
        return sorted({*self._known(), *self._begun()})

    def cgroup(self, pod: str) -> str:
        """Return a pod's cgroup, from the root of each hierarchy."""
        return cgroup_of(self._parent, pod)

    def pids(self, pod: str) -> Sequence[int]:
        """Return all processes of a pod, as the host counts."""
        return cgroup_pids(self.cgroup(pod))

    def memory_bytes(self, pod: str) -> int:
        """Return what the pod's cgroup is charged."""
        return cgroup_memory(self.cgroup(pod))

    def image_digest(self, launch: Launch) -> str:  # noqa: ARG002
        """There are no images."""
        return ""

    def digest_of(self, pod: str) -> str:  # noqa: ARG002
        """There are no images."""
        return ""

    def admit(self, spec: PodSpec) -> None:
        """Make the device nodes in a pod's `/dev` those of its slices."""
        give_devices(self._live(spec.pod).pid, self._edits(spec))

    def freeze(self, pod: str) -> None:
        """Stop all of a pod's processes where they are."""
        self._turn("pause", pod, "paused")

    def thaw(self, pod: str) -> None:
        """Let a frozen pod go on."""
        self._turn("resume", pod, "running")

    def _turn(self, verb: str, pod: str, wanted: str) -> None:
        """Freeze or thaw; a pod that is so already is fine."""
        try:
            self.program.run(verb, pod, phase="freeze")
        except AgentError:
            if self._ask(pod).get("status") != wanted:
                raise

    def _live(self, pod: str) -> Live:
        pid = int(self._ask(pod).get("pid", 0))
        if not pid:
            raise AgentError(f"pod {pod} has ended", phase="inspect")
        return Live(pod=pod, pid=pid, started=started(pid))

    def _ask(self, pod: str) -> Mapping[str, Any]:
        with contextlib.suppress(AgentError, ValueError):
            state: dict[str, Any] = json.loads(self.program.run("state", pod, phase="inspect"))
            return state
        return {}

    def _record(self, pod: str) -> Path:
        return self._state / "pods" / pod

    def _aside(self, pod: str) -> Path:
        return self._record(f".{pod}")

    def _forget(self, pod: str) -> None:
        """Remove a pod's record, whole or not."""
        aside = self._aside(pod)
        with told(f"pod {pod}: cannot remove its record", phase="stop"):
            for file in (aside_of(aside), aside, self._record(pod)):
                file.unlink(missing_ok=True)

    def _begun(self) -> Sequence[str]:
        """Return the pods whose record was being made when its maker was killed."""
        found = (self._state / "pods").glob(".*")
        return [path.name.lstrip(".").removesuffix(".new") for path in found]

    def _known(self) -> Sequence[str]:
        try:
            names = (entry.name for entry in (self._state / "pods").iterdir())
            return sorted(name for name in names if not name.startswith("."))
        except FileNotFoundError:
            return []

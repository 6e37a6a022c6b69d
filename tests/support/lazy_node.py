"""A node that restores lazily, and its servers of pages held up, so that a test can come between.

Run as a program, it is an agent that is killed while a pod's pages come, and the one after it.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import system_parts as parts
from agent_node import FUNCTION, AgentNode, agent_node, function, memory, pod, traces
from container_node import container_node, tenant
from crash_node import collecting, in_agent
from standin_gpus import MB
from standin_gpus import Node as Gpus

from inferx.exec.agent.executor import Executor
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pod import Pod
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes.page_server import NOTE, pages_of

KINDS = ("process", "runc", "containerd")
HOST_MB = 250
"""Of a pod: enough to be met while they come."""
TRIES = 5


@contextmanager
def lazy_node(
    folder: Path, kind: str, *, socket: str = "", **config: object
) -> Iterator[AgentNode]:
    """Make a node for one function, which has no GPU and much memory; nothing is left after."""
    gpus = Gpus.make(folder / "gpus", gpus=1)
    host = {"gpus": 0, "milli_gpu": 0, "hbm_bytes": 0, "gpu_mb": 0}
    extra = ("--host-mb", str(HOST_MB))
    config = {"gpus": (1 << 30,), "lazy_from_bytes": 64 * MB, "budget_bytes": 4 << 30} | config
    if kind == "process":
        made = agent_node(folder, gpus, function(gpus, extra=extra, **host), **config)
    else:
        one = tenant(gpus, extra=extra, **host)
        made = container_node(folder, gpus, kind, one, socket=socket, **config)
    with made as node:
        yield node


def written(agent: Executor) -> object:
    """Have a snapshot; return what was in its pod's memory."""
    before = memory(agent.pods.create(pod(1), FUNCTION, (), Phases()))
    agent.freezing.snapshot(pod(1), Phases(), leave=True)
    return before


def server_of(one: Pod) -> int:
    """Return who brings a pod's pages."""
    return int(json.loads((one.spec.folder / NOTE).read_bytes())["server"][0])


def held_by(pid: int) -> list[str]:
    """Return what a process holds of others' memory."""
    found: list[str] = []
    for path in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            found.append(os.readlink(path))  # noqa: PTH115 - it is no path.
    return [link for link in found if "userfaultfd" in link]


class Slowly(Phases):
    """Has who brings pages work only a part of the time, from the end of the restore itself.

    Not before: an early call of CRIU's that is interrupted fails the restore.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._note = folder / NOTE
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._pulse)
        self.server = 0

    @contextmanager
    def step(self, name: str, moved_bytes: int = 0) -> Iterator[None]:
        with super().step(name, moved_bytes):
            yield
        if name == "restore":
            # It may have done already.
            with suppress(FileNotFoundError, ProcessLookupError):
                self.server = int(json.loads(self._note.read_bytes())["server"][0])
                os.kill(self.server, signal.SIGSTOP)
            self._thread.start()

    def stop(self) -> None:
        """Leave it stopped."""
        self._done.set()
        if self._thread.ident:
            self._thread.join()

    def _pulse(self) -> None:
        with suppress(ProcessLookupError):
            while self.server and not self._done.wait(0.005):
                os.kill(self.server, signal.SIGCONT)
                time.sleep(0.0003)
                os.kill(self.server, signal.SIGSTOP)


@contextmanager
def held_up(agent: Executor, number: int) -> Iterator[Pod]:
    """Restore a pod, and keep its last pages from coming until the end of the body."""
    one, phases = _slowly(agent, number)
    for _ in range(TRIES):
        if held_by(phases.server):
            break
        # On a machine that is busy a moment may be long.
        agent.pods.stop(pod(number))
        one, phases = _slowly(agent, number)
    assert held_by(phases.server)
    try:
        yield one
    finally:
        with suppress(ProcessLookupError):
            os.kill(phases.server, signal.SIGCONT)


def _slowly(agent: Executor, number: int) -> tuple[Pod, Slowly]:
    phases = Slowly(agent.pods.records.folder(number))
    try:
        return agent.freezing.restore(pod(number), FUNCTION, (), phases), phases
    finally:
        phases.stop()


def main() -> None:
    """Arguments: an empty folder, the kind of sandbox, and what happens meanwhile, if anything.

    Prints what the second agent found, as JSON.
    """
    folder, kind, meanwhile = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    with ExitStack() as undo:
        undo.enter_context(collecting())
        socket = ""
        if kind == "containerd":
            _, socket = undo.enter_context(parts.containerd(folder / "containerd"))
        node = undo.enter_context(lazy_node(folder, kind, socket=socket))

        def first(agent: Executor, say: Any) -> None:
            before = written(agent)
            with held_up(agent, 2) as one:
                note = json.loads((one.spec.folder / NOTE).read_bytes())
                say({"memory": before, "note": note})
                os.kill(os.getpid(), signal.SIGKILL)

        ((told),) = in_agent(node, first)
        (launcher, _), (server, _) = told["note"]["launcher"], told["note"]["server"]
        if meanwhile == "lost":
            for pid in (launcher, server):
                # One that is stopped may end with its parent.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        def second(agent: Executor, say: Any) -> None:
            found = agent.recover()
            say({"adopted": found.adopted, "killed": found.killed})
            if not found.adopted:
                return
            one, store = agent.pods.get(pod(2)), agent.pods.node.store
            say(
                {
                    "pages": pages_of(one.spec.folder),
                    "promises": len(agent.pods.host_room._promises),
                }
            )
            try:
                store.delete(one.record.snapshot)
            except AgentError as error:
                say({"deleted": str(error)})
            os.kill(server, signal.SIGCONT)
            agent.pods.pages.await_whole(one, Phases())
            say(
                {
                    "pages": pages_of(one.spec.folder),
                    "promises": len(agent.pods.host_room._promises),
                }
            )
            store.delete(one.record.snapshot)
            say({"memory": memory(one)})
            agent.pods.stop(pod(2))

        found = in_agent(node, second)
        left = traces(node)
    print(json.dumps({"before": told["memory"], "found": found, "left": left}))


if __name__ == "__main__":
    main()

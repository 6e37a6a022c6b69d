"""A node that restores lazily, and slowly, so that a test can come between.

Run as a program, it is an agent that is killed while a pod's pages come, and the one after it.
"""

import json
import os
import signal
import subprocess
import sys
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
from inferx.exec.agent.lazy_pages import lost
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pod import Pod
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes import criu_probe
from inferx.exec.agent.processes.page_server import NOTE, pages_of

KINDS = ("process", "runc", "containerd")
HOST_MB = 48
"""Of a pod."""
PAGE = 4096
SLOW = "slow"
"""The file beside a slow CRIU that has it be so."""


@contextmanager
def lazy_node(
    folder: Path, kind: str, *, socket: str = "", **config: object
) -> Iterator[AgentNode]:
    """Make a node for one function, which has no GPU and much memory; nothing is left after."""
    gpus = Gpus.make(folder / "gpus", gpus=1)
    host = {"gpus": 0, "milli_gpu": 0, "hbm_bytes": 0, "gpu_mb": 0}
    extra = ("--host-mb", str(HOST_MB))
    config = {
        "criu": slow_criu(folder / "criu"),
        "gpus": (1 << 30,),
        "lazy_from_bytes": 32 * MB,
        "budget_bytes": 4 << 30,
    } | config
    if kind == "process":
        made = agent_node(folder, gpus, function(gpus, extra=extra, **host), **config)
    else:
        one = tenant(gpus, extra=extra, **host)
        made = container_node(folder, gpus, kind, one, socket=socket, **config)
    with made as node:
        yield node


def written(agent: Executor) -> object:
    """Have a snapshot; return what was in its pod's memory."""
    while none_is_lazy(one := agent.pods.create(pod(1), FUNCTION, (), Phases())):
        agent.pods.stop(pod(1))
    before = memory(one)
    agent.freezing.snapshot(pod(1), Phases(), leave=True)
    return before


def none_is_lazy(one: Pod) -> bool:
    """Whether CRIU will not write a page that can come later.

    It compares where in its page a page begins with where in its page a thread's stack ends, to
    tell which pages are of stacks (`is_stack` in its `mem.c`, as of 4.2.1): all are taken for such,
    where a stack ends at a page's first byte. That is one process in 256.
    """
    call = Path(f"/proc/{one.live.pid}/syscall")
    parts.until(lambda: call.read_text() != "running\n")
    *_, end, _ = call.read_text().split()
    return int(end, 16) % PAGE == 0


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


@contextmanager
def held_up(agent: Executor, number: int) -> Iterator[Pod]:
    """Restore a pod, and keep its last pages from coming until the end of the body."""
    slow = Path(agent.pods.node.config.criu).with_name(SLOW)
    slow.touch()
    try:
        one = agent.freezing.restore(pod(number), FUNCTION, (), Phases())
        assert pages_of(one.spec.folder) == "coming", lost(one.spec.pod, one.spec.folder)
        server = server_of(one)
        os.kill(server, signal.SIGSTOP)
    finally:
        slow.unlink()
    assert held_by(server), "all pages have come: expected them to come slowly"
    try:
        yield one
    finally:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGCONT)


def slow_criu(folder: Path) -> str:
    """Make a CRIU that brings pages slowly; return its path."""
    folder.mkdir()
    library, program = folder / "slow_pages.so", folder / "criu"
    source = Path(__file__).parents[1] / "standin" / "slow_pages.c"
    command = ["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    env = f"LD_PRELOAD={library} SLOW_WHILE={folder / SLOW}"
    slow = f'[ "$1" = lazy-pages ] && export {env}'
    program.write_text(f'#!/bin/sh\n{slow}\nexec {criu_probe.find_criu()} "$@"\n')
    program.chmod(0o755)
    return str(program)


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

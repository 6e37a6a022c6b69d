"""A step of an action fails, hangs or loses its pod: that is as it was, or nothing is left."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from agent_node import (
    FUNCTION,
    HELD,
    AgentNode,
    Meanwhile,
    agent_node,
    ask,
    empty_again,
    function,
    gpu,
    memory,
    names,
    needs_node,
    pod,
    promised,
    traces,
    used,
)
from standin_gpus import MB, begun, enter, until, uuid
from standin_gpus import Node as Gpus

from inferx.core.types import FunctionId
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.gpus import gpu_state
from inferx.exec.agent.gpus.device import checkpointer
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError, Hook

pytestmark = needs_node

OUT_OF_MEMORY, UNKNOWN = 2, 999
NOBODY_QUIET, NOBODY_WAKES, UNDUMPABLE, STUBBORN, PLAIN = map(FunctionId, range(1, 6))


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpus]:
    made = Gpus.make(tmp_path_factory.mktemp("gpus") / "gpus")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(made, monkeypatch)
        yield made


def holding(gpus: Gpus, file: Path, number: int) -> object:
    """Return a function whose pods also hold a device file that CRIU cannot dump."""
    plain = function(gpus).launch.command
    command = ("/bin/sh", "-c", f'exec 9<{file}; exec "$@"', "sh", *plain)
    return function(gpus, number=number, launch={"command": command})


@pytest.fixture(scope="module")
def opened(
    tmp_path_factory: pytest.TempPathFactory, gpus: Gpus
) -> Iterator[tuple[AgentNode, Executor]]:
    odd = gpus.folder / "dev" / "odd"
    os.mknod(odd, 0o20666, os.makedev(10, 229))
    with (
        agent_node(
            tmp_path_factory.mktemp("node"),
            gpus,
            function(gpus),
            function(gpus, number=1, launch={"quiesce": Hook("/nothing")}),
            function(gpus, number=2, launch={"wake": Hook("/nothing")}),
            holding(gpus, odd, 3),
            holding(gpus, gpus.folder / "dev" / "nvidia1", 4),
            function(gpus, number=5, launch={"quiesce": None, "wake": None}),
        ) as made,
        made.agent() as agent,
    ):
        yield made, agent


@pytest.fixture
def node(opened: tuple[AgentNode, Executor]) -> Iterator[AgentNode]:
    """One node for all tests here, without pods, snapshots and injected failures for each."""
    made, agent = opened
    yield made
    empty_again(made, agent)


@pytest.fixture
def agent(node: AgentNode, opened: tuple[AgentNode, Executor]) -> Executor:
    assert node is opened[0]
    return opened[1]


def fails(work: Callable[[], object], line: str, phase: str, *, survived: bool) -> None:
    with pytest.raises(AgentError, match=line) as caught:
        work()
    assert "\n" not in str(caught.value)
    assert (caught.value.phase, caught.value.survived) == (phase, survived)


def nothing_is_left(node: AgentNode, agent: Executor) -> None:
    assert agent.pods.all() == []
    assert (used(agent.pods.node), promised(agent.pods)) == ([0, 0], {})
    assert not traces(node)


def serves(node: AgentNode, agent: Executor, before: object) -> None:
    one = agent.pods.get(pod(1))
    assert one.record.state == "ready"
    assert memory(one) == before
    assert (used(agent.pods.node), promised(agent.pods)) == ([HELD, 0], {1: [uuid(0)]})
    assert not traces(node, pods=[1])


def started(agent: Executor, number: FunctionId = FUNCTION) -> object:
    return memory(agent.pods.create(pod(1), number, gpu(0), Phases()))


def freeze(agent: Executor, *, leave: bool = True) -> Callable[[], object]:
    return lambda: agent.freezing.snapshot(pod(1), Phases(), leave=leave)


# -- GPU steps ---
def test_work_that_does_not_end_leaves_the_pod_as_it_was(
    node: AgentNode, agent: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = started(agent, PLAIN)
    monkeypatch.setattr(gpu_state, "LOCK_S", 0.2)
    copying = node.gpus.inject("copy", delay_ms=60_000)
    one = agent.pods.get(pod(1))
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(ask, one)
        until(begun(copying).exists)
        fails(
            lambda: agent.pods.suspend(pod(1), Phases()),
            "its GPU work did not end in time",
            "device-lock",
            survived=True,
        )
        copying.unlink()
        assert answer.result(10)
    serves(node, agent, before)
    agent.pods.suspend(pod(1), Phases())


@pytest.mark.parametrize("operation", ["lock", "checkpoint"])
@pytest.mark.parametrize("action", ["suspend", "snapshot"])
def test_driver_that_fails_on_the_way_to_the_host(
    node: AgentNode, agent: Executor, operation: str, action: str
) -> None:
    before = started(agent)
    node.gpus.inject(operation, error=UNKNOWN)
    suspend = action == "suspend"
    work = (lambda: agent.pods.suspend(pod(1), Phases())) if suspend else freeze(agent)
    locked = operation == "lock"
    fails(work, f"{operation} of process .*UNKNOWN", f"device-{operation}", survived=locked)
    if locked:
        serves(node, agent, before)
    else:
        nothing_is_left(node, agent)


@pytest.mark.parametrize("operation", ["lock", "checkpoint"])
def test_driver_that_hangs_on_the_way_to_the_host_costs_the_pod(
    node: AgentNode, agent: Executor, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    started(agent)
    monkeypatch.setattr(gpu_state, "LOCK_S", 0.2)
    monkeypatch.setattr(gpu_state, "MOVE_S", 0.2)
    monkeypatch.setattr(checkpointer, "_LOCK_GRACE_S", 0.1)
    node.gpus.inject(operation, delay_ms=60_000)
    work = freeze(agent)
    fails(work, "did not return within .* cannot be used", f"device-{operation}", survived=False)
    nothing_is_left(node, agent)


@pytest.mark.parametrize("action", ["resume", "restore", "snapshot"])
@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
def test_restore_onto_a_gpu_is_tried_once(
    node: AgentNode, agent: Executor, monkeypatch: pytest.MonkeyPatch, action: str, hangs: bool
) -> None:
    before, pods = started(agent), agent.pods
    if action == "resume":
        pods.suspend(pod(1), Phases())
    if action == "restore":
        freeze(agent)()
    if hangs:
        monkeypatch.setattr(gpu_state, "MOVE_S", 0.2 if action != "snapshot" else 0.5)
    broken = node.gpus.inject("restore", delay_ms=60_000 * hangs, error=OUT_OF_MEMORY)
    work = {
        "resume": lambda: pods.resume(pod(1), gpu(1), Phases()),
        "restore": lambda: agent.freezing.restore(pod(2), FUNCTION, gpu(1), Phases()),
        "snapshot": freeze(agent, leave=False),
    }[action]
    line = "cannot be used" if hangs else "OUT_OF_MEMORY .* the process is lost"
    fails(work, line, "device-restore", survived=False)
    broken.unlink()
    nothing_is_left(node, agent)
    if action == "resume":
        return
    # What was written is whole, and serves others.
    assert memory(agent.freezing.restore(pod(3), FUNCTION, gpu(0), Phases())) == before


def test_resumed_pod_that_cannot_be_unlocked_is_ended(node: AgentNode, agent: Executor) -> None:
    started(agent)
    agent.pods.suspend(pod(1), Phases())
    node.gpus.inject("unlock", error=UNKNOWN)
    fails(
        lambda: agent.pods.resume(pod(1), gpu(0), Phases()),
        "unlock of process .*UNKNOWN",
        "device-unlock",
        survived=False,
    )
    nothing_is_left(node, agent)


@pytest.mark.parametrize("operation", ["checkpoint", "restore"])
def test_killed_helper_is_replaced_and_its_pod_is_not_trusted(
    node: AgentNode, agent: Executor, operation: str
) -> None:
    before = started(agent)
    slow = node.gpus.inject(operation, delay_ms=60_000)
    helper = agent.pods.node.device._channel.pid  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(freeze(agent, leave=False))
        until(begun(slow).exists)
        os.kill(helper, signal.SIGKILL)
        slow.unlink()
        with pytest.raises(AgentError, match="no answer from the CUDA helper") as caught:
            answer.result(30)
    assert caught.value.phase == f"device-{operation}"
    if caught.value.survived:
        assert operation == "checkpoint"
        serves(node, agent, before)
    else:
        nothing_is_left(node, agent)
    assert memory(agent.pods.create(pod(2), FUNCTION, gpu(1), Phases())) == before
    agent.pods.suspend(pod(2), Phases())


# -- hooks, dumps, disks ---
def test_pod_that_will_not_be_quiet_serves_on(node: AgentNode, agent: Executor) -> None:
    before = started(agent, NOBODY_QUIET)
    fails(freeze(agent), "/nothing: answered 404", "quiesce", survived=True)
    serves(node, agent, before)


def test_restored_pod_that_does_not_wake_is_ended(node: AgentNode, agent: Executor) -> None:
    started(agent, NOBODY_WAKES)
    freeze(agent)()
    fails(
        lambda: agent.freezing.restore(pod(2), NOBODY_WAKES, gpu(0), Phases()),
        "/nothing: answered 404",
        "wake",
        survived=False,
    )
    nothing_is_left(node, agent)


def test_pod_that_holds_a_gpu_after_its_checkpoint_is_not_dumped(
    node: AgentNode, agent: Executor
) -> None:
    before, phases = started(agent, STUBBORN), Phases()
    fails(
        lambda: agent.freezing.snapshot(pod(1), phases, leave=True),
        "still holds .*/dev/nvidia1",
        "verify",
        survived=True,
    )
    assert names(phases)[-1] == "verify"
    serves(node, agent, before)


def test_pod_that_cannot_be_dumped_serves_on(node: AgentNode, agent: Executor) -> None:
    before = started(agent, UNDUMPABLE)
    fails(freeze(agent), "cannot be dumped: .*", "dump", survived=True)
    serves(node, agent, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m,mode=0700", "inferx-test", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(MB)):
            pass
    with suppress(OSError), (folder / "filler2").open("wb", buffering=0) as file:
        while file.write(bytes(64)):
            pass


@pytest.mark.parametrize("step", ["room", "dump", "commit"])
@pytest.mark.parametrize("leave", [False, True], ids=["goes on", "ends"])
def test_full_disk_leaves_no_snapshot(
    tmp_path: Path, gpus: Gpus, small_disk: Path, step: str, leave: bool
) -> None:
    with agent_node(tmp_path, gpus, store=small_disk / "nvme") as node, node.agent() as agent:
        before = started(agent)
        phases = Meanwhile(step, lambda: fill(small_disk))
        dumped_and_ended = leave and step == "commit"
        with pytest.raises(AgentError) as caught:
            agent.freezing.snapshot(pod(1), phases, leave=leave)
        assert caught.value.survived != dumped_and_ended
        assert names(phases)[-1] == step
        assert agent.pods.node.store.everything() == []
        if dumped_and_ended:
            assert agent.pods.all() == []
            assert used(agent.pods.node) == [0, 0]
        else:
            assert memory(agent.pods.get(pod(1))) == before
        # The disk is ours to unmount, and no leak.
        left = [one for one in traces(node, pods=[1]) if not one.startswith("mount")]
        assert not left


# -- pods that die ---
SNAPSHOT = ["quiesce", "room", "lock", "checkpoint", "verify", "dump"]
RESUME = ["thaw", "device-restore", "unlock", "wake", "health"]
CREATE = ["health"]


@pytest.mark.parametrize(
    ("action", "step"),
    [("snapshot", step) for step in SNAPSHOT]
    + [("resume", step) for step in RESUME]
    + [("create", step) for step in CREATE],
)
def test_pod_killed_at_any_step_leaves_nothing(
    node: AgentNode, agent: Executor, action: str, step: str
) -> None:
    pods = agent.pods
    if action != "create":
        started(agent)
    if action == "resume":
        pods.suspend(pod(1), Phases())

    def kill() -> None:
        for pid in pods.node.sandbox.pids("pod-1"):
            os.kill(pid, signal.SIGKILL)
        if action != "resume" or step != "thaw":  # A frozen process ends when it is thawed.
            until(lambda: not pods.node.sandbox.live())

    phases = Meanwhile(step, kill)
    work = {
        "snapshot": lambda: agent.freezing.snapshot(pod(1), phases, leave=False),
        "resume": lambda: pods.resume(pod(1), gpu(1), phases),
        "create": lambda: pods.create(pod(1), FUNCTION, gpu(0), phases),
    }[action]
    with pytest.raises(AgentError) as caught:
        work()
    assert "\n" not in str(caught.value)
    assert not caught.value.survived
    assert pods.node.store.everything() == []
    nothing_is_left(node, agent)


def test_command_that_cannot_be_started_leaves_nothing(tmp_path: Path, gpus: Gpus) -> None:
    bad = function(gpus, launch={"command": (sys.executable, "-c", "raise SystemExit(3)")})
    with agent_node(tmp_path, gpus, bad) as node, node.agent() as agent:
        told = "ended before it was ready|ended as soon as it was started"
        with pytest.raises(AgentError, match=told) as caught:
            agent.pods.create(pod(1), FUNCTION, gpu(0), Phases())
        # It ends within its start or after, as the machine has it.
        assert caught.value.phase in {"start", "health"}
        assert not caught.value.survived
        nothing_is_left(node, agent)

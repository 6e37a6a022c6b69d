"""The checkpointer against the stand-in driver: every transition, error, wait and death."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin_gpus import (
    MB,
    Node,
    Tenant,
    begun,
    ended,
    enter,
    libraries,
    mig_uuid,
    tenant,
    until,
    uuid,
)

from inferx.exec.agent.gpus.device import CudaCheckpointer, NoCheckpointer, gpu_files
from inferx.exec.agent.gpus.device.states import LEGAL
from inferx.exec.agent.gpus.nvml import NvmlInventory
from inferx.exec.agent.ports import AgentError, DeviceCheckpointer, GpuProcess

CONTEXT = 2 * MB
PLAIN = ("--api", "ctypes")  # Starts faster; test_nvml shows that both are alike.


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    node = Node.make(tmp_path / "node", gpus=2, memory=64 * MB, context=CONTEXT)
    enter(node, monkeypatch)
    return node


@pytest.fixture
def device(node: Node) -> Iterator[CudaCheckpointer]:
    checkpointer = CudaCheckpointer()
    yield checkpointer
    checkpointer.close()


@pytest.fixture
def pod(node: Node) -> Iterator[Tenant]:
    with tenant(node, gpu_mb=16, visible="0", extra=PLAIN) as pod:
        yield pod


@dataclass(frozen=True)
class Standing:
    """A node, tenant and checkpointer for all tests here that leave the tenant running."""

    node: Node
    pod: Tenant
    device: CudaCheckpointer


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder = tmp_path_factory.mktemp("standing") / "node"
    node = Node.make(folder, gpus=2, memory=64 * MB, context=CONTEXT)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(node, monkeypatch)
        with tenant(node, gpu_mb=16, visible="0", extra=PLAIN) as pod:
            device = CudaCheckpointer()
            assert device.probe().available
            yield Standing(node, pod, device)
            device.close()


def calls(
    device: DeviceCheckpointer, *, timeout_s: float = 5.0
) -> dict[str, Callable[[int], None]]:
    return {
        "lock": lambda pid: device.lock(pid, timeout_s=timeout_s),
        "checkpoint": lambda pid: device.checkpoint(pid, timeout_s=timeout_s),
        "restore": lambda pid: device.restore(pid, gpu_map={}, timeout_s=timeout_s),
        "unlock": lambda pid: device.unlock(pid, timeout_s=timeout_s),
    }


def suspend(device: DeviceCheckpointer, pid: int) -> None:
    device.lock(pid, timeout_s=5)
    device.checkpoint(pid, timeout_s=5)


def resume(device: DeviceCheckpointer, pid: int, **gpu_map: str) -> None:
    device.restore(pid, gpu_map=gpu_map, timeout_s=5)
    device.unlock(pid, timeout_s=5)


def helper_pid(device: CudaCheckpointer) -> int:
    assert device._channel is not None
    return device._channel.pid


def test_memory_moves_to_the_host_and_back(standing):
    node, pod, device = standing.node, standing.pod, standing.device
    inventory = NvmlInventory()
    before = pod.get()
    gpu_held, host_held = inventory.gpus()[0].memory_used, pod.rss()
    assert gpu_held == 16 * MB + CONTEXT
    files = tuple(str(file) for file in (node.folder / "dev").glob("nvidia0"))
    assert gpu_files(pod.pid) == files, "none only where we may not make device files"
    assert device.state(pod.pid).name == "running"

    device.lock(pod.pid, timeout_s=5)
    assert device.state(pod.pid).name == "locked"
    assert inventory.gpus()[0].memory_used == gpu_held
    device.checkpoint(pod.pid, timeout_s=5)

    assert device.state(pod.pid).name == "checkpointed"
    assert inventory.gpus()[0].memory_used == 0
    assert inventory.processes() == ()
    # The kernel counts resident pages in batches: a few may not be in yet.
    assert 15 * MB <= pod.rss() - host_held < 20 * MB
    assert gpu_files(pod.pid) == ()

    device.restore(pod.pid, gpu_map={}, timeout_s=5)
    assert device.state(pod.pid).name == "locked"
    device.unlock(pod.pid, timeout_s=5)

    assert device.state(pod.pid).name == "running"
    assert inventory.gpus()[0].memory_used == gpu_held
    assert pod.rss() - host_held < 4 * MB
    after = pod.get()
    assert after["gpu_crcs"] == before["gpu_crcs"]
    assert after["counter"] == before["counter"] + 1


def test_a_locked_process_answers_only_what_needs_no_gpu(standing):
    pod, device = standing.pod, standing.device
    suspend(device, pod.pid)

    assert pod.get("/count")["pid"] == pod.pid
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(pod.get, "/state")
        time.sleep(0.05)
        assert not waits.done()
        resume(device, pod.pid)
        assert waits.result(5)["gpus"] == [uuid(0)]


ISOLATED = ("unshare", "--fork", "--kill-child", "--pid", "--mount-proc")
# A file system of devices without any, and none in the node's folder: as in a plain container.
BARE = (
    *ISOLATED,
    "sh",
    "-c",
    'rm "$STANDIN_GPUS"/dev/*; mount -t tmpfs none /dev; exec "$@"',
    "sh",
)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a pid namespace")
@pytest.mark.parametrize("within", [ISOLATED, BARE])
def test_a_process_in_a_pid_namespace_is_found_by_the_hosts_pid(node, device, within):
    inventory = NvmlInventory()
    with tenant(node, gpu_mb=4, visible="0", extra=PLAIN, within=within) as outer:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()
        pid = int(children)
        before = outer.get()
        assert before["pid"] == 1
        assert inventory.processes() == (GpuProcess(uuid(0), pid, 4 * MB + CONTEXT),)

        suspend(device, pid)
        assert inventory.processes() == ()
        resume(device, pid)

        assert outer.get()["gpu_crcs"] == before["gpu_crcs"]
        assert inventory.processes() == (GpuProcess(uuid(0), pid, 4 * MB + CONTEXT),)
    inventory.close()


def test_every_illegal_call_is_refused_by_us_and_by_the_driver(standing):
    pod, device = standing.pod, standing.device
    strangers = CudaCheckpointer()
    way = ("lock", "checkpoint", "restore", "unlock")
    state = "running"
    try:
        for step in way:
            for name, (legal, _) in LEGAL.items():
                if legal == state:
                    continue
                assert device.state(pod.pid).name == state
                with pytest.raises(AgentError, match=f"it is {state}, not {legal}$") as caught:
                    calls(device)[name](pod.pid)
                assert caught.value.phase == f"device-{name}"
                # Who knows nothing of the process is told by the driver.
                with pytest.raises(AgentError, match=f"ILLEGAL_STATE .it is not {legal}"):
                    calls(strangers)[name](pod.pid)
            calls(device)[step](pod.pid)
            state = LEGAL[step][1]
    finally:
        strangers.close()
    assert pod.get()["gpus"] == [uuid(0)]


def test_a_call_of_another_process_than_the_pid_was_is_not_judged_by_it(standing):
    pod, device = standing.pod, standing.device
    suspend(device, pod.pid)
    device._known[pod.pid].started -= 1  # As if the pid had been used again.

    with pytest.raises(AgentError, match="ILLEGAL_STATE"):
        device.lock(pod.pid, timeout_s=1)
    resume(device, pod.pid)


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 + 1], ids=["ours", "nobody"])
def test_a_process_without_gpu_state_has_none(standing, pid):
    device = standing.device
    assert device.state(pid).name == "none"
    for name, call in calls(device).items():
        with pytest.raises(AgentError, match="INVALID_VALUE") as caught:
            call(pid)
        assert caught.value.phase == f"device-{name}"


def test_a_lock_waits_for_work_that_runs_and_gives_up_in_time(standing):
    node, pod, device = standing.node, standing.pod, standing.device
    slow = node.inject("copy", delay_ms=60_000)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(pod.get, "/state")
        until(begun(slow).exists)
        begun_s = time.monotonic()
        with pytest.raises(AgentError, match=r"NOT_READY \(its GPU work did not end in time"):
            device.lock(pod.pid, timeout_s=0.1)
        assert 0.09 < time.monotonic() - begun_s < 10
        assert device.state(pod.pid).name == "running"
        lock = threading.Timer(0.05, slow.unlink)
        lock.start()
        device.lock(pod.pid, timeout_s=5)
        assert device.state(pod.pid).name == "locked"
        device.unlock(pod.pid, timeout_s=5)
        assert answer.result(5)["gpus"] == [uuid(0)]


def test_a_call_that_does_not_return_takes_its_helper_and_its_process_only(node, device, pod):
    with tenant(node, gpu_mb=1, visible="1", extra=PLAIN) as other:
        suspend(device, other.pid)
        device.lock(pod.pid, timeout_s=5)
        first = helper_pid(device)
        node.inject("checkpoint", pid=pod.pid, delay_ms=60_000)
        bystander = node.inject("restore", pid=other.pid, delay_ms=60_000)

        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(device.restore, other.pid, gpu_map={}, timeout_s=30)
            until(begun(bystander).exists)
            with pytest.raises(
                AgentError, match=r"checkpoint of process \d+ did not return within 0.2 s"
            ) as caught:
                device.checkpoint(pod.pid, timeout_s=0.2)
            assert caught.value.phase == "device-checkpoint"
            with pytest.raises(AgentError, match=f"killed because checkpoint of process {pod.pid}"):
                waits.result(5)

        assert ended(first)
        assert device.state(pod.pid).name == "failed"
        with pytest.raises(AgentError, match="it is failed, not checkpointed"):
            device.restore(pod.pid, gpu_map={}, timeout_s=1)
        # The driver finishes what it was asked; a new helper finds the other process usable.
        bystander.unlink()
        until(lambda: device.state(other.pid).name == "locked")
        device.unlock(other.pid, timeout_s=5)
        assert helper_pid(device) != first
        assert other.get()["gpus"] == [uuid(1)]


def test_a_helper_that_is_killed_in_the_middle_is_replaced(node, device, pod):
    device.lock(pod.pid, timeout_s=5)
    first = helper_pid(device)
    slow = node.inject("checkpoint", delay_ms=60_000)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(device.checkpoint, pod.pid, timeout_s=30)
        until(begun(slow).exists)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(
            AgentError, match="no answer from the CUDA helper: it ended with status -9"
        ):
            waits.result(5)
    slow.unlink()

    assert device.state(pod.pid).name == "checkpointed", "the driver went on"
    resume(device, pod.pid)
    assert helper_pid(device) != first
    assert pod.get()["gpus"] == [uuid(0)]


def test_a_helper_that_dies_between_calls_is_replaced_unseen(device, pod):
    suspend(device, pod.pid)
    first = helper_pid(device)
    os.kill(first, signal.SIGKILL)
    until(lambda: not device._channel.alive)

    resume(device, pod.pid)
    assert pod.get()["gpus"] == [uuid(0)]


def test_the_helper_ends_with_the_agent_however_it_ends(node, pod):
    slow = node.inject("lock", delay_ms=60_000)
    script = (
        "import sys, threading\n"
        "from inferx.exec.agent.gpus.device import CudaCheckpointer\n"
        "device = CudaCheckpointer()\n"
        "assert device.probe().available\n"
        f"args = dict(target=device.lock, args=({pod.pid},), kwargs=dict(timeout_s=50))\n"
        "threading.Thread(**args, daemon=True).start()\n"
        "print(device._channel.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    agent = subprocess.Popen(
        (sys.executable, "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with agent:
        helper = int(agent.stdout.readline())
        until(begun(slow).exists)
        assert not ended(helper)
        agent.kill()
    until(lambda: ended(helper))


def test_a_restore_without_memory_loses_the_process_and_is_never_tried_again(node, device, pod):
    suspend(device, pod.pid)
    with tenant(node, gpu_mb=50, visible="0", extra=PLAIN):
        with pytest.raises(AgentError, match=r"OUT_OF_MEMORY \(not enough free memory") as caught:
            device.restore(pod.pid, gpu_map={}, timeout_s=5)
        assert caught.value.phase == "device-restore"
    assert device.state(pod.pid).name == "failed"
    with pytest.raises(AgentError, match="it is failed, not checkpointed"):
        device.restore(pod.pid, gpu_map={}, timeout_s=5)
    stranger = CudaCheckpointer()
    assert stranger.state(pod.pid).name == "failed", "so says the driver, too"
    stranger.close()
    assert gpu_files(pod.pid) == ()


@pytest.mark.parametrize("call", ["checkpoint", "restore"])
def test_an_error_in_the_middle_loses_the_process(node, device, pod, call):
    device.lock(pod.pid, timeout_s=5)
    if call == "restore":
        device.checkpoint(pod.pid, timeout_s=5)
    node.inject(call, error=304)

    with pytest.raises(AgentError, match="CUDA_ERROR_OPERATING_SYSTEM"):
        calls(device)[call](pod.pid)
    assert device.state(pod.pid).name == "failed"


def test_a_process_moves_to_another_gpu(standing):
    pod, device = standing.pod, standing.device
    inventory = NvmlInventory()
    before = pod.get()
    suspend(device, pod.pid)

    resume(device, pod.pid, **{uuid(0): uuid(1), uuid(1): uuid(0)})

    after = pod.get()
    assert after["gpus"] == [uuid(1)]
    assert after["gpu_crcs"] == before["gpu_crcs"]
    assert [gpu.memory_used for gpu in inventory.gpus()] == [0, 16 * MB + CONTEXT]
    # And back, from where it is now.
    suspend(device, pod.pid)
    resume(device, pod.pid, **{uuid(0): uuid(1), uuid(1): uuid(0)})
    assert pod.get()["gpus"] == [uuid(0)]


def test_two_gpus_of_one_process_change_places(node, device):
    with tenant(node, gpu_mb=2, extra=PLAIN) as pod:
        before = pod.get()
        suspend(device, pod.pid)
        resume(device, pod.pid, **{uuid(0): uuid(1), uuid(1): uuid(0)})
        after = pod.get()
    assert before["gpus"] == [uuid(0), uuid(1)]
    assert after["gpus"] == [uuid(1), uuid(0)]
    assert after["gpu_crcs"] == before["gpu_crcs"]


@pytest.mark.parametrize(
    ("gpu_map", "expected"),
    [
        ({uuid(0): uuid(1)}, "INVALID_VALUE .*each GPU of its node once"),
        ({uuid(0): uuid(1), uuid(1): uuid(1)}, "must name each new one once"),
        ({"MIG-x": uuid(1), uuid(1): "MIG-x"}, "names them as GPU-UUID"),
        ({uuid(0): uuid(7), uuid(7): uuid(0)}, "INVALID_VALUE"),
        ({uuid(0): uuid(7), uuid(1): uuid(0)}, "INVALID_VALUE"),
        ({uuid(0): uuid(2), uuid(2): uuid(0), uuid(1): uuid(1)}, "INVALID_VALUE"),
    ],
)
def test_a_map_that_does_not_hold_leaves_the_process_checkpointed(standing, gpu_map, expected):
    pod, device = standing.pod, standing.device
    suspend(device, pod.pid)

    with pytest.raises(AgentError, match=expected):
        device.restore(pod.pid, gpu_map=gpu_map, timeout_s=5)
    assert device.state(pod.pid).name == "checkpointed"
    resume(device, pod.pid)
    assert pod.get()["gpus"] == [uuid(0)]


def test_a_process_that_came_to_another_node_needs_a_map_from_all_gpus_of_the_old_one(
    tmp_path, monkeypatch
):
    node = Node.make(tmp_path / "node", gpus=3)
    enter(node, monkeypatch)
    device = CudaCheckpointer()
    with tenant(node, gpu_mb=1, visible="0", extra=PLAIN) as pod:
        before = pod.get()
        suspend(device, pod.pid)
        a, b, c, d = node.become_another(gpus=4)

        with pytest.raises(AgentError, match="INVALID_VALUE"):
            resume(device, pod.pid)
        # That it saw one of them does not matter to the driver.
        with pytest.raises(AgentError, match="INVALID_VALUE"):
            resume(device, pod.pid, **{uuid(0): b})
        with pytest.raises(AgentError, match="INVALID_VALUE"):
            resume(device, pod.pid, **{a: b, b: a, c: c, d: d})
        assert device.state(pod.pid).name == "checkpointed"
        resume(device, pod.pid, **{uuid(0): d, uuid(1): a, uuid(2): c})

        after = pod.get()
    device.close()
    assert (after["gpus"], after["gpu_crcs"]) == ([d], before["gpu_crcs"])


def test_another_chip_is_refused(tmp_path, monkeypatch):
    node = Node.make(tmp_path / "node", names=("NVIDIA H100", "NVIDIA A100"))
    enter(node, monkeypatch)
    device = CudaCheckpointer()
    with tenant(node, gpu_mb=1, visible="0", extra=PLAIN) as pod:
        suspend(device, pod.pid)
        with pytest.raises(AgentError, match="INVALID_VALUE"):
            resume(device, pod.pid, **{uuid(0): uuid(1), uuid(1): uuid(0)})
    device.close()


def test_a_mig_device_cannot_be_checkpointed(tmp_path, monkeypatch):
    node = Node.make(tmp_path / "node", gpus=1, mig={0: [("1g.10gb", 64 * MB)]})
    enter(node, monkeypatch)
    device = CudaCheckpointer()
    with tenant(node, gpu_mb=1, visible=mig_uuid(0), extra=PLAIN) as pod:
        with pytest.raises(AgentError, match=r"OUT_OF_MEMORY .*a MIG device"):
            suspend(device, pod.pid)
        assert device.state(pod.pid).name == "failed"
    device.close()


def test_calls_for_different_processes_do_not_wait_for_each_other(node, device, pod):
    with tenant(node, gpu_mb=1, visible="1", extra=PLAIN) as other:
        device.lock(pod.pid, timeout_s=5)
        slow = node.inject("checkpoint", pid=pod.pid, delay_ms=60_000)
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(device.checkpoint, pod.pid, timeout_s=30)
            until(begun(slow).exists)
            suspend(device, other.pid)
            resume(device, other.pid)
            # The one of the same process waits for its turn, and not for ever.
            with pytest.raises(AgentError, match=r"another call .* not return within 0\.1 s"):
                device.restore(pod.pid, gpu_map={}, timeout_s=0.1)
            assert not waits.done()
            slow.unlink()
            waits.result(5)
        resume(device, pod.pid)


def test_the_open_files_of_a_process_that_is_gone_are_none():
    assert gpu_files(2**22 + 1) == ()
    assert gpu_files(os.getpid()) == ()


@pytest.mark.parametrize(
    ("cuda", "remap"), [(12080, "needs CUDA 13.0"), (13000, "yes"), (13040, "yes")]
)
def test_the_driver_says_what_it_can_do(tmp_path, monkeypatch, cuda, remap):
    node = Node.make(tmp_path / "node", cuda=cuda)
    enter(node, monkeypatch)
    device = CudaCheckpointer()

    capability = device.probe()

    assert capability.available
    assert capability.facts == {
        "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
        "library": str(libraries() / "libcuda.so.1"),
        "remap": remap,
        "custom_storage": "yes" if cuda == 13040 else "needs CUDA 13.4",
    }
    if cuda == 12080:
        with pytest.raises(AgentError, match=r"onto another GPU: .*CUDA 13\.0.* is 12\.8"):
            device.restore(1, gpu_map={uuid(0): uuid(1), uuid(1): uuid(0)}, timeout_s=1)
    device.close()
    assert device._channel is None


def test_what_is_missing_is_told_and_not_raised(tmp_path, monkeypatch):
    old = Node.make(tmp_path / "old", cuda=12040)
    empty = Node.make(tmp_path / "empty", gpus=0)
    slow = Node.make(tmp_path / "slow")
    slow.inject("init", delay_ms=60_000)
    (tmp_path / "libcuda.so.1").touch()  # No library, and found first.
    reasons = []
    for node in (old, empty, slow):
        enter(node, monkeypatch)
        device = CudaCheckpointer(start_timeout_s=0.3 if node is slow else 30)
        reasons.append(device.probe().reason)
        device.close()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    device = CudaCheckpointer()
    reasons.append(device.probe().reason)
    with pytest.raises(AgentError, match="no CUDA driver") as caught:
        device.lock(1, timeout_s=1)
    assert caught.value.phase == "device-helper"
    device.close()

    assert reasons[0] == "the driver's CUDA is 12.4: checkpoints need 12.8 or newer"
    assert reasons[1] == "cuInit: CUDA_ERROR_NO_DEVICE"
    assert reasons[2] == "CUDA did not initialise within 0.3 s"
    assert reasons[3].startswith("no CUDA driver: ")


def test_a_node_without_gpus_refuses_what_it_is_never_asked():
    device = NoCheckpointer("no GPU")

    assert device.probe().reason == "no GPU"
    assert device.state(os.getpid()).name == "none"
    for name, call in calls(device).items():
        with pytest.raises(AgentError, match=f"cannot {name} process 1: no GPU"):
            call(1)
    device.close()


@given(steps=st.lists(st.sampled_from((*LEGAL, "state", "forget")), max_size=12))
def test_any_sequence_of_calls_does_what_the_table_says(standing, steps: list[str]):

    pod, device = standing.pod, standing.device
    state = device.state(pod.pid).name
    for step in steps:
        match step:
            case "state":
                assert device.state(pod.pid).name == state
            case "forget":
                device._known.clear()  # So that the driver decides.
            case _ if LEGAL[step][0] == state:
                calls(device)[step](pod.pid)
                state = LEGAL[step][1]
            case _:
                with pytest.raises(AgentError):
                    calls(device)[step](pod.pid)
    assert device.state(pod.pid).name == state
    while state != "running":
        step = next(
            name for name, (legal, _) in LEGAL.items() if legal == state and name != "checkpoint"
        )
        calls(device)[step](pod.pid)
        state = LEGAL[step][1]

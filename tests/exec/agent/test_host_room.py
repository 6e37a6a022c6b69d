"""Host memory is promised once, and only until the kernel counts it itself."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inferx.exec.agent import host_memory, host_room
from inferx.exec.agent.host_memory import available_bytes, total_bytes
from inferx.exec.agent.host_room import HostRoom
from inferx.exec.agent.ports import AgentError, Launch, PodSpec
from inferx.exec.agent.processes.process import ProcessSandbox
from inferx.exec.agent.store import FolderTier

MIB = 1 << 20
LAUNCH = Launch(function="t/n/f@1", command=("/bin/sleep", "60"))


@pytest.fixture
def room(tmp_path: Path) -> HostRoom:
    return HostRoom(ProcessSandbox(tmp_path / "processes", contained=False))


def half_and_more() -> int:
    return (available_bytes() - host_room.MARGIN_BYTES) * 6 // 10


def test_of_two_at_once_that_do_not_fit_together_one_is_refused(room: HostRoom) -> None:
    size = half_and_more()

    def reserve(number: int) -> str:
        try:
            room.for_restore(f"pod-{number}", LAUNCH, size)
        except AgentError as error:
            return f"{error.phase}: {error}"
        return ""

    with ThreadPoolExecutor(8) as threads:
        said = list(threads.map(reserve, range(8)))
    assert said.count("") == 1
    for line in filter(None, said):
        assert line.startswith("host-memory: ")
        assert f"{size} promised to others" in line


def test_what_is_released_is_there_for_the_next(room: HostRoom) -> None:
    size = half_and_more()
    with pytest.raises(ValueError, match="broken"), room.for_restore("pod-1", LAUNCH, size):
        raise ValueError("broken")
    promise = room.for_restore("pod-2", LAUNCH, size)
    promise.release()
    promise.release()
    room.for_restore("pod-3", LAUNCH, size)


def test_a_promise_shrinks_as_the_pod_takes_it(room: HostRoom, tmp_path: Path) -> None:
    sandbox = room._sandbox
    hungry = ("/usr/bin/env", "python3", "-c", "b = b'x' * (64 << 20); import time; time.sleep(60)")
    launch = Launch(function="t/n/f@1", command=hungry)
    spec = PodSpec(pod="pod-1", launch=launch, folder=tmp_path / "pod-1")
    sandbox.start(spec)
    try:
        promise = room.for_restore("pod-1", launch, 80 * MIB)
        while sandbox.memory_bytes("pod-1") < 64 * MIB:
            os.sched_yield()
        assert 0 < room._untaken(promise) <= 16 * MIB
    finally:
        sandbox.stop("pod-1")


def test_a_limit_that_is_too_small_is_told(room: HostRoom) -> None:
    launch = Launch(function="t/n/f@1", command=("/bin/sleep", "60"), memory_bytes=MIB)
    with pytest.raises(AgentError, match=r"its function's limit is 1048576"):
        room.for_restore("pod-1", launch, 2 * MIB)


def test_a_start_reserves_what_its_function_says_and_no_more_than_its_limit(room: HostRoom) -> None:
    size = half_and_more()
    first = room.for_start("pod-1", LAUNCH, size)
    assert first.size_bytes == size
    with pytest.raises(AgentError, match=rf"pod-2: {size} bytes of host memory to start; the host"):
        room.for_start("pod-2", LAUNCH, size)
    limited = Launch(function="t/n/f@1", command=("/bin/sleep", "60"), memory_bytes=MIB)
    assert room.for_start("pod-3", limited, size).size_bytes == MIB
    first.release()
    room.for_start("pod-2", LAUNCH, size)


def test_a_snapshot_in_memory_and_a_pod_do_not_count_on_the_same_bytes(
    room: HostRoom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "meminfo"
    told.write_text(f"MemAvailable: {1256 << 10} kB\n")
    monkeypatch.setattr(host_memory, "MEMINFO", told)
    dram = FolderTier("dram", tmp_path / "dram", budget_bytes=1 << 50)
    nvme = FolderTier("nvme", tmp_path / "nvme", budget_bytes=1 << 50)
    room = HostRoom(room._sandbox, [dram, nvme])
    size = half_and_more()
    assert size == 600 * MIB
    with dram.begin(size) as staging:
        with pytest.raises(AgentError, match=r"the host has 4\d{8} to spare") as caught:
            room.for_start("pod-1", LAUNCH, size)
        assert caught.value.phase == "host-memory"
        # What is written is counted by the kernel.
        with (staging.folder / "pages").open("wb") as file:
            file.truncate(size)
        room.for_start("pod-1", LAUNCH, size).release()
    with room.for_start("pod-1", LAUNCH, size):
        with pytest.raises(AgentError, match="bytes do not fit") as caught:
            dram.begin(size)
        assert caught.value.phase == "room"
        nvme.require_room(1)
    dram.begin(size).abandon()
    shutil.rmtree(dram.root)
    room.for_start("pod-1", LAUNCH, size)


def test_the_kernel_is_asked_how_much_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 < available_bytes() < total_bytes()
    told = tmp_path / "meminfo"
    monkeypatch.setattr(host_memory, "MEMINFO", told)
    told.write_text("MemTotal:  8 kB\nMemFree: 1 kB\nMemAvailable: 5 kB\n")
    assert (total_bytes(), available_bytes()) == (8192, 5120)
    for text in ("MemTotal: 8 kB\n", "MemAvailable: much\n", "MemAvailable:\n"):
        told.write_text(text)
        with pytest.raises(AgentError, match=r"meminfo.* MemAvailable") as caught:
            available_bytes()
        assert "\n" not in str(caught.value)
    told.unlink()
    with pytest.raises(AgentError, match="MemTotal cannot be read"):
        total_bytes()

"""The inventory, through the real nvidia-ml-py and a stand-in library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from standin_gpus import MB, NAME, Node, enter, libraries, mig_uuid, tenant, until, uuid

from inferx.exec.agent.gpus.nvml import NvmlInventory
from inferx.exec.agent.ports import AgentError, Gpu, GpuProcess


@pytest.fixture
def inventory():
    inventory = NvmlInventory()
    yield inventory
    inventory.close()


def test_gpus_are_told_with_their_memory(tmp_path: Path, monkeypatch, inventory):
    enter(Node.make(tmp_path / "node", gpus=2, memory=512 * MB), monkeypatch)

    assert inventory.gpus() == tuple(
        Gpu(
            index=i,
            nvml_index=i,
            uuid=uuid(i),
            name=NAME,
            memory_total=512 * MB,
            memory_used=0,
        )
        for i in range(2)
    )
    assert inventory.driver == "580.159.04"
    assert inventory.processes() == ()


def test_probe_says_which_library_answered(tmp_path: Path, monkeypatch, inventory):
    enter(Node.make(tmp_path / "node", gpus=3, mig={2: [("1g.10gb", MB)]}), monkeypatch)

    capability = inventory.probe()

    assert capability.available
    assert capability.facts == {
        "driver": "580.159.04",
        "library": str(libraries() / "libnvidia-ml.so.1"),
        "gpus": "3",
        "mig_devices": "1",
    }


def test_mig_devices_follow_the_gpu_that_they_are_a_part_of(tmp_path, monkeypatch, inventory):
    parts = [("1g.10gb", 128 * MB), ("3g.40gb", 512 * MB)]
    enter(Node.make(tmp_path / "node", gpus=2, mig={0: parts}), monkeypatch)

    whole, first, second, other = inventory.gpus()

    # Each that a command can name has a number of its own; one that is cut has none.
    assert [each.index for each in (whole, first, second, other)] == [-1, 0, 1, 2]
    # NVML and CDI files call them by GPU and place.
    told = [(each.nvml_index, each.place) for each in (whole, first, second, other)]
    assert told == [(0, 0), (0, 0), (0, 1), (1, 0)]
    assert (whole.uuid, whole.mig_enabled, whole.parent) == (uuid(0), True, "")
    assert (other.uuid, other.mig_enabled) == (uuid(1), False)
    assert first == Gpu(
        index=0,
        nvml_index=0,
        uuid=mig_uuid(0),
        name=f"{NAME} MIG 1g.10gb",
        memory_total=128 * MB,
        memory_used=0,
        parent=uuid(0),
        mig_profile="1g.10gb",
    )
    assert (second.uuid, second.mig_profile, second.memory_total) == (
        mig_uuid(1),
        "3g.40gb",
        512 * MB,
    )


@pytest.mark.parametrize("api", ["bindings", "ctypes"])
def test_memory_of_processes_is_told_until_they_end(tmp_path, monkeypatch, inventory, api):
    node = Node.make(tmp_path / "node", gpus=2, context=2 * MB)
    enter(node, monkeypatch)

    with tenant(node, gpu_mb=8, visible=uuid(1), extra=("--api", api)) as pod:
        assert pod.get()["gpus"] == [uuid(1)]
        assert inventory.processes() == (GpuProcess(uuid(1), pod.pid, 10 * MB),)
        assert [gpu.memory_used for gpu in inventory.gpus()] == [0, 10 * MB]
        pod.post("/allocate?mb=5")
        assert inventory.processes() == (GpuProcess(uuid(1), pod.pid, 15 * MB),)
        pod.post("/quiesce")
        assert inventory.processes() == (GpuProcess(uuid(1), pod.pid, 10 * MB),)

    until(lambda: inventory.processes() == ())


def test_processes_share_a_gpus_memory_and_are_refused_beyond_it(tmp_path, monkeypatch, inventory):
    node = Node.make(tmp_path / "node", gpus=1, memory=32 * MB, context=2 * MB)
    enter(node, monkeypatch)

    with tenant(node, gpu_mb=10) as first, tenant(node, gpu_mb=10) as second:
        assert first.post("/allocate?mb=9")["status"] == 507
        assert first.post("/allocate?mb=8") == {"mb": 8}
        assert second.post("/allocate?mb=1")["status"] == 507
        held = {process.pid: process.memory_used for process in inventory.processes()}
        assert held == {first.pid: 20 * MB, second.pid: 12 * MB}


def test_a_process_on_a_mig_device_is_told_there_and_not_on_the_gpu(
    tmp_path, monkeypatch, inventory
):
    node = Node.make(tmp_path / "node", gpus=1, mig={0: [("1g.10gb", 64 * MB)]}, context=MB)
    enter(node, monkeypatch)

    with tenant(node, gpu_mb=4, visible=mig_uuid(0)) as pod:
        assert inventory.processes() == (GpuProcess(mig_uuid(0), pod.pid, 5 * MB),)
        assert [gpu.memory_used for gpu in inventory.gpus()] == [5 * MB, 5 * MB]


def test_a_gpu_that_is_lost_takes_no_others_with_it(tmp_path, monkeypatch, inventory):
    node = Node.make(tmp_path / "node", gpus=3)
    enter(node, monkeypatch)
    node.inject("lost.1")

    assert [(gpu.index, gpu.uuid) for gpu in inventory.gpus()] == [(0, uuid(0)), (2, uuid(2))]
    assert inventory.processes() == ()
    assert inventory.probe().facts["gpus"] == "2"


def test_a_gpu_that_is_lost_takes_its_devices_numbers_with_it(tmp_path, monkeypatch, inventory):
    parts = [("1g.10gb", 128 * MB), ("1g.10gb", 128 * MB), ("3g.40gb", 512 * MB)]
    node = Node.make(tmp_path / "node", gpus=2, mig={0: parts})
    enter(node, monkeypatch)
    assert [gpu.index for gpu in inventory.gpus()] == [-1, 0, 1, 2, 3]

    node.inject("lost.0")

    assert [(gpu.index, gpu.uuid) for gpu in inventory.gpus()] == [(3, uuid(1))]


def test_a_node_without_a_driver_has_no_gpus_and_a_reason(tmp_path, monkeypatch, inventory):
    enter(Node.make(tmp_path / "node"), monkeypatch)
    monkeypatch.setenv("STANDIN_GPUS", str(tmp_path / "none"))

    assert inventory.gpus() == ()
    assert inventory.processes() == ()
    assert inventory.driver == ""
    capability = inventory.probe()
    assert not capability.available
    assert capability.reason == "NVML: Driver Not Loaded"


def test_a_node_with_a_driver_but_no_gpu_says_so(tmp_path, monkeypatch, inventory):
    enter(Node.make(tmp_path / "node", gpus=0), monkeypatch)

    assert not inventory.probe().available
    assert inventory.probe().reason == "no GPU"


def test_a_driver_that_goes_away_is_an_error(tmp_path, monkeypatch, inventory):
    node = Node.make(tmp_path / "node")
    enter(node, monkeypatch)
    assert len(inventory.gpus()) == 2

    (node.folder / "gpus").unlink()

    with pytest.raises(AgentError, match=r"NVML, list of GPUs: Driver Not Loaded") as caught:
        inventory.gpus()
    assert caught.value.phase == "inventory"
    assert not inventory.probe().available


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("", "NVML: NVML Shared Library Not Found"),
        ("import sys; sys.modules['pynvml'] = None; ", "nvidia-ml-py cannot be imported: "),
    ],
)
def test_a_machine_without_the_library_has_a_reason(tmp_path: Path, before: str, reason: str):
    # A file that is no library, found first: the answer is the same on a machine with a driver.
    (tmp_path / "libnvidia-ml.so.1").touch()
    script = (
        f"{before}from inferx.exec.agent.gpus.nvml import NvmlInventory as I; i = I();"
        " print(i.gpus(), i.processes(), repr(i.driver), i.probe().available, i.probe().reason)"
    )
    env = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}

    told = subprocess.run(
        (sys.executable, "-c", script), env=env, capture_output=True, text=True, check=True
    )

    assert told.stdout.startswith(f"() () '' False {reason}")

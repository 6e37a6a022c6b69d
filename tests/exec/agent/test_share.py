"""What a pod's environment says, per share, and which snapshots are refused."""

import os
from pathlib import Path

import pytest
from mps_daemon import mps_daemon
from standin_gpus import MB, Node, enter, mig_uuid, tenant, uuid

from inferx.exec.agent.gpus.nvml import NvmlInventory
from inferx.exec.agent.gpus.share import check_checkpointable, shares
from inferx.exec.agent.ports import AgentError, Gpu, Share, SliceShape
from inferx.spec.shape import ENFORCEMENTS


class Fixed:
    """An inventory that is known."""

    driver = "580"

    def __init__(self, *gpus: Gpu) -> None:
        self._gpus = gpus

    def probe(self):
        raise NotImplementedError

    def gpus(self):
        return self._gpus

    def processes(self):
        return ()


def gpu(index: int, *, mig: bool = False) -> Gpu:
    return Gpu(
        index=-1 if mig else index,
        nvml_index=index,
        uuid=uuid(index),
        name="H100",
        memory_total=80_000 * MB,
        memory_used=0,
        mig_enabled=mig,
    )


PART = Gpu(
    index=2,
    nvml_index=2,
    uuid=mig_uuid(0),
    name="H100 MIG 1g.10gb",
    memory_total=10_000 * MB,
    memory_used=0,
    parent=uuid(2),
    mig_profile="1g.10gb",
)
GPUS = (gpu(0), gpu(1), gpu(2, mig=True), PART)


def part(name: str, *, milli: int = 500, size: int = 20_000 * MB) -> SliceShape:
    return SliceShape(gpu=name, milli_gpu=milli, hbm_bytes=size)


def share(name: str, **options) -> Share:
    return shares(Fixed(*GPUS), **options)[name]


def test_there_is_a_share_for_each_enforcement_level():
    assert tuple(shares(Fixed())) == ENFORCEMENTS


@pytest.mark.parametrize(
    ("name", "memory", "compute", "fault", "checkpointable"),
    [
        ("none", False, False, True, True),
        ("env", False, False, True, True),
        ("hook", True, False, True, False),
        ("mps", True, True, False, False),
        ("mig", True, True, True, False),
        ("exclusive", True, True, True, True),
    ],
)
def test_each_share_says_what_it_is_worth(name, memory, compute, fault, checkpointable):
    it = share(name)

    assert (it.memory_isolated, it.compute_isolated, it.fault_isolated) == (memory, compute, fault)
    assert it.checkpointable is checkpointable
    if checkpointable:
        check_checkpointable(it, "t/n/f@1")
    else:
        with pytest.raises(AgentError, match=rf"no snapshot of t/n/f@1: .*'{name}'") as caught:
            check_checkpointable(it, "t/n/f@1")
        assert caught.value.phase == "share"


def test_time_slices_show_gpus_by_uuid_in_the_order_of_the_slices():
    env = share("none").env((part(uuid(1)), part(uuid(0))), GPUS)

    both = f"{uuid(1)},{uuid(0)}"
    assert env == {"CUDA_VISIBLE_DEVICES": both, "NVIDIA_VISIBLE_DEVICES": both}


def test_a_pod_without_slices_sees_no_gpu():
    assert share("env").env((), GPUS) == {
        "CUDA_VISIBLE_DEVICES": "",
        "NVIDIA_VISIBLE_DEVICES": "void",
    }


def test_a_cap_tells_the_engine_its_part_rounded_down():
    slices = (part(uuid(0), size=26_664 * MB), part(uuid(1), size=30_000 * MB))

    env = share("env").env(slices, GPUS)

    assert env["INFERX_GPU_MEMORY_FRACTION"] == "0.3333"
    assert env["INFERX_GPU_MEMORY_BYTES"] == str(26_664 * MB)


def test_mps_limits_memory_by_the_pods_own_count_of_gpus():
    slices = (part(uuid(1), milli=250, size=8_192 * MB), part(uuid(0), milli=300))

    env = share("mps", mps_pipes=Path("/run/mps")).env(slices, GPUS)

    assert env["CUDA_MPS_PIPE_DIRECTORY"] == "/run/mps"
    assert env["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=8192M,1=20000M"
    assert env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "25"


def test_a_share_of_compute_is_never_none():
    env = share("mps").env((part(uuid(0), milli=1),), GPUS)

    assert env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "1"


def test_a_hook_is_loaded_before_the_driver(tmp_path: Path):
    library = tmp_path / "libvgpu.so"
    it = share("hook", hook=library)

    assert it.probe().reason == f"{library} is not there"
    library.touch()
    assert it.probe().available
    env = it.env((part(uuid(0)),), GPUS)
    assert env["LD_PRELOAD"] == str(library)
    assert (env["CUDA_DEVICE_MEMORY_LIMIT"], env["CUDA_DEVICE_SM_LIMIT"]) == ("20000m", "50")


def test_a_mig_slice_is_the_device():
    env = share("mig").env((part(mig_uuid(0), size=10_000 * MB),), GPUS)

    assert env["CUDA_VISIBLE_DEVICES"] == mig_uuid(0)
    assert env["INFERX_GPU_MEMORY_FRACTION"] == "1.0000"


@pytest.mark.parametrize(
    ("name", "slices", "expected"),
    [
        ("none", (part("GPU-9"),), "no GPU GPU-9 on this node"),
        ("env", (part(uuid(0)), part(uuid(0))), "two slices of"),
        ("env", (part(uuid(2)),), "is in MIG mode"),
        ("env", (part(uuid(0), size=80_001 * MB),), "which has 83886080000"),
        ("mps", (part(mig_uuid(0), size=MB),), "is a MIG device; its share is mig"),
        ("mig", (part(uuid(0)),), "is a whole GPU, not a MIG device"),
        ("mig", (), "1 MIG device, not 0"),
        ("exclusive", (part(uuid(0), milli=999),), "has 999 of 1000 milli"),
        ("hook", (part(uuid(0)),), "no library is configured"),
    ],
)
def test_slices_that_a_share_cannot_give_are_refused(name, slices, expected):
    with pytest.raises(AgentError, match=expected) as caught:
        share(name).env(slices, GPUS)
    assert caught.value.phase == "share"
    assert str(caught.value).startswith(f"share {name}: ")


def test_probes_say_what_is_missing(tmp_path: Path):
    nothing = shares(Fixed())
    cut = shares(Fixed(gpu(0, mig=True)), mps_pipes=tmp_path)
    whole = shares(Fixed(gpu(0)), mps_pipes=tmp_path)

    assert nothing["env"].probe().reason == "no GPU"
    assert cut["none"].probe().reason == "every GPU is in MIG mode"
    assert whole["mig"].probe().reason == "no MIG device"
    assert whole["hook"].probe().reason == "no library is configured"
    assert whole["mps"].probe().reason.startswith(f"no MPS control daemon at {tmp_path}")
    # A file alone, which outlives its daemon, or of some other process by now.
    for pid in ("", "not a number", "4194305", str(os.getpid())):
        (tmp_path / "nvidia-cuda-mps-control.pid").write_text(pid)
        assert not whole["mps"].probe().available
    with mps_daemon(tmp_path):
        assert whole["mps"].probe().available
    assert not whole["mps"].probe().available
    assert whole["exclusive"].probe().facts == {"devices": "1"}
    assert share("mig").probe().available


def test_a_probe_outlives_an_inventory_that_fails():
    class Broken(Fixed):
        def gpus(self):
            raise AgentError("NVML, list of GPUs: GPU is lost", phase="inventory")

    assert shares(Broken())["env"].probe().reason == "NVML, list of GPUs: GPU is lost"


def test_a_pod_sees_what_its_share_shows(tmp_path: Path, monkeypatch):
    node = Node.make(tmp_path / "node", gpus=3)
    enter(node, monkeypatch)
    inventory = NvmlInventory()
    slices = (part(uuid(2), size=MB), part(uuid(0), size=MB))

    env = shares(inventory)["env"].env(slices, inventory.gpus())

    with tenant(node, gpu_mb=1, visible=env["CUDA_VISIBLE_DEVICES"]) as pod:
        assert pod.get()["gpus"] == [uuid(2), uuid(0)]
    inventory.close()

"""Container Device Interface files: found, read, and made into what a container is given."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from inferx.exec.agent.containers.cdi.document import Device, read_devices
from inferx.exec.agent.containers.cdi.edits import merged
from inferx.exec.agent.containers.cdi.gpus import KIND, CdiGpus
from inferx.exec.agent.containers.oci import NO_EDITS, OciEdits
from inferx.exec.agent.gpus.declared import DeclaredGpus
from inferx.exec.agent.ports import AgentError, Capability, Gpu, Launch, Mount, PodSpec, SliceShape

NULL = Path("/dev/null").stat().st_rdev


class Inventory:
    """GPUs as a test wants them."""

    driver = "580.159.04"

    def __init__(self, *gpus: Gpu) -> None:
        self.all = gpus

    def probe(self) -> Capability:
        return Capability(name="gpu/test", available=True)

    def gpus(self) -> Sequence[Gpu]:
        return self.all

    def processes(self) -> Sequence[object]:
        return ()


def gpu(nvml_index: int, uuid: str, *, parent: str = "", place: int = 0, mig: bool = False) -> Gpu:
    return Gpu(
        # A file knows nothing of how commands number GPUs.
        index=-1 if mig else 10 + nvml_index + place,
        nvml_index=nvml_index,
        uuid=uuid,
        name="H100",
        memory_total=1,
        memory_used=0,
        parent=parent,
        place=place,
        mig_enabled=mig,
    )


def spec(*uuids: str, gpus: int = 1) -> PodSpec:
    slices = tuple(SliceShape(gpu=uuid, milli_gpu=1000, hbm_bytes=1) for uuid in uuids)
    launch = Launch(function="t/n/f@1", command=("x",))
    return PodSpec(pod="p", launch=launch, slices=slices, gpus=gpus, folder=Path("/p"))


def node(path: str, **more: object) -> dict[str, object]:
    return {"path": path, "hostPath": "/dev/null", **more}


def written(
    file: Path, devices: Mapping[str, object], common: object = None, **top: object
) -> Path:
    file.parent.mkdir(exist_ok=True)
    named = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
    told = {"cdiVersion": "0.5.0", "kind": KIND, "devices": named, **top}
    file.write_text(json.dumps(told | ({"containerEdits": common} if common else {})))
    return file


def read(*folders: Path) -> Mapping[str, Device]:
    return read_devices(folders, KIND)


def edits_of(folder: Path, name: str) -> OciEdits:
    device = read(folder)[name]
    return merged((device.common, device.own))


# As `nvidia-ctk cdi generate` writes it, with files of the test's own.
TOOLKIT = """
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
    hostPath: /dev/null
  - path: /dev/nvidia-uvm
    hostPath: /dev/null
    permissions: rwm
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-ctk
    - hook
    - create-symlinks
    - --link
    - libcuda.so.1::LIB/libcuda.so
    - --link
    - ../nowhere.so::LIB/libnowhere.so
    hookName: createContainer
    path: /usr/bin/nvidia-ctk
  - args:
    - nvidia-ctk
    - hook
    - update-ldcache
    - --folder
    - LIB
    hookName: createContainer
    path: /usr/bin/nvidia-ctk
  - args:
    - nvidia-cdi-hook
    - disable-device-node-modification
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: LIB/libcuda.so.580.159.04
    hostPath: HOST/libcuda.so.580.159.04
    options:
    - ro
    - nosuid
    - nodev
    - rbind
    - rprivate
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/null
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
      hostPath: /dev/null
  name: "1"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/null
    - path: /dev/nvidia1
      hostPath: /dev/null
  name: all
kind: nvidia.com/gpu
"""


@pytest.fixture
def toolkit(tmp_path: Path) -> Path:
    library = tmp_path / "libcuda.so.580.159.04"
    library.touch()
    (tmp_path / "libcuda.so.1").symlink_to(library.name)
    folder = tmp_path / "cdi"
    folder.mkdir()
    told = TOOLKIT.replace("LIB", "/usr/lib/gpu").replace("HOST", str(tmp_path))
    (folder / "nvidia.yaml").write_text(told)
    return folder


def test_what_the_toolkit_writes_is_done_without_its_hooks(toolkit: Path, tmp_path: Path):
    cdi = CdiGpus((toolkit,), Inventory(gpu(0, "GPU-a"), gpu(1, "GPU-b")))
    edits = cdi.edits(spec("GPU-b"))
    nodes = {one.path: (one.major, one.minor, one.access) for one in edits.devices}
    null = (os.major(NULL), os.minor(NULL), "rw")
    assert nodes == dict.fromkeys(("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia1"), null)
    # It may be moved to the other, which it does not see until then.
    assert [one.path for one in edits.withheld] == ["/dev/nvidia0"]
    source = str(tmp_path / "libcuda.so.580.159.04")
    # By its own name, which the host's link tells, and by the one that a hook would have made.
    names = ("libcuda.so", "libcuda.so.1", "libcuda.so.580.159.04")
    assert edits.mounts == tuple(Mount(source, f"/usr/lib/gpu/{name}") for name in names)
    assert edits.library_folders == ("/usr/lib/gpu",)
    assert edits.env == (("NVIDIA_VISIBLE_DEVICES", "void"),)
    probed = cdi.probe()
    assert probed.available, probed.reason
    assert probed.facts["files"] == str(toolkit / "nvidia.yaml")


def test_a_suspended_pod_has_all_but_its_gpus(toolkit: Path):
    cdi = CdiGpus((toolkit,), Inventory(gpu(0, "GPU-a"), gpu(1, "GPU-b")))
    with_gpu, without = cdi.edits(spec("GPU-a")), cdi.edits(spec())
    assert without.mounts == with_gpu.mounts
    assert [one.path for one in without.devices] == ["/dev/nvidiactl", "/dev/nvidia-uvm"]
    assert [one.path for one in without.withheld] == ["/dev/nvidia0", "/dev/nvidia1"]
    assert cdi.edits(spec(gpus=0)) == NO_EDITS


@pytest.mark.parametrize("name", ["GPU-b", "1", "gpu1"])
def test_a_gpu_is_found_by_uuid_or_index(tmp_path: Path, name: str):
    written(tmp_path / "c/a.json", {name: {"deviceNodes": [node("/dev/mine")]}})
    cdi = CdiGpus((tmp_path / "c",), Inventory(gpu(0, "GPU-a"), gpu(1, "GPU-b")))
    assert [one.path for one in cdi.edits(spec("GPU-b")).devices] == ["/dev/mine"]
    with pytest.raises(
        AgentError, match=r"GPU GPU-a: no CDI file in .*/c names GPU-a or 0 or gpu0"
    ):
        cdi.edits(spec("GPU-a"))
    assert "nvidia-ctk cdi generate" in cdi.probe().reason
    with pytest.raises(AgentError, match="no GPU GPU-x on this node"):
        cdi.edits(spec("GPU-x"))


def test_a_gpu_that_is_gone_holds_up_no_pod_of_another(tmp_path: Path):
    devices = {
        "GPU-a": {"deviceNodes": [node("/dev/nvidia0")]},
        "GPU-b": {"deviceNodes": [{"path": "/dev/no-such-gpu"}]},
    }
    written(tmp_path / "c/a.json", devices)
    cdi = CdiGpus((tmp_path / "c",), Inventory(gpu(0, "GPU-a"), gpu(1, "GPU-b")))
    assert [one.path for one in cdi.edits(spec("GPU-a")).devices] == ["/dev/nvidia0"]
    with pytest.raises(AgentError, match="no-such-gpu"):
        cdi.edits(spec("GPU-b"))


def test_a_uuid_is_surer_than_an_index(tmp_path: Path):
    devices = {
        name: {"deviceNodes": [node(f"/dev/{name}")]} for name in ("0", "1", "GPU-a", "GPU-b")
    }
    written(tmp_path / "c/a.json", devices)
    cdi = CdiGpus((tmp_path / "c",), Inventory(gpu(1, "GPU-a"), gpu(0, "GPU-b")))
    assert [one.path for one in cdi.edits(spec("GPU-a")).devices] == ["/dev/GPU-a"]


@pytest.mark.parametrize("name", ["MIG-y", "1:2", "mig1:2"])
def test_a_mig_device_is_found_by_uuid_or_by_its_place_on_its_gpu(tmp_path: Path, name: str):
    written(tmp_path / "c/a.json", {name: {"deviceNodes": [node("/dev/cap")]}, "1:0": {}})
    inventory = Inventory(
        gpu(1, "GPU-b", mig=True),
        gpu(1, "MIG-x", parent="GPU-b", place=0),
        gpu(1, "MIG-y", parent="GPU-b", place=2),
    )
    edits = CdiGpus((tmp_path / "c",), inventory).edits(spec("MIG-y"))
    assert [one.path for one in edits.devices] == ["/dev/cap"]
    assert edits.withheld == ()


def test_a_later_folder_wins_and_two_files_of_one_contradict_each_other(tmp_path: Path):
    for folder in ("a", "b"):
        written(tmp_path / folder / "x.json", {"0": {"env": [f"FROM={folder}"]}})
    written(tmp_path / "b" / "of-others.json", {"0": {}}, kind="example.com/gpu")
    found = read(tmp_path / "a", tmp_path / "b", tmp_path / "none")
    assert found["0"].own.env == ("FROM=b",)
    written(tmp_path / "b" / "y.yaml", {"0": {}})
    with pytest.raises(AgentError, match=r"b/y\.yaml: device 0 is named by .*b/x\.json"):
        read(tmp_path / "a", tmp_path / "b")


def test_a_file_that_is_written_anew_is_read_anew(tmp_path: Path):
    for value in ("A=1", "A=22"):
        written(tmp_path / "c/x.json", {"0": {"env": [value]}})
        assert read(tmp_path / "c")["0"].own.env == (value,)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("x.json", "{", "Expecting"),
        ("x.yaml", "a: [", "flow node"),
        ("x.yaml", "- 1", "Expected `object`, got `array`"),
        ("x.json", '{"kind": "nvidia.com/gpu", "devices": []}', "cdiVersion"),
        ("x.json", '{"cdiVersion": "2.0", "kind": "k", "devices": []}', "2.0; expected 0.x or 1.x"),
        ("x.yaml", "cdiVersion: 0.5.0\nkind: k\ndevices: [{name: 0}]", r"\$\.devices\[0\]\.name"),
    ],
)
def test_a_file_that_is_none_is_one_clear_line(tmp_path: Path, name: str, text: str, told: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(AgentError, match=told) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"CDI, {tmp_path / name}: ")
    assert "\n" not in str(caught.value)
    probed = CdiGpus((tmp_path,), Inventory(gpu(0, "GPU-a"))).probe()
    assert not probed.available
    assert name in probed.reason


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ({"deviceNodes": [{"path": "/dev/no-such-gpu"}]}, "/dev/no-such-gpu: No such file"),
        ({"deviceNodes": [{"path": "/dev/g", "hostPath": "/etc/passwd"}]}, "expected a character"),
        ({"deviceNodes": [{"path": "/dev/g", "type": "b", "major": 7}]}, "type 'b'"),
        ({"mounts": [{"hostPath": "/no/lib", "containerPath": "/lib/x"}]}, "/no/lib is not there"),
        ({"env": ["WORD"]}, "expected NAME=VALUE"),
        (
            {"hooks": [{"hookName": "createContainer", "path": "/x", "args": ["x", "strange"]}]},
            "hook 'strange' (/x) is not known",
        ),
    ],
)
def test_what_a_container_cannot_be_given_is_a_reason(tmp_path: Path, edits: object, told: str):
    written(tmp_path / "c/x.json", {"0": edits})
    probed = CdiGpus((tmp_path / "c",), Inventory(gpu(0, "GPU-a"))).probe()
    assert not probed.available
    assert told in probed.reason


def test_numbers_that_a_file_tells_need_no_file_of_the_host(tmp_path: Path):
    told = {"path": "/dev/nvidia7", "type": "c", "major": 195, "minor": 7, "fileMode": 0o20660}
    written(tmp_path / "c/x.json", {"0": {"deviceNodes": [told], "additionalGids": [44]}})
    edits = edits_of(tmp_path / "c", "0")
    (found,) = edits.devices
    assert (found.major, found.minor, found.mode) == (195, 7, 0o660)
    assert edits.groups == (44,)


def test_a_mount_can_be_written_where_the_file_says_so(tmp_path: Path):
    mount = {"hostPath": "/tmp", "containerPath": "/shared", "options": ["rw", "rbind"]}
    written(tmp_path / "c/x.json", {"0": {"mounts": [mount]}})
    assert edits_of(tmp_path / "c", "0").mounts == (Mount("/tmp", "/shared", False),)


def test_gpus_that_are_only_declared_are_in_no_container(tmp_path: Path):
    probed = CdiGpus((tmp_path,), DeclaredGpus(())).probe()
    assert (probed.available, probed.reason) == (False, "no GPU")

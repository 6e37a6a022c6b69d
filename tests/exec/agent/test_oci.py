"""The OCI spec of a pod: least privilege, and the same for all pods of a function."""

import json
from pathlib import Path

import pytest

from inferx.exec.agent.containers.leftovers import unmount_and_remove
from inferx.exec.agent.containers.oci import (
    NO_EDITS,
    DeviceNode,
    OciEdits,
    cgroup_of,
    check_name,
    runtime_spec,
)
from inferx.exec.agent.containers.rootfs import host_mounts, lay_out, without_what_is_there
from inferx.exec.agent.containers.shares import with_shares
from inferx.exec.agent.ports import AgentError, Launch, Mount, PodSpec


def pod(name: str = "p1", *, network: str = "", env: tuple = (), **launch: object) -> PodSpec:
    said = {"function": "t/n/f@1", "command": ("serve", "--fast"), **launch}
    return PodSpec(
        pod=name, launch=Launch(**said), network=network, env=env, folder=Path("/pods") / name
    )


def spec_of(spec: PodSpec, **more: object) -> dict:
    return runtime_spec(
        spec, root="rootfs", cgroup="/inferx/p1", criu_config=Path("/pods/p1/criu.conf"), **more
    )


def env_of(oci: dict) -> dict[str, str]:
    return dict(word.split("=", 1) for word in oci["process"]["env"])


def test_a_pod_has_no_privilege_and_a_root_that_it_cannot_write():
    oci = spec_of(pod())
    assert all(kept == [] for kept in oci["process"]["capabilities"].values())
    assert oci["process"]["noNewPrivileges"] is True
    assert oci["root"]["readonly"] is True
    assert oci["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert "/proc/sys" in oci["linux"]["readonlyPaths"]
    by_target = {mount["destination"]: mount for mount in oci["mounts"]}
    assert "ro" in by_target["/sys"]["options"]
    assert {by_target[path]["type"] for path in ("/tmp", "/run", "/dev/shm")} == {"tmpfs"}
    assert not any("cgroup" in mount["destination"] for mount in oci["mounts"])


def test_io_uring_is_told_as_absent_not_as_forbidden():
    rules = spec_of(pod())["linux"]["seccomp"]["syscalls"]
    answer = {name: rule["errnoRet"] for rule in rules for name in rule["names"]}
    assert {answer[f"io_uring_{call}"] for call in ("setup", "enter", "register")} == {38}
    assert answer["bpf"] == 1


def test_the_environment_is_the_images_then_devices_then_functions_then_the_shares():
    edits = OciEdits(env=(("A", "device"), ("B", "device")))
    spec = PodSpec(
        pod="p1",
        launch=Launch(function="f", command=("x",), env=(("B", "function"), ("C", "function"))),
        env=(("C", "share"),),
        folder=Path("/pods/p1"),
    )
    image = {"A": "image", "D": "image", "PATH": "/image"}
    env = env_of(spec_of(spec, edits=edits, image_env=image))
    expected = {"A": "device", "B": "function", "C": "share", "D": "image", "PATH": "/image"}
    assert env == expected | {"HOME": "/tmp"}
    assert env_of(spec_of(pod(port=8001)))["PORT"] == "8001"


def test_what_differs_between_pods_is_named_by_their_specs_alone():
    one, other = pod("one", network="/run/netns/a"), pod("other", network="/run/netns/b")
    first, second = spec_of(one), spec_of(other)
    networks = [spec["linux"]["namespaces"].pop() for spec in (first, second)]
    assert [network["path"] for network in networks] == ["/run/netns/a", "/run/netns/b"]
    assert first == second


def test_the_hosts_network_is_used_where_no_other_is_named():
    kinds = [one["type"] for one in spec_of(pod())["linux"]["namespaces"]]
    assert kinds == ["pid", "ipc", "uts", "mount"]


def test_the_images_program_is_run_where_the_function_names_none():
    own = spec_of(pod(), entrypoint=("/entry", "-x"))
    assert own["process"]["args"] == ["serve", "--fast"]
    images = spec_of(pod(image_entrypoint=True), entrypoint=("/entry", "-x"))
    assert images["process"]["args"] == ["/entry", "-x", "serve", "--fast"]


def test_a_pods_processes_are_bounded_and_its_processor_time_where_it_says_so():
    resources = spec_of(pod())["linux"]["resources"]
    assert resources["pids"] == {"limit": 8192}
    assert "cpu" not in resources
    for milli, quota in ((1500, 150_000), (1, 1_000)):
        limited = spec_of(pod(cpu_milli=milli))["linux"]["resources"]
        assert limited["cpu"] == {"quota": quota, "period": 100_000}


def test_a_limit_of_memory_is_set_only_where_there_is_one():
    assert spec_of(pod(memory_bytes=5))["linux"]["resources"]["memory"] == {"limit": 5}
    assert "memory" not in spec_of(pod())["linux"]["resources"]


def test_a_devices_edits_become_a_node_a_rule_mounts_and_words():
    edits = OciEdits(
        devices=(DeviceNode(path="/dev/nvidia0", major=195, minor=0),),
        withheld=(DeviceNode(path="/dev/nvidia1", major=195, minor=1),),
        mounts=(Mount("/usr/lib/libcuda.so.1", "/usr/lib/libcuda.so.1"),),
        env=(("NVIDIA_VISIBLE_DEVICES", "void"),),
        library_folders=("/usr/lib/a", "/usr/lib/b"),
        groups=(44,),
    )
    share = (("NVIDIA_VISIBLE_DEVICES", "GPU-1"),)
    oci = spec_of(pod(env=(*share, ("LD_LIBRARY_PATH", "/own"))), edits=edits)
    assert [node["path"] for node in oci["linux"]["devices"]] == ["/dev/nvidia0"]
    assert [rule.get("minor") for rule in oci["linux"]["resources"]["devices"]] == [None, 0, 1]
    assert oci["process"]["user"]["additionalGids"] == [44]
    assert env_of(oci)["LD_LIBRARY_PATH"] == "/own:/usr/lib/a:/usr/lib/b"
    assert oci["linux"]["devices"][0]["path"] == "/dev/nvidia0"
    assert oci["linux"]["resources"]["devices"][1] == {
        "allow": True,
        "type": "c",
        "major": 195,
        "minor": 0,
        "access": "rw",
    }
    bind = oci["mounts"][-1]
    assert bind["source"] == "/usr/lib/libcuda.so.1"
    assert "ro" in bind["options"]
    assert env_of(oci)["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_what_a_share_names_on_the_host_is_at_the_same_place_in_the_pod():
    mps = pod(env=(("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), ("OTHER", "/x")))
    assert with_shares(NO_EDITS, mps).mounts == (
        Mount("/tmp/nvidia-mps", "/tmp/nvidia-mps", False),
    )
    hook = pod(env=(("LD_PRELOAD", "/opt/libvgpu.so"),))
    assert with_shares(NO_EDITS, hook).mounts == (Mount("/opt/libvgpu.so", "/opt/libvgpu.so"),)


def test_files_that_the_hosts_root_shows_already_are_not_mounted_again(tmp_path: Path):
    for name in ("usr/lib/there", "elsewhere"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    there, other = str(tmp_path / "usr/lib/there"), str(tmp_path / "elsewhere")
    roots = (Mount(str(tmp_path / "usr"), str(tmp_path / "usr")),)

    def needed(*mounts: Mount) -> tuple[Mount, ...]:
        return without_what_is_there(OciEdits(mounts=mounts), roots).mounts

    assert needed(Mount(there, there)) == ()
    for kept in (Mount(other, there), Mount(other, "/gpu/lib/x")):
        assert needed(kept) == (kept,)
    with pytest.raises(AgentError, match="needs the driver where the host has it"):
        needed(Mount(other, str(tmp_path / "usr/lib/none")))


def test_a_mount_may_be_written_only_where_it_says_so():
    oci = spec_of(pod(mounts=(Mount("/models", "/models"), Mount("/w", "/w", read_only=False))))
    read, write = oci["mounts"][-2:]
    assert "ro" in read["options"]
    assert "rw" in write["options"]


def test_a_mount_is_covered_by_none_that_comes_later():
    roots = (Mount("/usr", "/usr"), Mount("/tmp/agent", "/tmp/agent"))
    asked = (Mount("/models", "/usr/models"), Mount("/w", "/tmp/agent/w"))
    oci = spec_of(pod(mounts=asked), root_mounts=roots)
    targets = [Path(mount["destination"]) for mount in oci["mounts"]]
    for number, target in enumerate(targets):
        assert not any(target.is_relative_to(later) for later in targets[number + 1 :])
    assert targets[-4:] == [Path(mount.target) for mount in (*roots, *asked)]


@pytest.mark.parametrize("path", ["models", "/a/../etc", ""])
def test_paths_that_are_not_absolute_are_refused(path: str):
    with pytest.raises(AgentError, match="absolute"):
        spec_of(pod(mounts=(Mount("/models", path),)))
    with pytest.raises(AgentError, match="absolute"):
        spec_of(pod(), edits=OciEdits(devices=(DeviceNode(path=path, major=1, minor=3),)))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a-", "a b", "a\n", "x" * 65, "ä"])
def test_a_name_that_is_not_a_plain_word_is_refused(name: str):
    with pytest.raises(AgentError, match="a name is"):
        check_name(pod(name), "start")


@pytest.mark.parametrize("parent", ["inferx", "/inferx", "/inferx/"])
def test_a_pods_cgroup_is_below_the_parent_that_was_named(parent: str):
    assert cgroup_of(parent, "p1") == "/inferx/p1"


def test_a_spec_is_json():
    assert json.loads(json.dumps(spec_of(pod(port=1)))) == spec_of(pod(port=1))


def test_a_root_of_the_hosts_files_has_what_programs_need_and_no_more(tmp_path: Path):
    host = tmp_path / "host"
    for name in ("usr/bin", "usr/own", "etc/ssl/certs", "etc/ssl/private", "proc", "tmp", "root"):
        (host / name).mkdir(parents=True)
    for name in ("passwd", "shadow", "hosts"):
        (host / "etc" / name).touch()
    (host / "bin").symlink_to("usr/bin")
    (host / "file").touch()
    apart = tmp_path / "apart"
    apart.mkdir()
    # What a folder shows already is not mounted again.
    mounts = host_mounts(host, installed=(host / "usr/own", apart))
    seen = ["/etc/hosts", "/etc/passwd", "/etc/ssl/certs", "/usr", str(apart)]
    assert [mount.target for mount in mounts] == sorted(seen)
    assert all(mount.read_only for mount in mounts)
    root = tmp_path / "pod" / "rootfs"
    lay_out(root, mounts, host)
    assert (root / "bin").readlink() == Path("usr/bin")
    assert (root / "proc").is_dir()
    assert (root / "etc/passwd").is_file()
    assert not any((root / name).exists() for name in ("file", "root", "etc/shadow"))
    with pytest.raises(AgentError, match="root"):
        lay_out(root, mounts, host)
    unmount_and_remove(root)
    unmount_and_remove(root)
    assert not root.exists()

"""The OCI runtime spec of a pod: what its container may see and do. Data in, data out.

Laws:
1. Least privilege: no capability, no new privileges, no device but those that are named, no kernel
   setting writable, what has no use in a pod refused by seccomp, and a bound on its processes.
2. What a pod writes is in memory: the root is read-only, and `/tmp`, `/run` and `/dev/shm` are
   tmpfs. So a dump carries all that a pod has written, and its memory limit covers it.
3. A restored pod has the spec of a started one; only names, network and edits may differ.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from inferx.exec.agent.ports import AgentError, Mount, PodSpec
from inferx.exec.agent.processes.cgroup import CPU_PERIOD_US, PIDS_MAX, cpu_quota_us

__all__ = [
    "NO_EDITS",
    "DeviceNode",
    "EditsFor",
    "OciEdits",
    "cgroup_of",
    "check_name",
    "no_edits",
    "runtime_spec",
]

OciSpec = dict[str, Any]

HOSTNAME = "pod"
"""The same for all: a clone keeps the name that was dumped."""

POD_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
"""What a pod may be called: runtimes take it as an id, and the kernel as a folder."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

TOOLKIT = "NVIDIA_VISIBLE_DEVICES"
"""Read by the runtime of NVIDIA's toolkit: what a CDI file says keeps it from adding them again."""

LIBRARIES = "LD_LIBRARY_PATH"

IO_URING = ("io_uring_setup", "io_uring_enter", "io_uring_register")
"""CRIU cannot dump a ring. Told that the kernel has none, libraries fall back to epoll."""

REFUSED = (
    *("add_key", "keyctl", "request_key", "bpf", "perf_event_open", "kexec_load"),
    *("kexec_file_load", "init_module", "finit_module", "delete_module", "open_by_handle_at"),
)
"""What no model server needs, and what has broken kernels before."""

MASKED = (
    *("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

ENOSYS = 38
EPERM = 1


class DeviceNode(msgspec.Struct, frozen=True, kw_only=True):
    """A character device that a pod may use."""

    path: str
    major: int
    minor: int
    mode: int = 0o666
    access: str = "rw"


class OciEdits(msgspec.Struct, frozen=True, kw_only=True):
    """What a device adds to a container, as the Container Device Interface says it.

    Hooks have no place here: a mount that a hook makes is unknown to the runtime, and CRIU refuses
    to dump it.

    Attributes:
        devices: What the pod has in `/dev`.
        withheld: What its cgroup would let it open, and it has no node of: it may be moved there.
        library_folders: Where its libraries are, looked through after all others.
        groups: That it belongs to, for devices that are not everybody's.
    """

    devices: tuple[DeviceNode, ...] = ()
    withheld: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    library_folders: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()


NO_EDITS = OciEdits()

EditsFor = Callable[[PodSpec], OciEdits]
"""Tells what a pod's slices need in its container."""


def check_name(spec: PodSpec, phase: str) -> None:
    """Refuse a name that would be another folder, or none.

    Raises:
        AgentError: It is not 1 to 64 letters, digits and dashes, or begins or ends with a dash.
    """
    if not POD_NAME.fullmatch(spec.pod):
        raise AgentError(
            f"pod {spec.pod!r}: a name is 1 to 64 letters, digits and dashes between them",
            phase=phase,
        )


def no_edits(spec: PodSpec) -> OciEdits:
    """Answer for a node without devices."""
    del spec
    return NO_EDITS


def cgroup_of(parent: str, pod: str) -> str:
    """Return a pod's cgroup, from the root of each hierarchy."""
    return str(PurePosixPath("/") / parent.strip("/") / pod)


def runtime_spec(
    pod: PodSpec,
    *,
    root: str,
    cgroup: str,
    criu_config: Path,
    root_mounts: Sequence[Mount] = (),
    edits: OciEdits = NO_EDITS,
    image_env: Mapping[str, str] | None = None,
    entrypoint: Sequence[str] = (),
) -> OciSpec:
    """Return the spec of a pod's container.

    Args:
        pod: What to run.
        root: Root folder: of the host, or relative to the bundle.
        cgroup: From the root of each hierarchy.
        criu_config: File with CRIU's options, read by the runtime at each dump and restore.
        root_mounts: What fills an empty root; mounted before the pod's own.
        edits: What the pod's devices add.
        image_env: What its image says of the environment; the function's own words win.
        entrypoint: The image's program, for a function that names none.

    Raises:
        AgentError: A mount's target or a device's path is not absolute.
    """
    launch = pod.launch
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    if pod.network:
        namespaces.append({"type": "network", "path": pod.network})
    for device in edits.devices:
        _absolute(pod, device.path)
    groups = {"additionalGids": list(edits.groups)} if edits.groups else {}
    env = _environment(pod, edits, image_env or {})
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0, **groups},
            "args": [*(entrypoint if launch.image_entrypoint else ()), *launch.command],
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": launch.cwd,
            "noNewPrivileges": True,
            "capabilities": {
                kind: [] for kind in ("bounding", "effective", "permitted", "inheritable")
            },
        },
        "root": {"path": root, "readonly": True},
        "hostname": HOSTNAME,
        "mounts": [
            # First: what they would cover is below them, such as an agent installed in `/tmp`.
            *_KERNEL_MOUNTS,
            *(_bind(pod, mount) for mount in (*root_mounts, *edits.mounts, *launch.mounts)),
        ],
        "annotations": {"org.criu.config": str(criu_config)},
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroup,
            "resources": {
                **_limits(pod),
                "devices": [
                    {"allow": False, "access": "rwm"},
                    *(_allowed(device) for device in (*edits.devices, *edits.withheld)),
                ],
            },
            "devices": [
                {
                    "path": device.path,
                    "type": "c",
                    "major": device.major,
                    "minor": device.minor,
                    "fileMode": device.mode,
                    "uid": 0,
                    "gid": 0,
                }
                for device in edits.devices
            ],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [
                    {"names": list(IO_URING), "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
                    {"names": list(REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
                ],
            },
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
        },
    }


def _environment(pod: PodSpec, edits: OciEdits, image_env: Mapping[str, str]) -> dict[str, str]:
    """Return a pod's variables: a function's words win over its image's and its devices'."""
    devices = dict(edits.env)
    env = {"PATH": PATH, "HOME": "/tmp", **image_env}  # noqa: S108 - the pod's own.
    env |= devices | dict(pod.launch.env) | dict(pod.env)
    if TOOLKIT in devices:
        env[TOOLKIT] = devices[TOOLKIT]
    if pod.launch.port:
        env["PORT"] = str(pod.launch.port)
    if edits.library_folders:
        before = env.get(LIBRARIES, "")
        env[LIBRARIES] = ":".join(filter(None, (before, *edits.library_folders)))
    return env


def _limits(pod: PodSpec) -> OciSpec:
    """Return what a pod may take of the host, at most."""
    launch = pod.launch
    limits: OciSpec = {"pids": {"limit": PIDS_MAX}}
    if launch.memory_bytes:
        limits["memory"] = {"limit": launch.memory_bytes}
    if launch.cpu_milli:
        quota = cpu_quota_us(launch.cpu_milli)
        limits["cpu"] = {"quota": quota, "period": CPU_PERIOD_US}
    return limits


def _allowed(device: DeviceNode) -> OciSpec:
    return {
        "allow": True,
        "type": "c",
        "major": device.major,
        "minor": device.minor,
        "access": device.access,
    }


_SAFE = ("nosuid", "noexec", "nodev")


def _kernel(kind: str, target: str, *options: str) -> OciSpec:
    return {"destination": target, "type": kind, "source": kind, "options": list(options)}


_KERNEL_MOUNTS = (
    _kernel("proc", "/proc", *_SAFE),
    _kernel("sysfs", "/sys", *_SAFE, "ro"),
    _kernel("tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
    _kernel("devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
    _kernel("tmpfs", "/dev/shm", *_SAFE, "mode=1777"),  # noqa: S108 - the pod's own.
    _kernel("mqueue", "/dev/mqueue", *_SAFE),
    _kernel("tmpfs", "/run", "nosuid", "nodev", "mode=755"),
    # Compilers of kernels run what they wrote there.
    _kernel("tmpfs", "/tmp", "nosuid", "nodev", "mode=1777"),  # noqa: S108 - the pod's own.
)


def _bind(pod: PodSpec, mount: Mount) -> OciSpec:
    _absolute(pod, mount.source)
    _absolute(pod, mount.target)
    access = "ro" if mount.read_only else "rw"
    return {
        "destination": mount.target,
        "type": "bind",
        # CRIU, which mounts it again at a restore, does not follow links.
        "source": os.path.realpath(mount.source),
        # Not recursive, and private: what is mounted below on the host is not the pod's to see.
        "options": ["bind", "private", access, "nosuid", "nodev"],
    }


def _absolute(pod: PodSpec, path: str) -> None:
    if not path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise AgentError(
            f"pod {pod.pod}: mounts and devices need absolute paths, not {path!r}", phase="start"
        )

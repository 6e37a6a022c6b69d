"""Files of the Container Device Interface: read, checked, and looked up by device.

Laws:
1. A folder that comes later wins over those before it, as `/var/run/cdi` over `/etc/cdi`. Two files
   of one folder that name the same device contradict each other: neither is believed.
2. A file that cannot be read as one says so wherever one of its kind could have been meant: it is
   not passed over.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from inferx.exec.agent.ports import AgentError

__all__ = ["ContainerEdits", "Device", "DeviceNodes", "Hook", "Mounted", "read_devices"]

SUFFIXES = (".json", ".yaml", ".yml")
FILE_BYTES_MAX = 8 << 20
FILES_KEPT = 64
MAJOR_VERSIONS = ("0", "1")


class DeviceNodes(msgspec.Struct, frozen=True, rename="camel"):
    """A device file; what is missing is as the host's own file has it."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""


class Mounted(msgspec.Struct, frozen=True, rename="camel"):
    """A file or folder of the host."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()


class Hook(msgspec.Struct, frozen=True, rename="camel"):
    """A program that a runtime would run at a container's start."""

    hook_name: str
    path: str
    args: tuple[str, ...] = ()


class ContainerEdits(msgspec.Struct, frozen=True, rename="camel"):
    """What a device, or a whole file of them, adds to a container."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNodes, ...] = ()
    mounts: tuple[Mounted, ...] = ()
    hooks: tuple[Hook, ...] = ()
    additional_gids: tuple[int, ...] = msgspec.field(default=(), name="additionalGids")


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device: the file that names it, and the edits of that file and its own."""

    file: Path
    common: ContainerEdits
    own: ContainerEdits


class _Named(msgspec.Struct, rename="camel"):
    name: str
    container_edits: ContainerEdits


class _File(msgspec.Struct, rename="camel"):
    cdi_version: str
    kind: str
    devices: list[_Named]
    container_edits: ContainerEdits = ContainerEdits()


def read_devices(folders: Sequence[Path], kind: str) -> Mapping[str, Device]:
    """Return the devices of a kind, as in `nvidia.com/gpu`, by name.

    Raises:
        AgentError: A file cannot be read, or two name the same device.
    """
    found: dict[str, Device] = {}
    for folder in folders:
        here: dict[str, Device] = {}
        for file in _files(folder):
            read = _read(file)
            if read.kind != kind:
                continue
            for device in read.devices:
                if device.name in here:
                    raise _bad(file, f"device {device.name} is named by {here[device.name].file}")
                here[device.name] = Device(
                    file=file, common=read.container_edits, own=device.container_edits
                )
        found |= here
    return found


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _bad(folder, str(error.strerror)) from error


def _read(file: Path) -> _File:
    try:
        now = file.stat()
        if now.st_size > FILE_BYTES_MAX:
            raise _bad(file, f"larger than {FILE_BYTES_MAX:,} bytes")
        return _parsed(file, (now.st_ino, now.st_size, now.st_mtime_ns))
    except OSError as error:
        raise _bad(file, f"cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=FILES_KEPT)
def _parsed(file: Path, written: tuple[int, int, int]) -> _File:
    """Return a file's content as it was when it was last `written`; YAML takes its time."""
    del written
    text = file.read_bytes()
    try:
        told: Any = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        read = msgspec.convert(told, type=_File)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        # A YAML error tells its place in several lines.
        raise _bad(file, " ".join(str(error).split())) from error
    if read.cdi_version.partition(".")[0] not in MAJOR_VERSIONS:
        raise _bad(file, f"cdiVersion {read.cdi_version}; expected 0.x or 1.x")
    return read


def _bad(where: Path, what: str) -> AgentError:
    return AgentError(f"CDI, {where}: {what}", phase="devices")

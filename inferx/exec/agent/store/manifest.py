"""What a snapshot is: a manifest beside its files, and the id that both spell.

The id is a digest of what a snapshot means: its function, how it was made, what it requires, and
the path, size and checksum of every file. When and how fast it was made is not part of it: the same
content made twice is one snapshot. The function is part of it, so two tenants never share an id,
however they choose the bytes of their memory.

On disk a manifest is JSON with sorted keys: the same manifest is the same bytes.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.ports import AgentError

__all__ = [
    "FILES",
    "ID_DIGITS",
    "MANIFEST",
    "VERSION",
    "Draft",
    "Entry",
    "GpuModel",
    "Manifest",
    "Phase",
    "Platform",
    "Sizes",
    "check_id",
    "decode",
    "encode",
    "finished",
    "read_manifest",
]

VERSION: Final = 2
MANIFEST: Final = "manifest.json"
"""The manifest's name in a snapshot's folder; its last file to be written."""
FILES: Final = "files"
"""The folder of a snapshot's files, apart so that no file of a dump can be the manifest."""
_MANIFEST_BYTES_MAX: Final = 16 << 20
_ID_BYTES: Final = 20
ID_DIGITS: Final = 2 * _ID_BYTES
_ID: Final = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")
_CHECKSUM: Final = re.compile(r"[0-9a-f]{32}")


class GpuModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One GPU or MIG device that a snapshot was taken on, in the order in which its pod saw it."""

    model: str
    uuid: str
    mig_profile: str = ""


class Platform(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a snapshot was made with, or what a node offers a pod: compared field by field.

    An empty field of a snapshot requires nothing.

    Attributes:
        architecture: Of the host, as in `x86_64`.
        cpu: Model name of the host's processor.
        kernel: Release of the host's kernel.
        driver: Version of the NVIDIA driver; empty where the pod has no GPU.
        gpus: What the pod has of GPUs.
        node_gpus: All whole GPUs of the host, if the pod has any: what a restore must map.
        image_digest: Of the image; empty where the pod runs on the host's files.
        command_digest: Of the function's command, environment and mounts.
        criu: Version of CRIU, and so for the next two.
    """

    architecture: str = ""
    cpu: str = ""
    kernel: str = ""
    driver: str = ""
    gpus: tuple[GpuModel, ...] = ()
    node_gpus: tuple[GpuModel, ...] = ()
    image_digest: str = ""
    command_digest: str = ""
    criu: str = ""
    runc: str = ""
    containerd: str = ""


class Sizes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Memory that a restored pod needs.

    Attributes:
        device_bytes: Of GPU memory, all GPUs together.
        host_bytes: Of host memory, device state in it while suspended not counted.
    """

    device_bytes: int = 0
    host_bytes: int = 0


class Phase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step of a snapshot's making, and how long it took."""

    name: str
    duration_ns: int


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file, by content; `path` is relative to the folder of files, with slashes."""

    path: str
    size_bytes: int
    xxh3_128: str


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What its maker knows of a snapshot before the files are counted.

    Attributes:
        function: `tenant/namespace/name@version`.
        created_ns: When, in nanoseconds since 1970.
    """

    function: str
    created_ns: int
    snapshotter: str
    platform: Platform
    sizes: Sizes = Sizes()
    phases: tuple[Phase, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole snapshot; see `Draft` for what its maker says."""

    version: int
    id: str
    function: str
    created_ns: int
    snapshotter: str
    platform: Platform
    sizes: Sizes
    files: tuple[Entry, ...]
    phases: tuple[Phase, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of the files; what a copy of it takes on a tier."""
        return sum(entry.size_bytes for entry in self.files)


class _Head(msgspec.Struct):
    version: int


def finished(draft: Draft, files: Sequence[Entry]) -> Manifest:
    """Return the manifest of a draft with these files, in any order."""
    unnamed = Manifest(
        version=VERSION,
        id="",
        function=draft.function,
        created_ns=draft.created_ns,
        snapshotter=draft.snapshotter,
        platform=draft.platform,
        sizes=draft.sizes,
        files=tuple(sorted(files, key=lambda entry: entry.path)),
        phases=draft.phases,
    )
    return msgspec.structs.replace(unnamed, id=_id_of(unnamed))


def _id_of(manifest: Manifest) -> str:
    meaning = msgspec.structs.replace(manifest, id="", created_ns=0, phases=())
    told = msgspec.json.encode(meaning, order="sorted")
    return hashlib.blake2b(told, digest_size=_ID_BYTES).hexdigest()


def check_id(snapshot: str) -> str:
    """Return an id as it is.

    Raises:
        AgentError: It is not one; ids become names of folders, so this is the guard of the paths.
    """
    if _ID.fullmatch(snapshot) is None:
        msg = f"{snapshot!r} is no snapshot id; expected {ID_DIGITS} hexadecimal digits"
        raise AgentError(msg, phase="manifest")
    return snapshot


def encode(manifest: Manifest) -> bytes:
    """Return a manifest as it is on disk."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def decode(told: bytes, *, where: str) -> Manifest:
    """Return the manifest that `encode` wrote.

    Args:
        told: The bytes.
        where: Whose they are, for errors.

    Raises:
        AgentError: Truncated or no JSON, of another version, of wrong types, with unsafe paths, or
            with an id that its content does not spell.
    """
    try:
        head = msgspec.json.decode(told, type=_Head)
    except msgspec.ValidationError as error:
        raise _bad(where, f"no manifest of a snapshot: {error}") from error
    except UNDECODABLE as error:
        raise _bad(where, f"corrupt or cut short: {error}") from error
    if head.version != VERSION:
        raise _bad(where, f"of version {head.version}, this program reads version {VERSION}")
    try:
        manifest = msgspec.json.decode(told, type=Manifest)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        raise _bad(where, f"not as expected: {error}") from error
    for entry in manifest.files:
        _check_entry(entry, where)
    if len({entry.path for entry in manifest.files}) != len(manifest.files):
        raise _bad(where, "names a file twice")
    if manifest.id != (spelt := _id_of(manifest)):
        raise _bad(where, f"has id {manifest.id!r}, but its content spells {spelt}")
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in a file.

    Raises:
        AgentError: As `decode`, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            told = file.read(_MANIFEST_BYTES_MAX + 1)
    except OSError as error:
        raise _bad(str(path), f"cannot be read: {error.strerror}") from error
    if len(told) > _MANIFEST_BYTES_MAX:
        raise _bad(str(path), f"larger than {_MANIFEST_BYTES_MAX:,} bytes")
    return decode(told, where=str(path))


def _check_entry(entry: Entry, where: str) -> None:
    path = PurePosixPath(entry.path)
    plain = str(path) == entry.path and "\0" not in entry.path
    if not plain or path.is_absolute() or ".." in path.parts or not path.parts:
        raise _bad(where, f"names the file {entry.path!r}; expected a plain relative path")
    if entry.size_bytes < 0 or _CHECKSUM.fullmatch(entry.xxh3_128) is None:
        raise _bad(where, f"tells no size and checksum of {entry.path!r}")


def _bad(where: str, what: str) -> AgentError:
    return AgentError(f"{where}: {what}", phase="manifest")

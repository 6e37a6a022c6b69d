"""Where a run came from: command, versions, commit, checksums, and the cluster it ran on.

Everything that differs between two runs of one command is under the one key `wall_clock`.
"""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec

import inferx
from inferx.core.types import NodeSpec

__all__ = [
    "FileFact",
    "GitFact",
    "Manifest",
    "NodeFact",
    "facts_of",
    "git_fact",
    "input_facts",
    "node_facts",
    "versions",
]

_PACKAGES: Final = ("inferx", "msgspec", "numpy", "pandas", "pyarrow", "simpy")
_GIT_DEADLINE_S: Final = 10
_CHUNK_BYTES: Final = 1 << 20


class FileFact(msgspec.Struct, frozen=True, kw_only=True):
    """One file, by content."""

    path: str
    size_bytes: int
    sha256: str


class GitFact(msgspec.Struct, frozen=True, kw_only=True):
    """The checkout that the package was imported from."""

    commit: str
    dirty: bool
    """Whether a tracked file differs from the commit."""


class NodeFact(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes that are alike, in the order of the cluster."""

    count: int
    instance_type: str
    gpu_type: str
    gpus: int
    hbm_bytes: int
    host_bytes: int
    nvme_bytes: int
    usd_per_hour: float


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What `manifest.json` holds."""

    format: int
    complete: bool
    command: list[str]
    policies: list[str]
    seeds: list[int]
    baseline: str | None
    slo_ttft_s: float
    warmup_s: float
    git: GitFact | None
    versions: dict[str, str]
    cluster: list[NodeFact]
    functions: int
    inputs: dict[str, FileFact]
    outputs: dict[str, FileFact]
    settings: dict[str, str]
    wall_clock: dict[str, str | float]


def facts_of(path: Path, shown: str) -> FileFact:
    """Return the checksum of one file; a directory is the hash of its files' names and hashes."""
    digest = hashlib.sha256()
    size = 0
    if path.is_dir():
        for child in sorted(child for child in path.rglob("*") if child.is_file()):
            name = child.relative_to(path).as_posix()
            fact = facts_of(child, name)
            digest.update(f"{fact.sha256} {name}\n".encode())
            size += fact.size_bytes
    else:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    return FileFact(path=shown, size_bytes=size, sha256=digest.hexdigest())


def _git(arguments: Sequence[str], folder: Path) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, no shell.
            [git, "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            check=True,
            text=True,
            timeout=_GIT_DEADLINE_S,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def git_fact(folder: Path | None = None) -> GitFact | None:
    """Return commit and dirtiness of the checkout that holds `folder`; None where there is none.

    By default the package's own: an installed wheel has no commit, only a version. A package that
    lies in a virtual environment inside somebody's checkout is not part of that checkout.
    """
    folder = Path(inferx.__file__).parent if folder is None else folder
    if not _git(["ls-files", "--", "."], folder):
        return None
    commit = _git(["rev-parse", "HEAD"], folder)
    changed = _git(["status", "--porcelain", "--untracked-files=no"], folder)
    if commit is None or changed is None:
        return None
    return GitFact(commit=commit, dirty=bool(changed))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def versions() -> dict[str, str]:
    """Return Python's version and those of the packages that shape the result."""
    found = {package: _version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **found}


def node_facts(nodes: Sequence[NodeSpec]) -> list[NodeFact]:
    """Return runs of alike nodes, which keeps a large cluster's manifest short."""
    facts: list[NodeFact] = []
    for node in nodes:
        fact = NodeFact(
            count=1,
            instance_type=node.instance_type,
            gpu_type=node.gpu_type,
            gpus=node.gpus,
            hbm_bytes=node.hbm_bytes,
            host_bytes=node.host_bytes,
            nvme_bytes=node.nvme_bytes,
            usd_per_hour=node.usd_per_hour,
        )
        last = facts[-1] if facts else None
        if last is not None and msgspec.structs.replace(last, count=1) == fact:
            facts[-1] = msgspec.structs.replace(last, count=last.count + 1)
        else:
            facts.append(fact)
    return facts


def input_facts(inputs: Mapping[str, Path]) -> dict[str, FileFact]:
    """Return the checksum of every input, by the name of its role."""
    return {role: facts_of(path, str(path)) for role, path in sorted(inputs.items())}

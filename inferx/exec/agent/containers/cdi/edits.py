"""From what a device's file says to what a container is given: devices, mounts, environment.

Hooks are not run. CRIU would not know the mounts that they make, and a restored container never
meets them. What those of NVIDIA's toolkit do is done with mounts and the environment instead, which
a restored container has, too:

- `create-symlinks`, and the links that `update-ldcache` makes of libraries' own names: the file is
  mounted under that name as well. Which names a library has the host knows: links beside it.
- `update-ldcache`: its folders come last in `LD_LIBRARY_PATH`.
- `chmod`, `enable-cuda-compat` and `disable-device-node-modification` are left out: a pod can make
  no device nodes, and runs on the driver's own libraries.

Any other is refused: what it would have done is not known.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from inferx.exec.agent.containers.cdi.document import ContainerEdits, DeviceNodes, Hook, Mounted
from inferx.exec.agent.containers.oci import DeviceNode, OciEdits
from inferx.exec.agent.ports import AgentError, Mount

__all__ = ["merged", "node_of"]

NEEDLESS = frozenset({"chmod", "enable-cuda-compat", "disable-device-node-modification"})
LINKS = "create-symlinks"
CACHES = frozenset({"update-ldcache", "create-soname-symlinks"})


def merged(parts: Sequence[ContainerEdits]) -> OciEdits:
    """Return what several edits add together; what two of them name is there once.

    Raises:
        AgentError: A device or a file is not there, or a hook is not known.
    """
    devices = {one.path: node_of(one) for part in parts for one in part.device_nodes}
    mounts = {one.container_path: _mount(one) for part in parts for one in part.mounts}
    links: dict[str, str] = {}
    folders: dict[str, None] = {}
    for part in parts:
        for hook in part.hooks:
            match _action(hook):
                case name if name in NEEDLESS:
                    pass
                case name if name == LINKS:
                    links |= dict(_links(hook))
                case name if name in CACHES:
                    folders |= dict.fromkeys(_values(hook, "--folder"))
                case name:
                    raise _refused(f"hook {name!r} ({hook.path}) is not known")
    for folder in folders:
        links |= _own_names(mounts.values(), folder)
    _follow(links, mounts)
    return OciEdits(
        devices=tuple(devices.values()),
        mounts=tuple(mounts[target] for target in sorted(mounts)),
        env=tuple(_pair(word) for part in parts for word in part.env),
        library_folders=tuple(folders),
        groups=tuple(sorted({gid for part in parts for gid in part.additional_gids})),
    )


def node_of(told: DeviceNodes) -> DeviceNode:
    """Return a device as a container has it: its numbers are those of the host's file.

    Raises:
        AgentError: It is not there, or no character device.
    """
    source = Path(told.host_path or told.path)
    major, minor, kind, mode = told.major, told.minor, told.type, told.file_mode
    if not kind or not (major or minor):
        try:
            there = source.stat()
        except OSError as error:
            raise _refused(f"device {source}: {error.strerror}") from error
        kind = "c" if stat.S_ISCHR(there.st_mode) else "b" if stat.S_ISBLK(there.st_mode) else "-"
        major, minor = os.major(there.st_rdev), os.minor(there.st_rdev)
        mode = stat.S_IMODE(there.st_mode) if mode is None else mode
    if kind not in {"c", "u"}:
        raise _refused(f"device {source} is of type {kind!r}; expected a character device")
    return DeviceNode(
        path=told.path,
        major=major,
        minor=minor,
        mode=0o666 if mode is None else stat.S_IMODE(mode),
        # To make nodes is nothing that a pod can do.
        access=(told.permissions or "rw").replace("m", ""),
    )


def _mount(told: Mounted) -> Mount:
    if not Path(told.host_path).exists():
        raise _refused(f"{told.host_path} is not there, for {told.container_path}")
    return Mount(told.host_path, told.container_path, "rw" not in told.options)


def _action(hook: Hook) -> str:
    """Return what a hook of the toolkit does: the word after the program, or after `hook`."""
    words = [word for word in hook.args[1:] if word != "hook"]
    return words[0] if words else Path(hook.path).name


def _values(hook: Hook, option: str) -> Iterator[str]:
    words = iter(hook.args)
    for word in words:
        name, equals, value = word.partition("=")
        if name == option:
            yield value if equals else next(words, "")


def _links(hook: Hook) -> Iterator[tuple[str, str]]:
    """Yield links and what each leads to, as `--link TO::LINK` says."""
    for value in _values(hook, "--link"):
        to, _, link = value.partition("::")
        yield link, str(PurePosixPath(link).parent / to)


def _own_names(mounts: Iterable[Mount], folder: str) -> Mapping[str, str]:
    """Return the names under which the host finds a folder's libraries, and where they lead."""
    found: dict[str, str] = {}
    for mount in mounts:
        target, source = PurePosixPath(mount.target), Path(mount.source)
        if str(target.parent) != folder or not source.is_file():
            continue
        for beside in source.parent.glob(f"{source.name.partition('.so')[0]}.so*"):
            if beside.is_symlink() and beside.samefile(source):
                found[str(target.parent / beside.name)] = mount.target
    return found


def _follow(links: Mapping[str, str], mounts: dict[str, Mount]) -> None:
    """Mount each link's file under the link's name; one that leads to nothing mounted is left."""
    for link in links:
        to, seen = os.path.normpath(links[link]), {link}
        while to not in mounts and to in links and to not in seen:
            seen.add(to)
            to = os.path.normpath(links[to])
        if link not in mounts and to in mounts:
            mounts[link] = Mount(mounts[to].source, link, mounts[to].read_only)


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise _refused(f"environment {word!r}; expected NAME=VALUE")
    return name, value


def _refused(what: str) -> AgentError:
    return AgentError(f"CDI: {what}", phase="devices")

"""Functions as a node starts them: the container's part of the reference's function objects.

What bears on scheduling is read by `inferx.spec`; here is what that leaves aside: image, command,
environment, mounts, and where the pod serves and is asked for its health.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from inferx.core.errors import DescriptionError
from inferx.core.types import FunctionId, FunctionSpec
from inferx.core.units import MIB, NS_PER_S
from inferx.exec.agent.ports import Hook, Launch, Mount
from inferx.spec.document import is_list, read_document, shown
from inferx.spec.functions import load_functions
from inferx.spec.reference import objects_of
from inferx.spec.table import MAX_BYTES, Table

__all__ = ["Deployed", "load_deployed", "read_launch"]


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """One function: what the scheduler knows of it, and how it is started."""

    id: FunctionId
    spec: FunctionSpec
    launch: Launch


def load_deployed(path: Path) -> Mapping[FunctionId, Deployed]:
    """Return the functions of a file, or of a folder's files, numbered in order of their names.

    Raises:
        DescriptionError: A file is not what it should be; or a function has no command.
    """
    specs = {spec.name: spec for spec in load_functions(path)}
    launches: dict[str, Launch] = {}
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.suffix == ".json":
            for table in objects_of(read_document(file)):
                if table.text("objType" if "objType" in table else "type") == "function":
                    launches[table.text("name")] = read_launch(table)
    for name in specs:
        if name not in launches:
            raise DescriptionError(
                f"{path}: {name}: says nothing of how it is started; expected a function object"
            )
    deployed = [
        Deployed(id=FunctionId(number), spec=specs[name], launch=launches[name])
        for number, name in enumerate(sorted(specs))
    ]
    return MappingProxyType({one.id: one for one in deployed})


def read_launch(table: Table) -> Launch:
    """Return how the pods of a function object are started.

    Raises:
        DescriptionError: It has nothing to run, or its environment or mounts are none.
    """
    holder = table.table("object") if "object" in table else table
    spec = holder.table("spec")
    image = spec.text("image", "-")
    image = "" if image in {"-", "host"} else image
    entrypoint = spec.texts("entrypoint")
    command = entrypoint + spec.texts("commands")
    if not command and not image:
        raise spec.error("commands", "nothing to run", "a program and its arguments")
    extension = spec.table("inferx")
    version = spec.integer("version", 0, maximum=1 << 62)
    identity = "/".join(table.text(key) for key in ("tenant", "namespace", "name"))
    return Launch(
        function=f"{identity}@{version}",
        image=image,
        command=command,
        image_entrypoint=bool(image) and not entrypoint,
        env=tuple(_env(spec)),
        mounts=tuple(_mounts(spec)),
        port=spec.table("endpoint").integer("port", 8000, minimum=1, maximum=65_535),
        health=_health(spec),
        ready_timeout_s=extension.duration("ready_timeout", 600 * NS_PER_S) / NS_PER_S,
        quiesce=_hook(extension, "quiesce"),
        wake=_hook(extension, "wake"),
        memory_bytes=spec.table("resources").integer("Mem", 0, maximum=MAX_BYTES // MIB) * MIB,
    )


def _health(spec: Table) -> str:
    """Return where a pod is asked for its health: `probe` beside `endpoint` is an older form."""
    if isinstance(spec.values.get("probe"), dict):
        return _path(spec.table("probe").text("path", "/health"))
    return _path(spec.table("endpoint").text("probe", "/health"))


def _path(text: str) -> str:
    return text if text.startswith("/") else f"/{text}"


def _hook(extension: Table, key: str) -> Hook | None:
    if key not in extension:
        return None
    hook = extension.table(key)
    return Hook(_path(hook.text("path")), json.dumps(hook.values.get("body", {})).encode())


def _env(spec: Table) -> Iterator[tuple[str, str]]:
    """Yield the environment: a list of pairs, as the reference has it."""
    pairs = spec.values.get("envs", [])
    for index, pair in enumerate(pairs if is_list(pairs) else []):
        if not is_list(pair) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise spec.error("envs", f"{shown(pair)} at {index}", "a list of [name, value]")
        yield str(pair[0]), str(pair[1])


def _mounts(spec: Table) -> Iterator[Mount]:
    for mount in spec.tables("mounts"):
        read_only = mount.values.get("readonly", True) is not False
        yield Mount(mount.text("hostpath"), mount.text("mountpath"), read_only)

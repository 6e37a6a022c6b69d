"""Objects from files: JSON and YAML, one or several in each, from folders and standard input."""

import base64
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

import yaml

from inferx.client.errors import ClientError
from inferx.client.names import SYSTEM, TYPES, Name
from inferx.spec.document import Document, closest, is_list, is_table, parse_json, shown
from inferx.spec.reference import NAME, is_name

__all__ = ["Stated", "read_objects"]

SUFFIXES: Final = (".json", ".yaml", ".yml")
FILE_LIMIT: Final = 16 << 20
FILES_LIMIT: Final = 10_000
"""In folders: more than a cluster of thousands of functions has, fewer than a home folder."""
MOUNTED_LIMIT: Final = 1_000_000
_ORDER: Final = {kind: order for order, kind in enumerate(("tenant", "namespace", "funcpolicy"))}
"""What others need comes before them."""


class Stated(dict[str, object]):
    """An object that a file states. `source` says where; only its name has been looked at."""

    def __init__(self, values: dict[str, object], source: str) -> None:
        super().__init__(values)
        self.source = source
        kind = self.pop("objType", None) or self.get("type")
        if not isinstance(kind, str) or kind not in TYPES:
            near = closest(kind, TYPES) if isinstance(kind, str) else ""
            expected = f"one of {', '.join(TYPES)}{near}"
            raise ClientError(f"{source}: type: {shown(kind)}; expected {expected}")
        self["type"] = kind
        missing = {"tenant": TYPES[kind] == 1, "namespace": TYPES[kind] < 3, "name": False}
        for key, is_system in missing.items():
            found = self.setdefault(key, SYSTEM) if is_system else self.get(key)
            if not isinstance(found, str) or not is_name(found):
                raise ClientError(f"{source}: {key}: {shown(found)}; expected {NAME}")

    @property
    def name(self) -> Name:
        """What it is called."""
        return Name(*(str(self[key]) for key in ("type", "tenant", "namespace", "name")))


def read_objects(sources: Sequence[str]) -> tuple[Stated, ...]:
    """Read all objects, in the order in which they can be applied; nothing is sent before all are.

    Args:
        sources: Files and folders, whose files are taken at every depth; `-` is standard input.

    Raises:
        ClientError: A file that states no object, or states one a second time.
        DescriptionError: A file that is no JSON.
    """
    found: dict[Name, Stated] = {}
    for source in sources:
        for one in _objects(source):
            if one.name in found:
                raise ClientError(
                    f"{one.source}: {one.name} a second time, after {found[one.name].source};"
                    " expected each once"
                )
            found[one.name] = one
    return tuple(sorted(found.values(), key=lambda one: _ORDER.get(one.name.type, len(_ORDER))))


def _objects(source: str) -> Iterator[Stated]:
    if source == "-":
        yield from _parse("standard input", sys.stdin.buffer.read(FILE_LIMIT + 1), Path())
        return
    path = Path(source)
    if not path.is_dir():
        yield from _parse(source, _content(path), path.parent)
        return
    files = sorted(one for one in path.rglob("*") if one.suffix in SUFFIXES and one.is_file())
    if not files or len(files) > FILES_LIMIT:
        expected = f"1 to {FILES_LIMIT} files that end in {', '.join(SUFFIXES)}"
        raise ClientError(f"{path}: a folder with {len(files)} of them; expected {expected}")
    for file in files:
        yield from _parse(str(file), _content(file), file.parent)


def _content(path: Path) -> bytes:
    if not path.is_file() and not path.is_fifo():
        raise ClientError(f"{path}: no such file; expected JSON or YAML, a folder of it, or -")
    with path.open("rb") as file:
        return file.read(FILE_LIMIT + 1)


def _parse(source: str, content: bytes, folder: Path) -> Iterator[Stated]:
    if len(content) > FILE_LIMIT:
        raise ClientError(f"{source}: more than {FILE_LIMIT} bytes; expected objects")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClientError(f"{source}: not UTF-8; expected JSON or YAML") from error
    several = False
    for root in _documents(source, text):
        for one in root if is_list(root) else [root]:
            if one is None:
                continue
            if not is_table(one):
                raise ClientError(f"{source}: {shown(one)}; expected an object")
            several = True
            yield _with_files(Stated(one, source), folder)
    if not several:
        raise ClientError(f"{source}: no object in it; expected at least one")


def _documents(source: str, text: str) -> Iterator[object]:
    """Return a text's documents: what begins as JSON does is JSON, whose faults have a line."""
    if text.lstrip().startswith(("{", "[")):
        document: Document = parse_json(text, source)
        yield document.root
        return
    try:
        yield from cast("Iterator[object]", yaml.safe_load_all(text))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ClientError(f"{source}:{line}: {error.problem}; expected YAML") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ClientError(f"{source}: {error}; expected YAML") from error


def _with_files(one: Stated, folder: Path) -> Stated:
    """Put the content of files that a function mounts into it, where only their path is stated.

    Paths are relative to the file that states them.
    """
    body = one.get("object")
    spec = body.get("spec") if is_table(body) else one.get("spec")
    mounts = spec.get("mountfiles") if is_table(spec) else None
    for mount in mounts if is_list(mounts) else ():
        if not is_table(mount) or mount.get("data"):
            continue
        path = mount.get("src_path")
        if not isinstance(path, str) or not path:
            continue
        file = folder / path
        if not file.is_file():
            raise ClientError(f"{one.source}: mountfiles: {file}: no such file")
        with file.open("rb") as opened:
            content = opened.read(MOUNTED_LIMIT + 1)
        if len(content) > MOUNTED_LIMIT:
            raise ClientError(f"{one.source}: mountfiles: {file}: more than {MOUNTED_LIMIT} bytes")
        mount["data"] = base64.b64encode(content).decode()
    return one

"""Functions: `[[function]]` tables in TOML or JSON, or the reference's JSON objects.

`dump_functions` writes what a run used; `load_functions` reads it back to equal specs.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from inferx.core.errors import DescriptionError
from inferx.core.types import FunctionSpec
from inferx.spec.document import Document, read_document, shown
from inferx.spec.reference import objects_of, read_objects
from inferx.spec.serving import ServingSpec, serving_for
from inferx.spec.shape import (
    LABEL,
    Policy,
    build,
    is_label,
    read_policy,
    read_slice_shape,
)
from inferx.spec.table import Table, top_table

__all__ = [
    "ServingSpec",
    "dump_functions",
    "load_functions",
    "read_function",
    "serving_for",
]


def load_functions(path: Path) -> tuple[FunctionSpec, ...]:
    """Return the functions of a file, or of all `.json` and `.toml` files of a directory.

    Files are read in the order of their names. A trace names functions by `name`, so names must
    be unique, whatever their tenants and namespaces are.
    """
    documents = [read_document(file) for file in _files_of(path)]
    found: list[tuple[FunctionSpec, Table]] = []
    objects: list[Table] = []
    for document in documents:
        if _is_native(document):
            found += _native(document)
        else:
            objects += objects_of(document)
    found += read_objects(objects)
    first: dict[str, str] = {}
    for function, table in found:
        if function.name in first:
            found_text = f"{function.name} a second time (first in {first[function.name]})"
            raise table.error("name", found_text, "a name of its own for each function")
        first[function.name] = table.document.source
    if not found:
        raise DescriptionError(f"{path}: no function; expected at least one")
    return tuple(function for function, _ in found)


def dump_functions(functions: Sequence[FunctionSpec]) -> str:
    """Return canonical JSON: every field of every function, one function a line."""
    lines = [json.dumps(msgspec.to_builtins(function)) for function in functions]
    return '{"function": [\n' + ",\n".join(lines) + "\n]}\n"


def read_function(table: Table) -> FunctionSpec:
    """Read one native table, and refuse what it does not know."""
    name = table.text("name")
    tenant = table.text("tenant", "default")
    for key, text in (("name", name), ("tenant", tenant)):
        if not is_label(text):
            raise table.error(key, shown(text), LABEL)
    function = build(name, tenant, read_slice_shape(table), read_policy(table, Policy()))
    table.close()
    return function


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in {".json", ".toml"})
    if not files:
        raise DescriptionError(f"{path}: an empty directory; expected .json or .toml files")
    return files


def _is_native(document: Document) -> bool:
    root = document.root
    return document.syntax == "toml" or (isinstance(root, dict) and "function" in root)


def _native(document: Document) -> list[tuple[FunctionSpec, Table]]:
    top = top_table(document)
    tables = top.tables("function")
    top.close()
    if not tables:
        raise top.error(None, "no function", "at least one [[function]]")
    return [(read_function(table), table) for table in tables]

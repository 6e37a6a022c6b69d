"""What every object has around its body: type, place, labels; and how it is kept in the store.

A body is JSON, in the shape that the reference's files have. What it says is read when it is
needed, by the one reader of its type; `DataObject`s that come out of the store have passed it.
"""

from collections.abc import Mapping
from typing import cast

import msgspec

from inferx.exec.state.store import Entry
from inferx.spec.document import Document, is_table, parse_json, shown
from inferx.spec.reference import is_name
from inferx.spec.table import Table, top_table

__all__ = [
    "NEW",
    "REGISTRY",
    "SYSTEM_NAME",
    "Body",
    "DataObject",
    "Key",
    "decode",
    "encode",
    "key_of_store",
    "object_of",
    "parse_object",
    "table_of",
]

REGISTRY = "/registry/"
SYSTEM_NAME = "system"
"""Tenant and namespace of what belongs to no tenant or to no namespace."""
NEW = 0
"""The revision of an object that is not in the store."""

Body = Mapping[str, object]


class Key(msgspec.Struct, frozen=True, order=True):
    """What an object is called. `str` is as the store has it, without the registry's prefix."""

    type: str
    tenant: str
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """The key in the store."""
        return f"{REGISTRY}{self}"

    def __str__(self) -> str:
        return f"{self.type}/{self.tenant}/{self.namespace}/{self.name}"


class DataObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One object. `revision` is the commit that wrote it, and never a part of what is written."""

    type: str
    tenant: str
    namespace: str
    name: str
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    object: Body
    revision: int = NEW

    @property
    def key(self) -> Key:
        """What it is called."""
        return Key(self.type, self.tenant, self.namespace, self.name)


def encode(one: DataObject) -> bytes:
    """Return an object as it is stored: equal objects give equal bytes."""
    return msgspec.json.encode(msgspec.structs.replace(one, revision=NEW), order="sorted")


def decode(entry: Entry) -> DataObject:
    """Return the object that an entry holds."""
    one = _DECODER.decode(entry.value)
    return msgspec.structs.replace(one, revision=entry.modified)


def key_of_store(path: str) -> Key | None:
    """Return what an object is called by its key in the store; None if no object is there."""
    parts = path.removeprefix(REGISTRY).split("/")
    if not path.startswith(REGISTRY) or len(parts) != 4 or not all(map(is_name, parts)):
        return None
    return Key(*parts)


def parse_object(text: str, source: str) -> DataObject:
    """Read one object from JSON, as the reference's files have it; its body is not read yet.

    The `object` around a `spec` may be missing, as in some published files.

    Raises:
        DescriptionError: It is not JSON, or not shaped like an object.
    """
    return object_of(top_table(parse_json(text, source)))


def object_of(table: Table) -> DataObject:
    """Return the object that a table describes; its body is not read yet."""
    table.opaque("channelRev", "srcEpoch")
    kind = table.text("objType" if "objType" in table else "type")
    tenant, namespace, name = (table.text(key) for key in ("tenant", "namespace", "name"))
    revision = table.integer("revision", NEW, maximum=(1 << 63) - 1)
    if "object" in table:
        body = table.table("object").values
    else:
        body = {key: table.values[key] for key in ("spec", "status") if key in table}
        if not body:
            raise table.error("object", "nothing", "what the object says")
    labels, annotations = _texts(table, "labels"), _texts(table, "annotations")
    table.close()
    return DataObject(
        type=kind,
        tenant=tenant,
        namespace=namespace,
        name=name,
        labels=labels,
        annotations=annotations,
        object=body,
        revision=revision,
    )


def table_of(one: DataObject) -> Table:
    """Return an object for reading; faults are told by their path in it."""
    root = cast("dict[str, object]", msgspec.to_builtins(one))
    root.pop("revision", None)
    parts = (one.type, one.tenant, one.namespace, one.name)
    source = str(one.key) if all(map(is_name, parts)) else "object"
    return Table(Document(source, "", "json", root), (), root)


def _texts(table: Table, key: str) -> Mapping[str, str]:
    """Return texts by name: a table, or the list of pairs that some published files have."""
    values: dict[str, str] = {}
    value = table.values.get(key)
    if key not in table or value is None or value == []:
        return values
    if not is_table(value):
        raise table.error(key, shown(value), "a table of texts")
    for name, text in value.items():
        if not isinstance(text, str):
            raise table.table(key).error(name, shown(text), "text")
        values[name] = text
    return values


_DECODER = msgspec.json.Decoder(DataObject)

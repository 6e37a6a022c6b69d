"""The types of objects, as a table: where each lives, who writes it, how its body is read."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import cast

import msgspec

from inferx.core.errors import DescriptionError
from inferx.exec.agent.deployed import read_launch
from inferx.exec.state.objects.bodies import (
    FunctionStatus,
    Gateway,
    Namespace,
    NodeInfo,
    Scheduler,
    Tenant,
)
from inferx.exec.state.objects.envelope import SYSTEM_NAME, Body, DataObject, encode, table_of
from inferx.exec.state.objects.fields import read_struct
from inferx.spec.document import closest, is_table, shown
from inferx.spec.reference import NAME, is_name, read_function_object, read_policy_object
from inferx.spec.table import Table

__all__ = ["KINDS", "OBJECT_BYTES_LIMIT", "Kind", "Place", "check_place", "checked"]

OBJECT_BYTES_LIMIT = 1_380_000
"""Of an object as it is stored: what a commit may hold, less what goes with it.

A megabyte of files is 1.34 MB in base64.
"""
LABELS_LIMIT = 64
LABEL_CHARACTERS_LIMIT = 256
ANNOTATION_BYTES_LIMIT = 256 * 1024
"""Of all annotations together, names and texts."""


class Place(Enum):
    """What the tenant and namespace of a type's objects are."""

    CLUSTER = "tenant and namespace are `system`"
    TENANT = "namespace is `system`"
    NAMESPACE = "in a namespace"


class Kind(msgspec.Struct, frozen=True):
    """One type. `normal` reads a body and returns it as it is stored."""

    name: str
    place: Place
    normal: Callable[[Table], Body]
    is_services: bool = False
    """Whether only services write it."""


def _struct(kind: type[msgspec.Struct]) -> Callable[[Table], Body]:
    def normal(table: Table) -> Body:
        body = read_struct(table.table("object"), kind)
        return cast("dict[str, object]", msgspec.to_builtins(body))

    return normal


def _function(table: Table) -> Body:
    """Return the specification alone: a version is given, and the status is an object of its own.

    Defaults are not filled in: whoever reads a function has them, and its author finds what they
    wrote.
    """
    read_function_object(table)
    read_launch(table)
    spec = dict(table.table("object").table("spec").values)
    spec.pop("version", None)
    return {"spec": spec}


def _policy(table: Table) -> Body:
    read_policy_object(table)
    body = table.table("object").values
    spec = body.get("spec")
    return dict(spec if is_table(spec) else body)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("tenant", Place.CLUSTER, _struct(Tenant)),
        Kind("namespace", Place.TENANT, _struct(Namespace)),
        Kind("function", Place.NAMESPACE, _function),
        Kind("funcpolicy", Place.NAMESPACE, _policy),
        Kind("funcstatus", Place.NAMESPACE, _struct(FunctionStatus), is_services=True),
        Kind("node_info", Place.CLUSTER, _struct(NodeInfo), is_services=True),
        Kind("scheduler", Place.CLUSTER, _struct(Scheduler), is_services=True),
        Kind("gateway", Place.CLUSTER, _struct(Gateway), is_services=True),
    )
}


def check_place(kind: str, *names: str) -> None:
    """Refuse a type that there is not, and what no tenant, namespace or object is called.

    Raises:
        DescriptionError: The first that is so.
    """
    if kind not in KINDS:
        expected = f"one of {', '.join(KINDS)}{closest(kind, KINDS)}"
        raise DescriptionError(f"type: {shown(kind)}; expected {expected}")
    for name in names:
        if not is_name(name):
            raise DescriptionError(f"{kind}: {shown(name)}; expected {NAME}")


def checked(one: DataObject) -> DataObject:
    """Return an object as it is stored, without what authors cannot say, such as its version.

    Raises:
        DescriptionError: It is not what its type asks for; the first fault, in one line.
    """
    table = table_of(one)
    kind = KINDS[table.text("type", choices=tuple(KINDS))]
    for key in ("tenant", "namespace", "name"):
        if not is_name(table.text(key)):
            raise table.error(key, shown(table.values[key]), NAME)
    _check_place(table, kind)
    _check_labels(table)
    normal = msgspec.structs.replace(one, object=kind.normal(table))
    size = len(encode(normal))
    if size > OBJECT_BYTES_LIMIT:
        raise table.error(None, f"{size} bytes", f"at most {OBJECT_BYTES_LIMIT}")
    return normal


def _check_place(table: Table, kind: Kind) -> None:
    keys = {Place.CLUSTER: ("tenant", "namespace"), Place.TENANT: ("namespace",)}
    for key in keys.get(kind.place, ()):
        table.text(key, choices=(SYSTEM_NAME,))
    reserved = ["tenant"] if kind.place is not Place.CLUSTER else []
    reserved += ["name"] if kind.name in {"tenant", "namespace"} else []
    # A tenant has policies of its own beside those of its namespaces.
    if kind.place is Place.NAMESPACE and kind.name != "funcpolicy":
        reserved.append("namespace")
    for key in reserved:
        if table.text(key) == SYSTEM_NAME:
            raise table.error(key, shown(SYSTEM_NAME), "another name; this one is the system's")


def _check_labels(table: Table) -> None:
    labels = table.table("labels")
    if len(labels.values) > LABELS_LIMIT:
        raise table.error("labels", f"{len(labels.values)} labels", f"at most {LABELS_LIMIT}")
    for key, text in labels.values.items():
        if len(str(text)) > LABEL_CHARACTERS_LIMIT or not str(text).isprintable():
            expected = f"at most {LABEL_CHARACTERS_LIMIT} printable characters"
            raise labels.error(key, shown(text), expected)
        if not all(is_name(part) for part in key.split("/")):
            raise table.error("labels", shown(key), f"names of {NAME}, with a / between parts")
    annotations = table.table("annotations")
    size = sum(len(f"{key}{text}".encode()) for key, text in annotations.values.items())
    if size > ANNOTATION_BYTES_LIMIT:
        raise table.error("annotations", f"{size} bytes", f"at most {ANNOTATION_BYTES_LIMIT}")

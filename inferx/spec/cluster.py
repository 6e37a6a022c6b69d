"""Clusters: a TOML file of node groups, or `TYPE=COUNT,...` of the catalogue's instance types."""

import re
from collections.abc import Sequence
from pathlib import Path

from inferx.core.errors import DescriptionError
from inferx.core.types import FunctionSpec, NodeSpec
from inferx.core.units import GIB
from inferx.spec.catalogue import catalogue, instance_type
from inferx.spec.document import Document, exists, read_document
from inferx.spec.hardware import Hardware, read_hardware
from inferx.spec.table import Table, top_table

__all__ = ["DEFAULT_DRIVER", "DEFAULT_ZONE", "MAX_NODES", "check_fit", "load_cluster", "misfits"]

DEFAULT_DRIVER = "580"
DEFAULT_ZONE = "zone-0"
MAX_NODES = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_INLINE = "TYPE=COUNT[,TYPE=COUNT...], such as g6e.12xlarge=2,p5.48xlarge=1"


def load_cluster(text: str) -> tuple[NodeSpec, ...]:
    """Return the nodes of a cluster.

    Args:
        text: A path to a TOML file, or the inline form `g6e.12xlarge=2,p5.48xlarge=1`. Text with
            an equals sign that names no file is the inline form.
    """
    if "=" in text and not exists(Path(text)):
        return _inline(text)
    return _nodes(read_document(Path(text)))


def _inline(text: str) -> tuple[NodeSpec, ...]:
    nodes: list[NodeSpec] = []
    for part in text.split(","):
        name, _, count = part.strip().partition("=")
        if not re.fullmatch(r"[0-9]{1,9}", count) or not 1 <= int(count) <= MAX_NODES or not name:
            raise DescriptionError(f"cluster {text!r}: {part.strip()!r}; expected {_INLINE}")
        if any(node.group == name for node in nodes):
            raise DescriptionError(f"cluster {text!r}: {name} twice; expected each type once")
        try:
            hardware = instance_type(name).hardware
        except DescriptionError as error:
            raise DescriptionError(f"cluster {text!r}: {error}") from None
        nodes += _group(name, name, hardware, int(count), DEFAULT_DRIVER, (DEFAULT_ZONE,))
    return tuple(nodes)


def _nodes(document: Document) -> tuple[NodeSpec, ...]:
    top = top_table(document)
    driver = top.text("driver", DEFAULT_DRIVER)
    groups = top.tables("group")
    top.close()
    if not groups:
        raise top.error(None, "no group", "at least one [[group]]")
    nodes: list[NodeSpec] = []
    names: set[str] = set()
    for table in groups:
        nodes += _read_group(table, driver, names, MAX_NODES - len(nodes))
    return tuple(nodes)


def _read_group(table: Table, driver: str, names: set[str], room: int) -> list[NodeSpec]:
    base = None
    kind = "custom"
    if "instance_type" in table:
        kind = table.text("instance_type", choices=catalogue().instances)
        base = instance_type(kind).hardware
    name = table.text("name", kind if base else None)
    if not _NAME.fullmatch(name):
        raise table.error("name", f"the text {name!r}", "letters, digits and - _ .")
    if name in names:
        expected = "a name of its own for each group" if "name" in table else "a name as well"
        raise table.error("name" if "name" in table else None, f"{name} a second time", expected)
    names.add(name)
    count = table.integer("count", 1, minimum=1, maximum=room)
    driver = table.text("driver", driver)
    if "zone" in table and "zones" in table:
        raise table.error("zones", "both zone and zones", "one of them")
    zones = table.texts("zones", (table.text("zone", DEFAULT_ZONE),))
    if not zones:
        raise table.error("zones", "an empty list", "at least one zone")
    hardware = read_hardware(table, base)
    table.close()
    return _group(name, kind, hardware, count, driver, zones)


def _group(
    name: str, kind: str, hardware: Hardware, count: int, driver: str, zones: Sequence[str]
) -> list[NodeSpec]:
    return [
        NodeSpec(
            name=f"{name}-{index}",
            group=name,
            zone=zones[index % len(zones)],
            instance_type=kind,
            gpu_type=hardware.gpu_type,
            platform=f"{hardware.gpu_type}/{driver}",
            gpus=hardware.gpus,
            hbm_bytes=hardware.hbm_bytes,
            host_bytes=hardware.host_bytes,
            nvme_bytes=hardware.nvme_bytes,
            links=hardware.links,
            usd_per_hour=hardware.usd_per_hour,
        )
        for index in range(count)
    ]


def misfits(functions: Sequence[FunctionSpec], nodes: Sequence[NodeSpec]) -> tuple[str, ...]:
    """Return a sentence for each function that would fit no node, even an empty one."""
    shapes = {
        (node.gpu_type, node.gpus, node.hbm_bytes, node.host_bytes): node.name for node in nodes
    }
    sentences: list[str] = []
    for function in functions:
        fits = any(
            function.gpu_type in {"Any", gpu_type}
            and function.gpus <= gpus
            and function.hbm_bytes <= hbm
            and function.host_bytes <= host
            for gpu_type, gpus, hbm, host in shapes
        )
        if not fits:
            offers = ", ".join(
                f"{name} of {gpus} x {gpu_type} with {hbm / GIB:.1f} GiB, host {host / GIB:.1f} GiB"
                for (gpu_type, gpus, hbm, host), name in list(shapes.items())[:4]
            )
            sentences.append(
                f"function {function.name}: {function.gpus} x {function.gpu_type} GPU with "
                f"{function.hbm_bytes / GIB:.1f} GiB each and {function.host_bytes / GIB:.1f} GiB "
                f"of host memory fit no node; expected at most what one node has ({offers})"
            )
    return tuple(sentences)


def check_fit(functions: Sequence[FunctionSpec], nodes: Sequence[NodeSpec]) -> None:
    """Raise `DescriptionError` when a function fits no node: its requests could never be served."""
    sentences = misfits(functions, nodes)
    if sentences:
        first, *others = sentences
        more = f" (and {len(others)} more functions)" if others else ""
        raise DescriptionError(first + more)

"""Prints what the gateway tells: tables for people, JSON and YAML for programs, bare names."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import click
import yaml
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from inferx.cli.client.command import Form
from inferx.client.names import Name

__all__ = [
    "age",
    "object_name",
    "print_objects",
    "print_page",
    "print_rows",
    "print_value",
    "table",
]

_Facts = Mapping[str, Any]
_WIDE: Final = 10_000
"""Columns of a page: a terminal wraps lines, and whoever reads a pipe cuts them as they like."""
_OBJECT: Final = ("type", "tenant", "namespace", "name", "revision")
_LABELS_SHOWN: Final = 60


def object_name(one: _Facts) -> Name:
    """Return what an object is called."""
    return Name(one["type"], one["tenant"], one["namespace"], one["name"])


def print_value(value: object, form: Form) -> None:
    """Print one value, as JSON or YAML."""
    if form == "yaml":
        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_objects(objects: Sequence[_Facts], form: Form) -> None:
    """Print objects."""
    if form == "table":
        columns = ("type", "tenant", "namespace", "name", "labels", "revision")
        print_page(table(columns, (_object_cells(one) for one in objects), right=("revision",)))
    else:
        print_rows(objects, form, columns=(), called=lambda one: str(object_name(one)))


def print_rows(
    rows: Sequence[_Facts],
    form: Form,
    *,
    columns: Sequence[str],
    called: Callable[[_Facts], str],
    cells: Callable[[_Facts], Iterable[str]] | None = None,
    right: Sequence[str] = (),
) -> None:
    """Print rows.

    Args:
        rows: What they are of.
        form: How.
        columns: Of the table.
        called: What `name` prints of a row.
        cells: What the table shows of a row; None shows its values by their column's name.
        right: Columns of numbers.
    """
    match form:
        case "table":
            shown = (
                cells(row) if cells else [_cell(row.get(column)) for column in columns]
                for row in rows
            )
            print_page(table(columns, shown, right=right))
        case "name":
            for row in rows:
                click.echo(called(row))
        case _:
            print_value([dict(row) for row in rows], form)


def table(
    columns: Sequence[str], rows: Iterable[Iterable[str]], *, right: Sequence[str] = ()
) -> Table:
    """Return a table without lines, which columns of other programs can cut."""
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(
            column.upper(), justify="right" if column in right else "left", no_wrap=True
        )
    for row in rows:
        # What others named is text, not markup.
        made.add_row(*map(Text, row))
    # Where there is no room for all columns, names are the last to be cut.
    made.columns[0].min_width = max(
        (cell_len(str(one)) for one in made.columns[0].cells), default=0
    )
    return made


def age(instant_ns: int | None) -> str:
    """Return how long ago an instant was, or how long it is until it; `-` where there is none."""
    if instant_ns is None:
        return "-"
    distance_s = abs(time.time_ns() - instant_ns) // 1_000_000_000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if distance_s >= size:
            return f"{distance_s // size}{unit}"
    return f"{distance_s}s"


def _object_cells(one: _Facts) -> Iterable[str]:
    labels = ",".join(f"{key}={text}" for key, text in one.get("labels", {}).items())
    cut = labels if len(labels) <= _LABELS_SHOWN else labels[: _LABELS_SHOWN - 3] + "..."
    kind, tenant, namespace, name, revision = (str(one.get(key, "")) for key in _OBJECT)
    return kind, tenant, namespace, name, cut, revision


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ",".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # of JSON
    return str(value).lower() if isinstance(value, bool) else str(value)


def print_page(*parts: RenderableType) -> None:
    """Print tables as wide as they are: a name that is cut short is no name."""
    console = Console(highlight=False, width=_WIDE)
    for part in parts:
        console.print(part)

"""Traces read and written, with what a person sees meanwhile and a program afterwards."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from inferx.cli.trace.tables import print_json, print_written
from inferx.sim.workload.read import TraceReader
from inferx.sim.workload.trace import Trace
from inferx.sim.workload.write import write_trace

__all__ = ["watched", "write"]


def watched(reader: TraceReader) -> Iterator[Trace]:
    """Read on, with a bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield from reader
        return
    columns = (TextColumn("reading {task.description}"), BarColumn(), TimeElapsedColumn())
    with ExitStack() as stack:
        console = Console(stderr=True)
        bar = stack.enter_context(Progress(*columns, console=console, transient=True))
        task = bar.add_task(reader.path.name, total=reader.bytes_total)
        for chunk in reader:
            bar.update(task, completed=reader.bytes_read)
            yield chunk


def write(
    out: Path,
    chunks: Iterable[Trace],
    *,
    overwrite: bool,
    as_json: bool,
    readers: Iterable[TraceReader] = (),
) -> None:
    """Write the trace and say what was written."""
    written = write_trace(out, chunks, overwrite=overwrite)
    dropped: dict[str, int] = {}
    for reader in readers:
        for why, count in reader.dropped.items():
            dropped[why] = dropped.get(why, 0) + count
    facts: dict[str, object] = {"path": str(out), **dataclasses.asdict(written), "dropped": dropped}
    if as_json:
        print_json(facts)
    else:
        print_written(facts)

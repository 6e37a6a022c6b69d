"""Writing: chunks of a Trace to InferX's Parquet format, in one pass and bounded memory."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from inferx.core.errors import DescriptionError
from inferx.sim.workload.formats.canonical import (
    NAMES_KEY,
    SCHEMA,
    TENANTS_KEY,
    VERSION,
    VERSION_KEY,
)
from inferx.sim.workload.trace import Trace, TraceHash

__all__ = ["GROUP_ROWS", "Written", "write_trace"]

GROUP_ROWS = 262_144
"""Least rows of a row group but the last: small chunks are gathered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a file holds.

    Attributes:
        sha256: Hash of the content, see `Trace.sha256`; the file's own bytes may differ between
            versions of the Parquet library.
    """

    requests: int
    functions: int
    span_ns: int
    sha256: str


def write_trace(path: Path | str, chunks: Iterable[Trace], *, overwrite: bool = False) -> Written:
    """Write a trace; return what was written.

    The file appears under its name only when it is whole: it is written beside it first.

    Raises:
        DescriptionError: The file exists and `overwrite` is off, a chunk breaks a law, or there
            is no request at all.
    """
    path = Path(path)
    if path.is_dir():
        raise DescriptionError(f"{path}: is a directory; expected a file to write")
    if path.exists() and not overwrite:
        raise DescriptionError(f"{path}: exists; expected a new file (--overwrite replaces it)")
    if not path.parent.is_dir():
        raise DescriptionError(f"{path}: no such directory as {path.parent}")
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        written = _write(aside, chunks)
        if not written.requests:
            raise DescriptionError(f"{path}: no request is left to write; expected at least one")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return written


def _write(path: Path, chunks: Iterable[Trace]) -> Written:
    digest = TraceHash()
    names: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    last_ns = 0
    with pq.ParquetWriter(
        path, SCHEMA, compression="zstd", compression_level=9, write_page_checksum=True
    ) as writer:
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for chunk in chunks:
            chunk.validate(whole=digest.rows == 0)
            if len(chunk) and chunk.arrival_ns[0] < last_ns:
                raise DescriptionError(f"trace: row {digest.rows}: arrival is before the one above")
            digest.update(chunk)
            last_ns = int(chunk.arrival_ns[-1]) if len(chunk) else last_ns
            names, tenants = chunk.names, chunk.tenants
            waiting.append(
                pa.RecordBatch.from_arrays(
                    [pa.array(column) for column in chunk.columns().values()], schema=SCHEMA
                )
            )
            rows += len(chunk)
            if rows >= GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting), row_group_size=rows)
                waiting, rows = [], 0
        if rows:
            writer.write_table(pa.Table.from_batches(waiting), row_group_size=rows)
        writer.add_key_value_metadata(
            {
                VERSION_KEY.decode(): VERSION,
                NAMES_KEY.decode(): json.dumps(names),
                TENANTS_KEY.decode(): json.dumps(tenants),
            }
        )
    return Written(
        requests=digest.rows,
        functions=len(names),
        span_ns=last_ns,
        sha256=digest.hexdigest(names, tenants),
    )

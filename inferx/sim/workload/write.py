"""Writing: chunks of a Trace to InferX's Parquet format, in one pass and bounded memory."""

import json
import os
from collections.abc import Iterable
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

__all__ = ["GROUP_ROWS", "write_trace"]

GROUP_ROWS = 262_144
"""Least rows of a row group but the last: small chunks are gathered."""


def write_trace(path: Path | str, chunks: Iterable[Trace], *, overwrite: bool = False) -> str:
    """Write a trace; return its content hash.

    The file appears under its name only when it is whole: it is written beside it first.

    Raises:
        DescriptionError: The file exists and `overwrite` is off, or a chunk breaks a law.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise DescriptionError(f"{path}: exists; expected a new file (--overwrite replaces it)")
    if not path.parent.is_dir():
        raise DescriptionError(f"{path}: no such directory as {path.parent}")
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        digest = _write(aside, chunks)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return digest


def _write(path: Path, chunks: Iterable[Trace]) -> str:
    digest = TraceHash()
    names: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", compression_level=9) as writer:
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for chunk in chunks:
            chunk.validate(whole=digest.rows == 0)
            digest.update(chunk)
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
                VERSION_KEY: VERSION.encode(),
                NAMES_KEY: json.dumps(names).encode(),
                TENANTS_KEY: json.dumps(tenants).encode(),
            }
        )
    return digest.hexdigest(names, tenants)

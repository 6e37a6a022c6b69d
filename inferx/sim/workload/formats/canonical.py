"""InferX's own format: Parquet with one column per array of a Trace.

The file's metadata carries the layout's version and the names: `inferx.trace.version`,
`inferx.trace.names` and `inferx.trace.tenants`, the last two as JSON lists. Row groups are read one
batch at a time.
"""

import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inferx.core.errors import DescriptionError
from inferx.sim.workload.source import DAMAGED, Head, Rows, Source
from inferx.sim.workload.trace import CHUNK_ROWS, COLUMNS, Trace

NAME = "inferx"
EXPECTS = "a Parquet file written by inferx"
ORDERED = True
COMPANION = False

VERSION = "1"
VERSION_KEY = b"inferx.trace.version"
NAMES_KEY = b"inferx.trace.names"
TENANTS_KEY = b"inferx.trace.tenants"
SCHEMA = pa.schema(
    [
        pa.field(name, pa.from_numpy_dtype(np.dtype(dtype)), nullable=False)
        for name, dtype in COLUMNS.items()
    ]
)


def matches(head: Head) -> bool:
    """Tell by Parquet's magic."""
    return head.start.startswith(b"PAR1")


def rows(source: Source) -> Iterator[Rows]:
    """Read it, a batch at a time; every row is held to the laws of Trace."""
    with _seekable(source) as file:
        try:
            # Pre-buffering would hold the bytes of the whole file.
            parquet = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            what = "damaged or cut short"
            raise DescriptionError(f"{source.path}: {what}; expected {EXPECTS}") from error
        names, tenants = _checked(source, parquet)
        for interner, listed in ((source.functions, names), (source.tenants, tenants)):
            for name in listed:
                interner.code(name)
        done = 0
        try:
            for batch in parquet.iter_batches(CHUNK_ROWS, columns=list(COLUMNS), use_threads=False):
                chunk = _chunk(source, batch, names, tenants)
                flaw = chunk.flaw(whole=False)
                if flaw is not None:
                    raise DescriptionError(f"{source.path}: row {done + flaw[0]}: {flaw[1]}")
                yield Rows(
                    at_ns=chunk.arrival_ns,
                    function=chunk.function,
                    input_tokens=chunk.input_tokens,
                    output_tokens=chunk.output_tokens,
                    duration_ns=chunk.duration_ns,
                    tenant=chunk.tenant,
                    priority=chunk.priority,
                    place=lambda row, done=done: f"{source.path}: row {done + row}",  # type: ignore[misc]  # bound now, called later
                )
                done += len(chunk)
        except (pa.ArrowException, OSError, ValueError) as error:
            what = f"damaged after row {done}"
            raise DescriptionError(f"{source.path}: {what}; expected {EXPECTS}") from error


def _chunk(
    source: Source, batch: "pa.RecordBatch", names: tuple[str, ...], tenants: tuple[str, ...]
) -> Trace:
    arrays: dict[str, NDArray[Any]] = {}
    for name in COLUMNS:
        column = batch.column(name)  # pyright: ignore[reportUnknownVariableType]  # its kind was checked
        if column.null_count:
            raise DescriptionError(f"{source.path}: {name} has empty entries; expected none")
        arrays[name] = column.to_numpy(zero_copy_only=False)
    return Trace(**arrays, names=names, tenants=tenants)


def _checked(source: Source, parquet: "pq.ParquetFile") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check version and schema; return names and tenants."""
    metadata: dict[bytes, bytes] = parquet.metadata.metadata or {}
    version = metadata.get(VERSION_KEY)
    if version is None:
        what = f"Parquet, but without {VERSION_KEY.decode()} in its metadata"
        raise DescriptionError(f"{source.path}: {what}; expected {EXPECTS}")
    if version != VERSION.encode():
        found = version.decode("utf-8", "replace")
        what = f"trace layout {found!r}; expected {VERSION!r}: use a newer inferx"
        raise DescriptionError(f"{source.path}: {what}")
    schema = parquet.schema_arrow
    for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True):
        at = schema.get_field_index(name)
        if at < 0 or schema.types[at] != kind:
            found = "missing" if at < 0 else f"of type {schema.types[at]}"
            what = f"column {name} is {found}; expected {kind}"
            raise DescriptionError(f"{source.path}: {what}")
    return tuple(_listed(source, metadata, NAMES_KEY)), tuple(
        _listed(source, metadata, TENANTS_KEY)
    )


def _listed(source: Source, metadata: dict[bytes, bytes], key: bytes) -> list[str]:
    try:
        listed = msgspec.json.decode(metadata.get(key, b"null"), type=list[str])
    except msgspec.MsgspecError as error:
        what = f"{key.decode()} is not a JSON list of names"
        raise DescriptionError(f"{source.path}: {what}") from error
    if len(set(listed)) != len(listed):
        raise DescriptionError(f"{source.path}: {key.decode()} has a name twice; expected it once")
    return listed


@contextmanager
def _seekable(source: Source) -> Generator[BinaryIO]:
    """Open the content for random access; Parquet inside gzip is unpacked to disk first."""
    with source.open() as file:
        if type(file).__module__ == "io" or type(file).__module__ == "_io":
            yield file
            return
        with tempfile.TemporaryFile() as unpacked:
            try:
                shutil.copyfileobj(file, unpacked)
            except DAMAGED as error:
                what = "the compressed file is damaged or cut short"
                raise DescriptionError(f"{source.path}: {what}") from error
            unpacked.seek(0)
            yield unpacked

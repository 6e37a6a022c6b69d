"""Mooncake traces: one JSON object a line, stamps in milliseconds.

One model, so one function. Prefix block hashes are not kept. Many stamps share a grid of about
3 s; they are kept as they are, `inferx trace transform --jitter 3` spreads them. A request without
output tokens is dropped and counted.

Source: Qin et al., "Mooncake", FAST 2025; kvcache-ai/Mooncake (Apache-2.0).
"""

import contextlib
from collections.abc import Iterator
from typing import Annotated

import msgspec
import numpy as np

from inferx.core.errors import UNDECODABLE, DescriptionError
from inferx.core.units import FOREVER_NS, NS_PER_MS
from inferx.sim.workload.source import Head, Lines, Rows, Source
from inferx.sim.workload.trace import MAX_TOKENS

NAME = "mooncake"
EXPECTS = '{"timestamp": ..., "input_length": ..., "output_length": ...} a line'
ORDERED = True
COMPANION = False

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
_Millis = Annotated[float, msgspec.Meta(ge=0, le=FOREVER_NS / NS_PER_MS / 2)]


class _Line(msgspec.Struct, gc=False):
    timestamp: _Millis
    input_length: _Tokens
    output_length: _Tokens


_DECODER = msgspec.json.Decoder(_Line)


def matches(head: Head) -> bool:
    """Tell by the three keys in the first line."""
    keys = ('"timestamp"', '"input_length"', '"output_length"')
    return head.line.lstrip().startswith("{") and all(key in head.line for key in keys)


def rows(source: Source) -> Iterator[Rows]:
    """Read it, a block at a time."""
    source.functions.code("mooncake")
    source.tenants.code("default")
    for block in source.blocks():
        try:
            parsed = _DECODER.decode_lines(block.text)
        except UNDECODABLE as error:
            raise _blame(block) from error
        table = np.array(
            [(line.timestamp, line.input_length, line.output_length) for line in parsed], np.float64
        ).reshape(-1, 3)
        kept = table[:, 2] > 0
        source.drop("no output tokens", int((~kept).sum()))
        origin = np.flatnonzero(kept)
        yield Rows(
            at_ns=np.rint(table[kept, 0] * NS_PER_MS).astype(np.int64),
            function=np.zeros(len(origin), np.int32),
            input_tokens=table[kept, 1].astype(np.int32),
            output_tokens=table[kept, 2].astype(np.int32),
            place=lambda row, block=block, origin=origin: block.place(int(origin[row])),  # type: ignore[misc]  # bound now, called later
        )


def _blame(block: Lines) -> DescriptionError:
    lines = [line for line in block.text.split(b"\n") if line.rstrip(b"\r")]
    for row, line in enumerate(lines):
        what = "not text; expected UTF-8"
        with contextlib.suppress(UnicodeDecodeError):
            try:
                _DECODER.decode(line)
                continue
            except msgspec.DecodeError as error:
                what = f"{error}; expected {EXPECTS}"
        return block.error(row, what)
    return block.error(0, f"not JSON lines from here on; expected {EXPECTS}")

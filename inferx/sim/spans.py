"""The spans of a run while it goes on: packed records that read as rows.

A long run has a million of them. Packed they take a third of the memory of objects, are written in
one call, and cross from one process to another as they are.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final, overload

import numpy as np

from inferx.sim.record import SpanRow

__all__ = ["SpanLog", "column", "states"]

_LAYOUT: Final = (
    ("from_ns", "q"),
    ("to_ns", "q"),
    ("node", "i"),
    ("gpu", "i"),
    ("pod", "q"),
    ("function", "i"),
    ("state", "b"),
    ("milli_gpu", "i"),
    ("hbm_bytes", "q"),
    ("host_bytes", "q"),
    ("nvme_bytes", "q"),
    ("snapshots", "i"),
)
"""`SpanRow`'s fields in their order, and their formats; a state is a code."""
_RECORD: Final = Struct("<" + "".join(kind for _, kind in _LAYOUT))
_DTYPE: Final = np.dtype([(name, f"<{kind}") for name, kind in _LAYOUT])


class SpanLog(Sequence[SpanRow]):
    """A list of `SpanRow`s that can only grow."""

    __slots__ = ("_code_of", "_records")

    def __init__(self) -> None:
        self._records = bytearray()
        self._code_of: dict[str, int] = {}

    def add(
        self,
        from_ns: int,
        to_ns: int,
        node: int,
        gpu: int,
        pod: int,
        function: int,
        state: str,
        milli_gpu: int,
        hbm_bytes: int,
        host_bytes: int,
        nvme_bytes: int = 0,
        snapshots: int = 0,
    ) -> None:
        """Add a row, see `SpanRow`."""
        code = self._code_of.setdefault(state, len(self._code_of))
        self._records += _RECORD.pack(
            from_ns,
            to_ns,
            node,
            gpu,
            pod,
            function,
            code,
            milli_gpu,
            hbm_bytes,
            host_bytes,
            nvme_bytes,
            snapshots,
        )

    def __len__(self) -> int:
        return len(self._records) // _RECORD.size

    @overload
    def __getitem__(self, index: int) -> SpanRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[SpanRow]: ...
    def __getitem__(self, index: int | slice) -> SpanRow | list[SpanRow]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        fields = list(_RECORD.unpack_from(self._records, at * _RECORD.size))
        fields[6] = list(self._code_of)[fields[6]]
        return SpanRow(*fields)

    def column(self, name: str) -> np.ndarray:
        """Return one number of every row."""
        return np.frombuffer(self._records, _DTYPE)[name].copy()

    def states(self) -> tuple[np.ndarray, list[str]]:
        """Return the code of every row's state, and the words in the order of their codes."""
        return self.column("state"), list(self._code_of)


def column(rows: Sequence[SpanRow], name: str, dtype: type[np.generic]) -> np.ndarray:
    """Return one number of every row as an array. Shape (rows,)."""
    if isinstance(rows, SpanLog):
        return rows.column(name).astype(dtype, copy=False)
    return np.fromiter((getattr(row, name) for row in rows), dtype, len(rows))


def states(rows: Sequence[SpanRow]) -> tuple[np.ndarray, list[str]]:
    """Return the code of every row's state, and the words in the order of their first use."""
    if isinstance(rows, SpanLog):
        return rows.states()
    code_of = {word: code for code, word in enumerate(dict.fromkeys(row.state for row in rows))}
    return np.fromiter((code_of[row.state] for row in rows), np.int8, len(rows)), list(code_of)

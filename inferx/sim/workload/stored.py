"""A trace on disk as bare columns: written once, mapped by every process that replays it.

Mapped pages are shared, so many jobs over one trace hold one copy of it.
"""

from pathlib import Path

import numpy as np

from inferx.sim.workload.trace import COLUMNS, Trace, make_trace

__all__ = ["map_trace", "store_trace"]


def store_trace(trace: Trace, folder: Path) -> None:
    """Write each column of `trace` to a file in `folder`, which must not exist yet."""
    folder.mkdir()
    for name, column in trace.columns().items():
        np.save(folder / f"{name}.npy", column, allow_pickle=False)


def map_trace(folder: Path, names: tuple[str, ...], tenants: tuple[str, ...]) -> Trace:
    """Return the trace that `store_trace` wrote; its columns are read-only and lie on disk."""
    columns = {name: _mapped(folder / f"{name}.npy") for name in COLUMNS}
    return make_trace(names=names, tenants=tenants, **columns)


def _mapped(path: Path) -> np.ndarray:
    # An empty file cannot be mapped.
    mapped: np.ndarray = np.load(path, allow_pickle=False)
    if len(mapped):
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped

"""A trace need not fit in memory: each pass is measured in a process of its own."""

import subprocess
import sys

import numpy as np
import pytest

from inferx.sim.workload.trace import CHUNK_ROWS, make_trace
from inferx.sim.workload.write import write_trace

ROWS = 3_000_000
WHOLE_BYTES = 36 * ROWS
"""What the arrays of all requests would take."""
BOUND_BYTES = 24 << 20
"""Less than the file, too: a pass may not hold its bytes either."""

PASS = """
import resource, sys
from pathlib import Path
import numpy, pyarrow.parquet, pyarrow.csv, pyarrow.compute
from inferx.sim.workload.read import open_trace
from inferx.sim.workload.reuse import reuse
from inferx.sim.workload.stats import trace_stats
from inferx.sim.workload.transform import assign, jitter, parse_assign
from inferx.sim.workload.write import write_trace

big, small, what = sys.argv[1:]

def go(path):
    reader = open_trace(path)
    if what == "stats":
        return trace_stats(reader).requests
    if what == "reuse":
        return reuse(reader, keep_alive_ns=[10**9], slots=[4]).requests
    changed = jitter(assign(reader, parse_assign("zipf:1,50"), 1), 10**9, 1)
    return write_trace(Path(big + ".out"), changed, overwrite=True).requests

go(small)  # Libraries allocate once.
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = go(big)
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def chunks(rows: int):
    names = tuple(f"g{i}" for i in range(100))
    rng = np.random.default_rng(1)
    for at in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - at)
        yield make_trace(
            np.arange(at, at + count) * 1_000_000,
            function=rng.integers(0, 100, count),
            duration_ns=rng.integers(1, 10**9, count),
            names=names,
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("big")
    big, small = folder / "big", folder / "small"
    write_trace(big, chunks(ROWS))
    write_trace(small, chunks(3 * CHUNK_ROWS))
    return big, small


@pytest.mark.parametrize("what", ["stats", "reuse", "transform and write"])
def test_memory_of_a_pass_does_not_grow_with_the_trace(files, what):
    command = [sys.executable, "-c", PASS, *map(str, files), what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows, grown_bytes = map(int, done.stdout.split())
    assert rows == ROWS
    assert grown_bytes < BOUND_BYTES < files[0].stat().st_size < WHOLE_BYTES

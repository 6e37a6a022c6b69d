"""Keep-alive and LRU through the whole simulator, beside counts that need none.

    python -m studies.gentd26 [--trace FILE]

Replays the Alibaba GenAI 2026 request log under `fixed-ttl` and `lru` and writes
docs/results/keep-alive.md: its cold starts beside those counted from the log alone, by arithmetic.
Needs INFERX_TRACE_DIR, or any trace after `--trace`, which is then compared with `inferx trace
reuse` and printed. Each number is one `inferx replay`; data with commands, commit, versions, machine
and date lie in docs/results/data/keep-alive.json.

The counts hold for a world in which requests and starts take no time, and stamps of whole seconds
are served in the order of the file. That world is described to the simulator, not built into it:

1. Rows of one second are spread by 1 us each, in their order, and take 1 ns.
2. A cold start takes 1 ns, all else no time, messages neither. What a cold start takes must not be
   nothing: a request that never waited is no cold start to the metrics.
3. Gateways give an idle pod back at once (`linger_s = 0`): the hold alone is what keeps it.
4. A hold is half a second longer than the keep-alive. A gap that equals the keep-alive is warm, and
   the spread may lengthen it; gaps are whole seconds, so none lies between.
5. Every function has a GPU of its own (keep-alive), or there are k GPUs that hold one each (LRU).
   What leaves is gone: no snapshots, no host memory to come back from.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inferx.core.units import NS_PER_S
from inferx.sim.workload.read import read_trace
from inferx.sim.workload.reuse import reuse
from inferx.sim.workload.trace import Trace, chunks_of
from inferx.sim.workload.write import write_trace

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
INFERX = (sys.executable, "-c", "from inferx.cli import main; main()")
TRACE = "gentd26/lora_request_trace.csv"
SPREAD_NS = 1_000
MARGIN_S = 0.5
KEEP_ALIVE_S = (10, 60, 1_800)
SLOTS = (1, 4, 16)
PUBLISHED = {
    ("keep-alive", 10): 24_356,
    ("keep-alive", 60): 14_708,
    ("keep-alive", 1_800): 2_324,
    ("slots", 1): 20_002,
    ("slots", 4): 9_074,
    ("slots", 16): 1_393,
}
"""Counted from the log by a program of others that knows nothing of this one."""


@dataclass(frozen=True)
class Case:
    """One replay: a keep-alive in seconds, or a number of slots."""

    kind: str
    value: int

    @property
    def title(self) -> str:
        """What the table calls it."""
        unit = " s" if self.kind == "keep-alive" else ""
        return f"{self.kind.replace('slots', 'LRU slots')} {self.value}{unit}"

    def policy(self) -> list[str]:
        """Return the options that choose the policy."""
        if self.kind == "slots":
            return ["--policy", "lru", "--set", "then=absent"]
        hold = f"hold_s={self.value + MARGIN_S}"
        return ["--policy", "fixed-ttl", "--set", hold, "--set", "then=absent"]


CASES = tuple(Case("keep-alive", s) for s in KEEP_ALIVE_S) + tuple(Case("slots", k) for k in SLOTS)


def instant(trace: Trace) -> Trace:
    """Spread the rows of one stamp in their order, and let each take no time.

    Raises:
        ValueError: So many rows have one stamp that their spread would reach the margin.
    """
    at = trace.arrival_ns
    rows = np.arange(len(at))
    first = np.concatenate([[True], at[1:] != at[:-1]])
    place = rows - np.maximum.accumulate(np.where(first, rows, 0))
    most = int(place.max()) + 1
    if most * SPREAD_NS >= MARGIN_S * NS_PER_S:
        raise ValueError(f"{most} rows have one stamp; expected fewer than 500,000")
    zeros = np.zeros(len(at), np.int32)
    return replace(
        trace,
        arrival_ns=at + place * SPREAD_NS,
        input_tokens=zeros,
        output_tokens=zeros,
        duration_ns=np.ones(len(at), np.int64),
    )


def _stages(operation: str, fixed_s: str) -> str:
    return (
        f'[[{operation}]]\nname = "instant"\nfixed_s = {fixed_s}\nbasis = "assumed"\n'
        'source = "A condition of the count"\nmachine = "any"\ndate = "2026-11"\n'
    )


def describe(folder: Path, trace: Trace, gpus: int) -> None:
    """Write trace.parquet, functions.toml, cluster.toml and instant.toml into a folder."""
    write_trace(folder / "trace.parquet", chunks_of(trace, 65_536), overwrite=True)
    functions = [
        f"[[function]]\nname = {json.dumps(name)}\nhbm_gib = 1\nmilli_gpu = 1000\nslots = 1\n"
        "linger_s = 0\nqueue_len = 100000\n"
        for name in trace.names
    ]
    (folder / "functions.toml").write_text("\n".join(functions))
    (folder / "cluster.toml").write_text(
        f'[[group]]\nname = "slot"\ncount = {gpus}\ngpu_type = "L40S"\ngpus = 1\nhbm_gib = 1\n'
        "host_gib = 64\nnvme_gb = 100\n"
        "links = { pcie_gpu_gb_per_s = 25, nvme_read_gb_per_s = 5, network_gbps = 25 }\n"
    )
    operations = ("restore", "resume", "suspend", "snapshot", "copy_in", "copy_out", "stop")
    (folder / "instant.toml").write_text(
        'name = "instant"\nsummary = "No operation takes time."\ninherits = "criu-memfd"\n\n'
        + "\n".join([_stages("cold", "1e-9"), *(_stages(name, "0") for name in operations)])
    )


def arguments(case: Case) -> list[str]:
    """Return the command line of a case's replay, in a folder that `describe` filled."""
    return [
        "replay",
        "trace.parquet",
        *("--cluster", "cluster.toml"),
        *("--functions", "functions.toml"),
        *case.policy(),
        *("--profile", "instant.toml"),
        *("--prepared", "none"),
        *("--link-delay-ms", "0"),
        "--no-explain",
    ]


def gpus_of(case: Case, trace: Trace) -> int:
    """Return the GPUs of a case: one a function, or the slots."""
    return len(trace.names) if case.kind == "keep-alive" else case.value


def counted(case: Case, trace: Trace) -> dict[str, object]:
    """Replay one case; return its row of summary and its manifest.

    Raises:
        RuntimeError: A request was not served, so that nothing can be said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        describe(folder, instant(trace), gpus_of(case, trace))
        command = arguments(case)
        subprocess.run(
            [*INFERX, *command, "--out", "run"],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        row = json.loads((folder / "run" / "summary.json").read_text())["rows"][0]
        manifest = json.loads((folder / "run" / "manifest.json").read_text())
    if row["finished"] != len(trace):
        raise RuntimeError(f"{case.title}: {row['finished']} of {len(trace)} requests were served")
    return {
        "case": case.title,
        "kind": case.kind,
        "value": case.value,
        "command": shlex.join(["inferx", *command]),
        "gpus": gpus_of(case, trace),
        "requests": len(trace),
        "cold_starts": row["cold_starts"],
        "pods_started": row["counters"]["starts_cold"],
        "git": manifest["git"],
        "versions": manifest["versions"],
        "wall_clock": manifest["wall_clock"],
    }


def by_arithmetic(trace: Trace) -> dict[tuple[str, int], int]:
    """Count every case from the arrivals alone."""
    keep_ns = [s * NS_PER_S for s in KEEP_ALIVE_S]
    found = reuse([trace], keep_alive_ns=keep_ns, slots=list(SLOTS))
    held = found.cold_starts_by_keep_alive_ns
    return {("keep-alive", s): held[s * NS_PER_S] for s in KEEP_ALIVE_S} | {
        ("slots", k): found.lru_misses_by_slots[k] for k in SLOTS
    }


HEAD = """# Keep-alive and LRU, counted exactly

Written by `python -m studies.gentd26`. A keep-alive of T seconds and a cache of k models can be counted from the
request log by arithmetic: a first use is cold, and so is a gap above T; an LRU cache of k slots misses what it does
not hold. The same counts must come out of the whole simulator, with its gateways, leases, scheduler, nodes and links,
under [`fixed-ttl`](../../inferx/policy/keep_alive/fixed_ttl.py) and [`lru`](../../inferx/policy/keep_alive/lru.py),
in a world where requests and starts take no time. [How that world is described](../../studies/gentd26.py) to it.

Trace: Alibaba GenAI 2026, {requests:,} requests of {models} models in 23 days, stamps of 1 s in the order of the file.
*Published* was counted by a program of others, *arithmetic* by `inferx trace reuse`, *simulated* is the requests that
`inferx replay` found cold. Nothing is drawn at random: the seed makes no difference.

| case | GPUs | published | arithmetic | simulated |
|---|---:|---:|---:|---:|
"""


def lines(rows: list[dict], arithmetic: dict[tuple[str, int], int]) -> Iterator[str]:
    """Return the table's lines."""
    for row in rows:
        key = (row["kind"], row["value"])
        yield (
            f"| {row['case']} | {row['gpus']} | {PUBLISHED[key]:,} | {arithmetic[key]:,} "
            f"| {row['cold_starts']:,} |"
        )


def main() -> None:
    """Run the cases and write the document, or print them for a trace of one's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="another trace, with stamps of whole seconds")
    options = parser.parse_args()
    folder = os.environ.get("INFERX_TRACE_DIR")
    if options.trace is None and not folder:
        sys.exit("studies.gentd26: INFERX_TRACE_DIR is not set; expected a folder of public traces")
    trace = read_trace(options.trace or Path(str(folder)) / TRACE)
    arithmetic = by_arithmetic(trace)
    rows = []
    for case in CASES:
        row = counted(case, trace)
        rows.append(row)
        told = f"{row['cold_starts']:,}, by arithmetic {arithmetic[case.kind, case.value]:,}"
        print(f"{case.title}: simulated {told}", flush=True)
    if options.trace is not None:
        return
    data = {
        "command": "python -m studies.gentd26",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "trace_sha256": trace.sha256(),
        "seed": 1,
        "rows": rows,
    }
    (RESULTS / "data" / "keep-alive.json").write_text(json.dumps(data, indent=1) + "\n")
    head = HEAD.format(requests=len(trace), models=len(trace.names))
    (RESULTS / "keep-alive.md").write_text(head + "\n".join(lines(rows, arithmetic)) + "\n")


if __name__ == "__main__":
    main()

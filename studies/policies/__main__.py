"""The museum's table: writes docs/results/policies.md.

    python -m studies.policies [--jobs 2] [--only azure-code] [--policy default] [--document]

Needs INFERX_TRACE_DIR. Every case is one `inferx replay` of all shipped bundles over five seeds,
with regret; then the bundles that come nearest to `default` are replayed on larger clusters, until
they are as quick as `default` is on the case's own. Data lie in docs/results/data/policies-*.json.
With `--policy` those alone are run, and take the place of their rows; a row tells its commit.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from inferx.load import bundle_names
from studies.policies.cases import CASES, PROFILE, Case
from studies.policies.document import DATA, SCORE, document, mean_of, ranked

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
INFERX = (sys.executable, "-c", "from inferx.cli import main; main()")
SEEDS = "1..5"
CONTENDERS = 3
LARGER = (24, 32, 48)
"""GPUs that contenders are given, in turn."""


def trace_of(case: Case, traces: Path, scratch: Path) -> Path:
    """Return the file to replay; one that is cut or generated is made first."""
    if not case.made:
        return traces / case.trace
    made = scratch / f"{case.name}.parquet"
    if not made.exists():
        what, *options = case.made
        command = [*INFERX, "trace", what, str(traces / case.trace), *options]
        subprocess.run([*command, "-o", str(made)], check=True, stdout=subprocess.DEVNULL)
    return made


def arguments(
    case: Case, trace: str, cluster: str, policies: Iterable[str], jobs: int, *more: str
) -> list[str]:
    """Return the words of one `inferx replay`."""
    return [
        *("replay", trace, "--cluster", cluster, *case.options, "--profile", PROFILE),
        *(word for policy in policies for word in ("--policy", policy)),
        *("--seed", SEEDS, "--jobs", str(jobs), "--no-explain", *more),
    ]


def replay(words: Sequence[str], out: Path) -> tuple[list[dict], dict]:
    """Run one replay; return its rows and its manifest."""
    subprocess.run([*INFERX, *words, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    summary = json.loads((out / "summary.json").read_text())
    return summary["rows"], json.loads((out / "manifest.json").read_text())


def kept(row: dict, commit: str) -> dict:
    """Return what the document needs of a row, and the commit that made it."""
    names = ("policy", "seed", "arrived", "refused", "ttft_s", "cold_weighted_ttft_s", "regret")
    more = ("cold_start_ratio", "gpu_allocated_pct", "gpus", "result_sha256")
    return {name: row.get(name) for name in (*names, *more)} | {"commit": commit}


def needed(case: Case, rows: list[dict], trace: Path, jobs: int, scratch: Path) -> dict:
    """Return how many GPUs each contender needs to be as quick as `default` is on the table's."""
    target = mean_of(rows, "default", SCORE)
    others = [policy for policy in ranked(rows) if policy != "default"]
    left = others[:CONTENDERS]
    base = rows[0]["gpus"]
    found: dict[str, int | None] = {
        policy: base for policy in left if mean_of(rows, policy, SCORE) <= target
    }
    for gpus in LARGER:
        left = [policy for policy in left if policy not in found]
        if not left:
            break
        cluster = str(case.larger(gpus, scratch))
        words = arguments(case, str(trace), cluster, left, jobs)
        tried, _ = replay(words, scratch / f"{case.name}-{gpus}")
        found |= {policy: gpus for policy in left if mean_of(tried, policy, SCORE) <= target}
    return {"target_s": target, "default": base} | {p: found.get(p) for p in others[:CONTENDERS]}


def refresh(case: Case, traces: Path, jobs: int, policies: Sequence[str]) -> None:
    """Replay some policies of a case anew; their rows take the place of those that are kept."""
    file = DATA / f"policies-{case.name}.json"
    data = json.loads(file.read_text())
    with tempfile.TemporaryDirectory() as folder:
        trace = trace_of(case, traces, Path(folder))
        words = arguments(case, str(trace), case.cluster, policies, jobs, "--regret")
        rows, manifest = replay(words, Path(folder) / case.name)
    stay = [row for row in data["rows"] if row["policy"] not in policies]
    data["rows"] = stay + [kept(row, manifest["git"]["commit"]) for row in rows]
    file.write_text(json.dumps(data, indent=1) + "\n")


def run_case(case: Case, traces: Path, jobs: int) -> None:
    """Replay one case and keep its rows."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        trace = trace_of(case, traces, scratch)
        words = arguments(case, str(trace), case.cluster, bundle_names(), jobs, "--regret")
        rows, manifest = replay(words, scratch / case.name)
        rows = [kept(row, manifest["git"]["commit"]) for row in rows]
        gpus = needed(case, rows, trace, jobs, scratch)
    shown = ["inferx", *words]
    shown[2] = f"{case.name}.parquet" if case.made else f"$INFERX_TRACE_DIR/{case.trace}"
    command = " ".join(word if "$" in word else shlex.quote(word) for word in shown)
    if case.made:
        what, *options = case.made
        make = " ".join(["inferx trace", what, f"$INFERX_TRACE_DIR/{case.trace}", *options])
        command = f"{make} -o {case.name}.parquet\n{command}"
    data = {
        "command": command,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "git": manifest["git"],
        "versions": manifest["versions"],
        "wall_clock": manifest["wall_clock"],
        "seconds": round(time.monotonic() - began),
        "gpus_needed": gpus,
        "rows": rows,
    }
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / f"policies-{case.name}.json").write_text(json.dumps(data, indent=1) + "\n")


def main() -> None:
    """Run the cases and write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--policy", action="append", choices=bundle_names())
    parser.add_argument("--document", action="store_true", help="from the data that are there")
    options = parser.parse_args()
    traces = os.environ.get("INFERX_TRACE_DIR")
    if not options.document:
        if not traces:
            sys.exit("studies.policies: INFERX_TRACE_DIR is not set; expected a folder of traces")
        for case in CASES:
            if options.only is None or case.name in options.only:
                print(case.name, flush=True)
                if options.policy:
                    refresh(case, Path(traces), options.jobs, options.policy)
                else:
                    run_case(case, Path(traces), options.jobs)
    (RESULTS / "policies.md").write_text(document())


if __name__ == "__main__":
    main()

"""Every public request trace under the five shipped policies: writes docs/results/traces.md.

    python -m studies.traces [--jobs 2] [--only gentd26]

Needs INFERX_TRACE_DIR. Each table is one `inferx replay`; its command stands above it, its manifest
(versions, commit, seeds, checksums, date) and summary lie in docs/results/data.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
INFERX = (sys.executable, "-c", "from inferx.cli import main; main()")
POLICIES = ("dedicated", "scale-to-zero", "inferx-reference", "serverlessllm", "default")


@dataclass(frozen=True)
class Case:
    """One table: which trace on which cluster, and what the reader should know."""

    name: str
    title: str
    trace: str
    cluster: str
    options: tuple[str, ...]
    note: str
    policies: tuple[str, ...] = POLICIES


CASES = (
    Case(
        "gentd26",
        "Alibaba GenAI 2026: 86 image models, 23 days, as it is, on 16 GPUs",
        "gentd26/lora_request_trace.csv",
        "g6e.12xlarge=4",
        ("--functions", "auto:diffusion"),
        "Offered load is 0.39 requests in service on average: most of the 23 days nothing runs.",
    ),
    Case(
        "gentd26-ample",
        "The same with a GPU for every model: 88 GPUs",
        "gentd26/lora_request_trace.csv",
        "g6e.48xlarge=11",
        ("--functions", "auto:diffusion"),
        "What `dedicated` takes to hold every model, and what that costs. Bursts of two models still"
        " outrun the one GPU that each has, and time out in its queue.",
        ("dedicated", "default"),
    ),
    Case(
        "azure-conv",
        "Azure LLM 2023, conversation, over 50 functions on 16 GPUs",
        "azure-llm-2023/AzureLLMInferenceTrace_conv.csv",
        "p5.48xlarge=2",
        ("--assign", "zipf:1.1,50", "--functions", "auto"),
        "One hour, 5.5 requests/s.",
    ),
    Case(
        "azure-code",
        "Azure LLM 2023, code, over 50 functions on 16 GPUs",
        "azure-llm-2023/AzureLLMInferenceTrace_code.csv",
        "p5.48xlarge=2",
        ("--assign", "zipf:1.1,50", "--functions", "auto"),
        "One hour, 2.6 requests/s in bursts of up to 67/s.",
    ),
    Case(
        "mooncake",
        "Mooncake conversation, over 50 functions on 16 GPUs",
        "mooncake/conversation_trace.jsonl",
        "p5.48xlarge=2",
        ("--assign", "zipf:1.1,50", "--functions", "auto"),
        "One hour, 3.4 requests/s of 12,000 input tokens; stamps lie on a grid of 3 s.",
    ),
)

COLUMNS = (
    ("TTFT p50 s", lambda r: _s(r["ttft_s"]["p50"])),
    ("p99 s", lambda r: _s(r["ttft_s"]["p99"])),
    ("cold TTFT p50 s", lambda r: _s((r.get("cold_ttft_s") or {}).get("p50"))),
    ("p99 s", lambda r: _s((r.get("cold_ttft_s") or {}).get("p99"))),
    ("cold %", lambda r: f"{100 * (r.get('cold_start_ratio') or 0):.1f}"),
    ("allocated %", lambda r: f"{r['gpu_allocated_pct']:.1f}"),
    ("resident %", lambda r: f"{r['gpu_resident_pct']:.1f}"),
    ("busy %", lambda r: f"{r['gpu_busy_pct']:.1f}"),
    ("goodput /GPU-h", lambda r: f"{r['goodput_per_gpu_hour']:.2f}"),
    ("refused %", lambda r: f"{100 * r['refused'] / r['arrived']:.1f}"),
    ("cost $", lambda r: f"{r['cost_usd']:,.0f}"),
)


def _s(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def mean_row(rows: list[dict]) -> dict:
    """Average numbers over seeds, recursively; None where any is missing."""

    def mean(values: list) -> object:
        if isinstance(values[0], dict):
            return {
                k: mean([v[k] for v in values]) for k in values[0] if all(k in v for v in values)
            }
        if isinstance(values[0], bool) or not isinstance(values[0], int | float):
            return values[0]
        if any(v is None for v in values):
            return None
        return sum(values) / len(values)

    return mean(rows)  # type: ignore[return-value]  # the mean of dicts is a dict


def run_case(case: Case, traces: Path, seeds: str, jobs: int) -> None:
    """Replay one case and keep its summary."""
    arguments = [
        "replay",
        str(traces / case.trace),
        *("--cluster", case.cluster),
        *case.options,
        *(part for policy in case.policies for part in ("--policy", policy)),
        *("--seed", seeds, "--jobs", str(jobs), "--no-explain"),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / case.name
        subprocess.run(
            [*INFERX, *arguments, "--out", str(out)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        summary = json.loads((out / "summary.json").read_text())
        manifest = json.loads((out / "manifest.json").read_text())
    shown = ["inferx", *arguments, "--out", case.name]
    shown[2] = f"$INFERX_TRACE_DIR/{case.trace}"
    data = {
        "command": " ".join(p if "$" in p else shlex.quote(p) for p in shown),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "git": manifest["git"],
        "versions": manifest["versions"],
        "wall_clock": manifest["wall_clock"],
        "rows": summary["rows"],
    }
    (RESULTS / "data").mkdir(parents=True, exist_ok=True)
    (RESULTS / "data" / f"{case.name}.json").write_text(json.dumps(data, indent=1) + "\n")


def section(case: Case) -> str:
    """Return one case's part of the document, from its kept summary."""
    data = json.loads((RESULTS / "data" / f"{case.name}.json").read_text())
    lines = [f"## {case.title}", "", case.note, "", "```sh", data["command"], "```", ""]
    lines.append("| policy | " + " | ".join(name for name, _ in COLUMNS) + " |")
    lines.append("|---|" + "---:|" * len(COLUMNS))
    for policy in case.policies:
        row = mean_row([r for r in data["rows"] if r["policy"] == policy])
        lines.append(f"| `{policy}` | " + " | ".join(show(row) for _, show in COLUMNS) + " |")
    return "\n".join([*lines, ""])


HEAD = """# Five policies on public traces

Written by `python -m studies.traces`; simulated, not measured. Numbers are means over seeds {seeds}; the raw
summaries of every seed, with commit, versions, machine and date, are in [data](data). Every policy runs with the
start-up mechanism that it presumes, from the shipped [profiles](../profiles.md): none (a cold start) for `dedicated`
and `scale-to-zero`, `serverlessllm`'s loader for `serverlessllm`, `criu-memfd` snapshots for `inferx-reference` and
`default`. TTFT of a request without tokens ends when its execution begins. [What each column means](../metrics.md).

"""


def main() -> None:
    """Run the cases and write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", default="1..3")
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES])
    options = parser.parse_args()
    traces = os.environ.get("INFERX_TRACE_DIR")
    if not traces:
        sys.exit("studies.traces: INFERX_TRACE_DIR is not set; expected a folder of public traces")
    for case in CASES:
        if options.only is None or case.name in options.only:
            print(case.name, flush=True)
            run_case(case, Path(traces), options.seeds, options.jobs)
    kept = [case for case in CASES if (RESULTS / "data" / f"{case.name}.json").exists()]
    text = HEAD.format(seeds=options.seeds) + "\n".join(section(case) for case in kept)
    (RESULTS / "traces.md").write_text(text)


if __name__ == "__main__":
    main()

"""L2: a real cluster over etcd: gRPC, processes, CRIU. It keeps its word, and was predictable.

What is asserted of the prediction is what a busy machine cannot change: counts, shares, ratios. The
start-up times are this very run's own (`calibrated`), so the machine's load is in them; what is
left to be right is who starts, freezes, dumps, restores and waits when.
"""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from agent_node import needs_node
from etcd_server import missing_etcd

from inferx.cli.live_journals import Journals, read_journals
from inferx.cli.live_profile import about_run, calibrated
from inferx.cli.live_records import observed, predicted, world_of
from inferx.cli.profile_lines import interference_lines, stage_lines
from inferx.client.driving import Answer, Call, drive, prompt_of
from inferx.exec.worker.engine import Generation
from inferx.exec.worker.paced import PacedEngine, PacedShape
from inferx.sim.link import LinkModel
from inferx.sim.metrics import SummaryRow, summarise
from inferx.sim.output import read_summary
from inferx.sim.profile import Stage, load_profile
from inferx.sim.record import Outcome, RunRecord
from inferx.sim.workload.read import read_trace
from inferx.spec.shape import ENFORCEMENTS
from studies.prediction.bed import INFERX, etcd, up
from studies.prediction.case import PLACE, Case, functions

pytestmark = [needs_node, pytest.mark.skipif(bool(missing_etcd()), reason=missing_etcd())]

CASE = Case(
    gpus="1x1GiB",
    host="320MiB",
    sizes_mib=(16,),
    functions=6,
    zipf=0.6,
    rate_per_s=1.2,
    span_s=12.0,
    seed=3,
)
WITHIN = 2.0
"""Factor between medians of end-to-end times, live and predicted."""
SAME_CAUSE = 0.6
"""Least share of requests that waited for the same kind of start, or for none, in both."""
OFF = 3
"""Pods more or fewer, of those that are started from nothing."""
RESTORE_S = 0.4
"""What a restore of such a worker takes, about, for runs that have none to learn from."""
GPU_TIME = 1.3
"""Factor between GPU-seconds that are charged."""


def test_a_real_cluster_keeps_its_word_and_was_predictable(tmp_path: Path) -> None:
    trace_file = tmp_path / "trace.parquet"
    CASE.write_trace(trace_file)
    trace = read_trace(trace_file, seed=1)
    (tmp_path / "functions.json").write_text(json.dumps(functions(CASE, tmp_path)))
    calls = [
        Call(at, f"{PLACE}/{trace.names[function]}", tokens_in, tokens_out)
        for at, function, tokens_in, tokens_out in zip(
            trace.arrival_ns.tolist(),
            trace.function.tolist(),
            trace.input_tokens.tolist(),
            trace.output_tokens.tolist(),
            strict=True,
        )
    ]
    answers = [Answer() for _ in calls]
    options = ("--gpus", CASE.gpus, "--host", CASE.host, "--journal")
    with (
        etcd(tmp_path) as endpoint,
        up(tmp_path, "--store", f"etcd://{endpoint}", *options) as told,
    ):
        env = {"INFERX_SERVER": told["gateway"], "INFERX_API_KEY": told["api_key"]}
        apply = (*INFERX, "apply", "-f", str(tmp_path / "functions.json"))
        subprocess.run(apply, check=True, env=os.environ | env, stdout=subprocess.DEVNULL)
        server, key = told["gateway"], told["api_key"]
        asyncio.run(drive(server, key, calls, answers, at_once=100, within_s=120))
        the_command_does_the_same(tmp_path, env)

    # No request is lost, and no answer is another's, whatever its pod went through meanwhile.
    assert [(one.outcome, one.why) for one in answers] == [("finished", "")] * len(answers)
    assert [one.tokens for one in answers] == trace.output_tokens.tolist()
    expected = asyncio.run(texts(calls))
    assert [one.text for one in answers] == expected

    journals = tmp_path / "up" / "journals"
    replayed = subprocess.run(
        (sys.executable, "-m", "inferx", "replay-journal", "--json", journals),
        capture_output=True,
        text=True,
        check=True,
    )
    kinds = [json.loads(line) for line in replayed.stdout.splitlines()]
    assert sorted(one["machine"] for one in kinds) == ["agent", "router", "scheduler"]
    assert all(one["divergence"] is None and not one["truncated"] for one in kinds)

    told_of = read_journals(journals)
    live = observed(trace, answers, told_of)
    base = load_profile(str(declared(tmp_path)))
    profile = tmp_path / "own.toml"
    profile.write_text(calibrated(told_of.heard, live, base, about_run("own")))
    world = world_of(told_of, load_profile(str(profile)), LinkModel())
    foretold = predicted(trace, told_of, world)
    holds(live, foretold, told_of)


def the_command_does_the_same(folder: Path, env: dict[str, str]) -> None:
    """Drive a few requests more by `inferx drive`, and read what it wrote."""
    replace(CASE, span_s=2.0).write_trace(folder / "few.parquet")
    profile = folder / "command.toml"
    command = (
        *(*INFERX, "drive", str(folder / "few.parquet"), "--in", PLACE, "--json"),
        *("--journals", str(folder / "up" / "journals"), "--out", str(folder / "run")),
        *("--predict", str(declared(folder)), "--calibrate", str(profile)),
    )
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True)
    summary = read_summary(folder / "run")
    assert json.loads(done.stdout) == json.loads((folder / "run" / "summary.json").read_text())
    assert [row.policy for row in summary.rows] == ["live", "predicted (declared)"]
    live, foretold = summary.rows
    assert live.finished == live.arrived == foretold.arrived > 0
    assert summary.baseline == "live"
    assert (folder / "run" / "report.html").stat().st_size > 0
    assert load_profile(str(profile)).name == "command"
    assert env["INFERX_API_KEY"] not in (folder / "run" / "manifest.json").read_text()


def declared(folder: Path) -> Path:
    """Write a profile of what is known before a run: the pace, and that nothing is on a GPU.

    A short run may restore nothing, and the simulated one may: it would be an engine's on a GPU,
    several seconds in which nobody else starts there, were it not said here.
    """
    date = "2026-12"
    restore = Stage(
        name="restore",
        fixed_s=RESTORE_S,
        basis="assumed",
        source="a worker of a few MiB",
        machine="any",
        date=date,
    )
    alone = dict.fromkeys(ENFORCEMENTS, 0.0)
    lines = [
        'name = "declared"\nsummary = "the pace"\ninherits = "criu-memfd"',
        *stage_lines("restore", restore),
        *interference_lines(alone, source="Nothing is on GPUs that are declared", date=date),
        CASE.serving_text(),
    ]
    path = folder / "declared.toml"
    path.write_text("\n".join(lines))
    return path


def holds(live: RunRecord, foretold: RunRecord, told: Journals) -> None:
    """Hold a prediction to the bounds that are stated above."""
    rows: list[SummaryRow] = [summarise(one) for one in (live, foretold)]
    assert [row.finished for row in rows] == [len(live.requests.outcome)] * 2
    assert set(foretold.requests.outcome.tolist()) == {Outcome.FINISHED}
    said = {row.policy: (row.counters, row.cold_starts_by_cause) for row in rows}
    cold = [row.counters["starts_cold"] for row in rows]
    assert abs(cold[0] - cold[1]) <= OFF, said
    # It was crowded: pods left for others, and came back, in both.
    for row in rows:
        assert row.counters["evictions"] > 0, said
        assert row.counters["suspends"] + row.counters["snapshots"] > 0, said
    same = (live.requests.cause == foretold.requests.cause).mean()
    assert same >= SAME_CAUSE, said
    medians = [row.e2e_s.p50 for row in rows]
    assert medians[0] is not None
    assert medians[1] is not None
    assert 1 / WITHIN <= medians[1] / medians[0] <= WITHIN, medians
    charged = [row.gpu_allocated_pct * row.span_s for row in rows]
    assert 1 / GPU_TIME <= charged[1] / charged[0] <= GPU_TIME, charged
    assert len(told.nodes) == 1


async def texts(calls: list[Call]) -> list[str]:
    """Return what each request is to be answered, as a worker of its own would."""
    shape = PacedShape(
        weights=None,
        weight_bytes=0,
        kv_bytes=0,
        tokens_per_s=1e6,
        ttft_s=0.0,
        seed=0,
        device="cpu",
    )
    engine = PacedEngine(shape)
    found: list[str] = []
    for row, call in enumerate(calls):
        asked = Generation(
            prompt=prompt_of(row, call), seed=0, limit=call.output_tokens, complete=True
        )
        found.append("".join([piece async for piece in engine.generate(asked)]))
    return found

import io
import json
import os
import runpy
import signal
import subprocess
import sys
from array import array
from dataclasses import fields, replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from inferx.sim.manifest import facts_of, git_fact, node_facts
from inferx.sim.metrics import Quantiles, SummaryRow, summarise
from inferx.sim.output import (
    OutputError,
    RunWriter,
    read_manifest,
    read_summary,
    summary_table,
)
from inferx.sim.record import SpanRow
from inferx.sim.report import write_report
from inferx.sim.stats import compare
from inferx.sim.terminal import short

_factory = runpy.run_path(str(Path(__file__).with_name("synthetic_record.py")))
make_record, nodes_of = _factory["make_record"], _factory["nodes_of"]
SMALL = {"requests": 150, "gpus": 2, "functions": 6}
COMMAND = ["inferx", "replay", "t.parquet", "--out", "run"]


def write(path, policies=("base", "other"), seeds=(1, 2), **more):
    with RunWriter(path, command=COMMAND, baseline="base", **more) as writer:
        for policy in policies:
            for seed in seeds:
                writer.add(make_record(policy, seed, hold_s=5 + 50 * len(policy), **SMALL))
    return path


def digests(path):
    found = {file.name: facts_of(file, "").sha256 for file in sorted(path.iterdir())}
    manifest = json.loads((path / "manifest.json").read_bytes())
    manifest.pop("wall_clock")
    return {**found, "manifest.json": json.dumps(manifest)}


def test_a_run_directory_holds_the_five_files_and_what_they_promise(tmp_path):
    path = write(tmp_path / "run")
    assert sorted(file.name for file in path.iterdir()) == [
        "decisions.parquet",
        "manifest.json",
        "requests.parquet",
        "summary.json",
        "timeline.parquet",
    ]
    summary, manifest = read_summary(path), read_manifest(path)
    assert summary.complete
    assert [(row.policy, row.seed) for row in summary.rows] == [
        ("base", 1),
        ("base", 2),
        ("other", 1),
        ("other", 2),
    ]
    assert summary.paired == compare(summary.rows, "base")
    assert manifest.command == COMMAND
    assert manifest.seeds == [1, 2]
    for name, fact in manifest.outputs.items():
        assert facts_of(path / name, name) == fact
    assert [file for file in tmp_path.iterdir() if file != path] == []


def test_summary_json_is_plain_json_with_rows_and_paired(tmp_path):
    plain = json.loads((write(tmp_path / "run") / "summary.json").read_text())
    assert plain["rows"][0]["ttft_s"].keys() == {"p50", "p90", "p99"}
    assert plain["paired"][0]["policy"] == "other"


def test_requests_read_back_as_the_record_had_them(tmp_path):
    table = pq.read_table(write(tmp_path / "run") / "requests.parquet")
    record = make_record("base", 2, hold_s=205, **SMALL)
    frame = table.to_pandas()
    mine = frame[(frame.policy == "base") & (frame.seed == 2)]
    q = record.requests
    for name in ("arrived_ns", "started_ns", "first_ns", "finished_ns", "pod", "input_tokens"):
        assert (mine[name].to_numpy() == getattr(q, name)).all()
    names = [record.functions[i].name for i in q.function]
    assert mine.function.tolist() == names
    done = q.outcome == 1
    assert set(mine.outcome[done]) == {"finished"}
    ttft = (q.first_ns - q.arrived_ns)[done] / 1e9
    assert (mine.ttft_s.to_numpy()[done] == ttft).all()
    assert mine.cause[q.started_ns < 0].isna().all()


def test_timeline_and_decisions_read_back_as_the_record_had_them(tmp_path):
    path = write(tmp_path / "run", policies=("base",), seeds=(1,))
    record = make_record("base", 1, hold_s=205, **SMALL)
    spans = pq.read_table(path / "timeline.parquet").to_pylist()
    names = [spec.name for spec in record.functions]
    for row, span in zip(spans, record.spans, strict=True):
        for field in fields(SpanRow):
            expected = getattr(span, field.name)
            if field.name == "function":
                expected = names[expected] if expected >= 0 else None
            assert row[field.name] == expected
    assert any(row["state"] == "snapshot" and row["snapshots"] for row in spans)
    decisions = pq.read_table(path / "decisions.parquet").to_pylist()
    for row, decision in zip(decisions, record.decisions, strict=True):
        assert tuple(row["gpus"]) == decision.gpus
        assert (row["kind"], row["start"], row["reason"], row["explain"]) == (
            decision.kind,
            decision.start,
            decision.reason,
            decision.explain,
        )


def test_a_deferral_reads_back_with_its_repetitions(tmp_path):
    record = make_record(**SMALL)
    again = {"again_ns": array("q", [7, 9]), "again_explain": [None, "{}"]}
    record.decisions[1] = replace(record.decisions[1], at_ns=5, **again)
    with RunWriter(tmp_path / "run", command=COMMAND) as writer:
        writer.add(record)
    first, second, third = pq.read_table(tmp_path / "run" / "decisions.parquet").to_pylist()[:3]
    names = ("at_ns", "until_ns", "count", "again_ns", "again_explain")
    assert [second[name] for name in names] == [5, 9, 3, [7, 9], [None, "{}"]]
    for row in (first, third):
        assert [row[name] for name in names[1:]] == [row["at_ns"], 1, [], []]


def test_a_decision_about_no_function_has_a_null_name(tmp_path):
    record = make_record(**SMALL)
    record.decisions[0] = replace(record.decisions[0], function=-1)
    with RunWriter(tmp_path / "run", command=COMMAND) as writer:
        writer.add(record)
    table = pq.read_table(tmp_path / "run" / "decisions.parquet")
    assert table["function"].to_pylist()[0] is None


def test_two_runs_give_the_same_bytes(tmp_path):
    assert digests(write(tmp_path / "a")) == digests(write(tmp_path / "b"))


SCRIPT = """
import runpy, sys
from pathlib import Path
space = runpy.run_path(sys.argv[1])
space["write"](Path(sys.argv[2]))
"""


def test_the_hash_seed_of_the_process_changes_no_byte(tmp_path):
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", SCRIPT, __file__, str(tmp_path / seed)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_an_existing_directory_is_refused_unless_overwritten(tmp_path):
    path = write(tmp_path / "run", policies=("base",))
    before = digests(path)
    with pytest.raises(OutputError, match="exists"):
        RunWriter(path, command=COMMAND)
    assert digests(path) == before
    write(path, policies=("base", "other"), overwrite=True)
    assert len(read_summary(path).rows) == 4
    assert list(tmp_path.iterdir()) == [path]


def test_only_a_run_is_ever_overwritten(tmp_path):
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.tex").write_text("x")
    with pytest.raises(OutputError, match="not a run"):
        RunWriter(precious, command=COMMAND, overwrite=True)
    assert (precious / "chapter.tex").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="not a run"):
        RunWriter(tmp_path / "file", command=COMMAND, overwrite=True)


def test_an_empty_directory_may_become_a_run(tmp_path):
    (tmp_path / "run").mkdir()
    assert read_summary(write(tmp_path / "run", overwrite=True)).complete


def break_off(error, path, **more):
    with RunWriter(path, command=COMMAND, **more) as writer:
        writer.add(make_record(**SMALL))
        raise error


def test_interruption_keeps_what_is_finished_and_says_so(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        break_off(KeyboardInterrupt, tmp_path / "run")
    summary = read_summary(tmp_path / "run")
    assert not summary.complete
    assert not read_manifest(tmp_path / "run").complete
    assert len(summary.rows) == 1


def test_an_interruption_amid_a_record_waits_for_its_last_table(tmp_path, monkeypatch):
    record = make_record(**SMALL)

    def interrupt():
        with RunWriter(tmp_path / "run", command=COMMAND) as writer:
            table = writer._tables["requests"]
            write_table = table.write_table

            def struck(*args, **kwargs):
                os.kill(os.getpid(), signal.SIGINT)
                write_table(*args, **kwargs)

            monkeypatch.setattr(table, "write_table", struck)
            writer.add(record)

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    summary = read_summary(tmp_path / "run")
    assert len(summary.rows) == 1
    assert not summary.complete
    for name in ("requests", "decisions", "timeline"):
        assert pq.read_table(tmp_path / "run" / f"{name}.parquet").num_rows > 0


def test_a_failure_to_finish_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(RunWriter, "_manifest", lambda self, complete: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_manifest_has_the_checksum_of_the_page_and_of_every_other_file(tmp_path):
    path = write(tmp_path / "run", page=write_report)
    outputs = read_manifest(path).outputs
    assert set(outputs) == {file.name for file in path.iterdir()} - {"manifest.json"}
    assert outputs["report.html"] == facts_of(path / "report.html", "report.html")
    before = digests(path)
    write_report(path)
    assert digests(path) == before
    assert digests(write(tmp_path / "again", page=write_report)) == before


def test_page_that_cannot_be_drawn_leaves_the_former_run_whole(tmp_path):
    path = write(tmp_path / "run", policies=("base",), page=write_report)
    before = digests(path)

    def half(folder):
        (folder / "report.html").write_text("<html>")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(path, overwrite=True, page=half)
    assert digests(path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_policys_name_is_not_markup():
    out = io.StringIO()
    row = summarise(make_record("mine.py:b[hold=5]", **SMALL))
    Console(file=out, width=120).print(summary_table([row]))
    assert "mine.py:b[hold=5]: " in out.getvalue()
    assert "[hold=5]" in out.getvalue().splitlines()[2]


def test_an_error_leaves_nothing_behind_and_the_former_run_whole(tmp_path):
    path = write(tmp_path / "run", policies=("base",))
    before = digests(path)
    with pytest.raises(ZeroDivisionError):
        break_off(ZeroDivisionError, path, overwrite=True)
    assert digests(path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_without_records_is_still_a_run(tmp_path):
    with RunWriter(tmp_path / "run", command=COMMAND):
        pass
    assert read_summary(tmp_path / "run").rows == []
    assert pq.read_table(tmp_path / "run" / "requests.parquet").num_rows == 0


def test_reading_something_else_is_an_operating_error(tmp_path):
    with pytest.raises(OutputError, match=r"summary\.json"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(OutputError, match=r"summary\.json"):
        read_summary(tmp_path)


def test_inputs_are_named_by_role_and_told_by_content(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.toml").write_text("a")
    (tmp_path / "trace").write_bytes(b"abc")
    inputs = {"trace": tmp_path / "trace", "cluster": tmp_path / "folder"}
    manifest = read_manifest(write(tmp_path / "run", inputs=inputs))
    assert manifest.inputs["trace"].sha256.startswith("ba7816bf8f01cfea")
    before = manifest.inputs["cluster"].sha256
    (tmp_path / "folder" / "a.toml").write_text("b")
    assert facts_of(tmp_path / "folder", "").sha256 != before


def test_a_folder_outside_a_checkout_has_no_commit(tmp_path):
    assert git_fact(tmp_path) is None


def git(folder, *arguments):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "m")
    fact = git_fact(tmp_path)
    assert fact is not None
    assert len(fact.commit) == 40
    assert not fact.dirty
    (tmp_path / "a").write_text("2")
    assert git_fact(tmp_path).dirty


def test_alike_nodes_are_told_once():
    facts = node_facts(nodes_of(24))
    assert [(fact.count, fact.gpus) for fact in facts] == [(3, 8)]
    assert [fact.count for fact in node_facts(nodes_of(20))] == [2, 1]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0.0, "0"),
        (3.0, "3"),
        (0.0421, "0.04"),
        (0.00042, "4e-4"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.96, "100"),
        (9_999.4, "9999"),
        (12_345.0, "12.3k"),
        (99_960.0, "100k"),
        (2_500_000.0, "2.5M"),
        (-12.34, "-12.3"),
    ],
)
def test_numbers_are_shown_in_five_characters(value, shown):
    assert short(value) == shown


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
@pytest.mark.parametrize("width", [100, 120])
def test_the_table_fits_and_hides_no_policy(tmp_path, seeds, width):
    policies = ("base", "other", "inferx-reference", "a-policy-with-a-long-name")
    summary = read_summary(write(tmp_path / "run", policies=policies, seeds=seeds))
    out = io.StringIO()
    Console(file=out, width=width).print(summary_table(summary.rows, summary.paired))
    lines = out.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert "…" not in out.getvalue()
    assert ("n=1" in out.getvalue()) == (len(seeds) == 1)
    assert sum("finished" in line and "= " in line for line in lines) == len(policies)


@pytest.mark.parametrize("width", [40, 80, 100])
def test_no_width_leaves_a_column_out(width):
    row = replaced(
        ttft_s=Quantiles(p50=1.01, p90=1.02, p99=1.03),
        e2e_s=Quantiles(p50=2.01, p90=2.02, p99=2.03),
        queue_s=Quantiles(p50=0.1, p90=0.2, p99=3.03),
        cold_start_ratio=0.4444,
        gpu_allocated_pct=51.1,
        gpu_resident_pct=52.2,
        gpu_busy_pct=53.3,
        goodput_per_gpu_hour=614.0,
        cost_usd=715.0,
        refused=816,
    )
    out = io.StringIO()
    Console(file=out, width=width).print(summary_table([row]))
    table = out.getvalue().split("finished")[0].splitlines()
    cells = [cell for line in table if line.startswith("default ") for cell in line.split()[1:]]
    latency = ["1.01", "1.02", "1.03", "2.01", "2.02", "2.03", "3.03", "44.4"]
    assert cells[: len(latency)] == latency
    assert cells[len(latency) :][:6] == ["51.1", "52.2", "53.3", "614", "715", "816"]
    assert max(len(line.rstrip()) for line in table) <= width
    tables = sum(line.startswith("policy ") for line in table)
    assert tables == {40: 5, 80: 2, 100: 1}[width]


def test_a_narrow_terminal_shows_every_difference():
    rows = [
        summarise(make_record(policy, seed, hold_s=hold_s, **SMALL))
        for policy, hold_s in (("base", 5), ("other", 50))
        for seed in (1, 2, 3)
    ]
    out = io.StringIO()
    Console(file=out, width=40).print(summary_table(rows, compare(rows, "base")))
    after = out.getvalue().split("Less base")[1]
    headings = ("p50", "p99", "ratio", "alloc", "/GPUh")
    assert [after.split().count(heading) for heading in headings] == [1, 2, 1, 1, 1]


def test_the_table_shows_a_run_in_which_nothing_finished():
    row = read_row()
    out = io.StringIO()
    Console(file=out, width=100).print(summary_table([row]))
    assert " - " in out.getvalue()


def replaced(**fields) -> SummaryRow:
    return msgspec.structs.replace(summarise(make_record(**SMALL)), **fields)


def read_row() -> SummaryRow:
    record = make_record(**SMALL)
    record.requests.outcome = np.full_like(record.requests.outcome, 3)
    return msgspec.json.decode(msgspec.json.encode(summarise(record)), type=SummaryRow)

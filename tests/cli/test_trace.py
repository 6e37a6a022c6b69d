"""`inferx trace`, as a user calls it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from inferx import cli
from inferx.cli import trace as trace_module
from inferx.sim.workload.read import read_trace
from inferx.sim.workload.trace import make_trace
from inferx.sim.workload.write import write_trace

TRACES = Path(__file__).parents[2] / "traces"
TINY = str(TRACES / "tiny.parquet")
FOLDER = os.environ.get("INFERX_TRACE_DIR")
SYNTH = "synth --arrivals gamma:rate=5,cv=4 --functions 50 --input-tokens 10 --output-tokens 5"


@pytest.fixture
def inferx(monkeypatch, capsys):
    """Run `inferx trace ...`; return exit status, stdout and stderr."""

    def run(*words: str):
        monkeypatch.setattr(sys, "argv", ["inferx", "trace", *words])
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code
        else:
            status = 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def ok(result) -> str:
    status, out, err = result
    assert (status, err) == (0, "")
    return out


@pytest.mark.parametrize("command", ["info", "reuse", "convert", "synth", "servegen", "transform"])
def test_every_help_has_an_example(command):
    result = CliRunner().invoke(trace_module.trace, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example:\n    inferx trace {command}" in result.output


def test_info_describes_as_table_and_as_json(inferx):
    table = ok(inferx("info", TINY))
    assert "608" in table
    assert "input tokens" in table
    facts = json.loads(ok(inferx("info", TINY, "--json")))
    assert facts["requests"] == 608
    assert facts["format"] == "inferx"
    assert facts["functions"]["count"] == 10
    assert facts["sha256"] == read_trace(TINY).sha256()


def test_info_of_one_request_has_null_for_what_is_undefined(inferx, tmp_path):
    path = tmp_path / "one"
    write_trace(path, [make_trace(np.zeros(1, np.int64), duration_ns=np.ones(1))])
    facts = json.loads(ok(inferx("info", str(path), "--json")))
    assert facts["rate"] is None
    assert facts["gaps"]["cv"] is None
    assert "-" in ok(inferx("info", str(path)))


def test_reuse_prints_the_counts_under_the_numbers_as_written(inferx):
    out = ok(inferx("reuse", TINY, "--keep-alive", "10, 0.5,1e9", "--slots", "1,10", "--json"))
    facts = json.loads(out)
    assert list(facts) == [
        "trace",
        "rows_with_a_model",
        "models",
        "lru_misses_by_slots",
        "cold_starts_by_keep_alive_s",
    ]
    assert list(facts["cold_starts_by_keep_alive_s"]) == ["10", "0.5", "1e9"]
    assert facts["cold_starts_by_keep_alive_s"]["1e9"] == facts["models"] == 10
    assert facts["lru_misses_by_slots"]["10"] == 10
    assert "LRU of 4" in ok(inferx("reuse", TINY))


@pytest.mark.skipif(FOLDER is None, reason="INFERX_TRACE_DIR is not set")
def test_reuse_of_gentd26_equals_the_published_counts(inferx):
    path = f"{FOLDER}/gentd26/lora_request_trace.csv"
    words = ("--keep-alive", "10,60,1800", "--slots", "1,4,16", "--json")
    assert json.loads(ok(inferx("reuse", path, *words))) == {
        "trace": path,
        "rows_with_a_model": 26798,
        "models": 86,
        "lru_misses_by_slots": {"1": 20002, "4": 9074, "16": 1393},
        "cold_starts_by_keep_alive_s": {"10": 24356, "60": 14708, "1800": 2324},
    }


def test_convert_writes_what_it_read(inferx, tmp_path):
    source, out = tmp_path / "a.csv", tmp_path / "a.parquet"
    source.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00,5,1\n2024-05-10 00:00:03,5,0\n"
    )
    written = json.loads(ok(inferx("convert", str(source), "-o", str(out), "--json")))
    assert written["requests"] == 1
    assert written["dropped"] == {"no output tokens": 1}
    assert written["sha256"] == read_trace(out).sha256() == read_trace(source).sha256()
    assert "1 with no output tokens" in ok(
        inferx("convert", str(source), "-o", str(out), "--overwrite")
    )


def test_synth_is_seeded(inferx, tmp_path):
    def made(name: str, seed: int) -> str:
        words = (*SYNTH.split(), "--duration", "60", "--seed", str(seed), "--json")
        return json.loads(ok(inferx(*words, "-o", str(tmp_path / name))))["sha256"]

    assert made("a", 1) == made("b", 1) != made("c", 2)


def test_transform_does_every_step(inferx, tmp_path):
    out = str(tmp_path / "out")
    steps = (
        "--cut 10:300 --sample 0.5 --sample-functions 0.9 --scale 2 --jitter 1 --assign zipf:1,7"
    )
    words = (*steps.split(), "--start", "0", "--start", "60", "--seed", "4", "-o", out)
    written = json.loads(ok(inferx("transform", TINY, TINY, *words, "--json")))
    trace = read_trace(out)
    trace.validate()
    assert trace.names == tuple(f"f{i:04d}" for i in range(7))
    assert 0 < written["requests"] == len(trace) < 608
    assert trace.span_ns < 146 * 10**9


def servegen_folder(folder: Path) -> Path:
    """Two clients over 40 minutes, the second one busier and without lengths."""
    folder.mkdir()
    for number, rate in ((0, 0.05), (3, 0.2)):
        windows = [f"{second},{rate},2,Gamma,0.25,{4 / rate}" for second in range(0, 2400, 600)]
        (folder / f"chunk-{number}-trace.csv").write_text("\n".join(windows))
    lengths = {"0": {"input_tokens": "{12: 0.5, 99: 0.5}", "output_tokens": "{7: 1.0}"}}
    (folder / "chunk-0-dataset.json").write_text(json.dumps(lengths))
    return folder


def test_servegen_makes_a_function_of_each_client(inferx, tmp_path):
    folder = servegen_folder(tmp_path / "clients")
    words = "--cut 600:1800 --scale 0.5 --input-tokens 100 --output-tokens fixed:50 --seed 3"

    def made(name: str, *more: str) -> str:
        out = str(tmp_path / name)
        ok(inferx("servegen", str(folder), *words.split(), *more, "-o", out))
        return out

    trace = read_trace(made("a"))
    assert trace.names == ("client-0", "client-3")
    assert np.bincount(trace.function).tolist() == [30, 120]
    assert set(trace.input_tokens[trace.function == 0].tolist()) == {12, 99}
    assert set(trace.output_tokens[trace.function == 1].tolist()) == {50}
    assert read_trace(made("b")).sha256() == trace.sha256()
    assert Path(made("c")).read_bytes() == (tmp_path / "a").read_bytes()
    assert read_trace(made("d", "--clients", "1")).names == ("client-3",)


def test_cut_may_be_open_at_either_end(inferx, tmp_path):
    for name, window in (("a", ":300"), ("b", "300:"), ("c", ":")):
        ok(inferx("transform", TINY, "--cut", window, "-o", str(tmp_path / name)))
    counts = [len(read_trace(tmp_path / name)) for name in "abc"]
    assert counts[0] + counts[1] == counts[2] == 608


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("info nowhere", "nowhere: no such file; expected a request trace"),
        (f"reuse {TINY} --keep-alive 10,x", "keep-alive x: expected seconds"),
        (f"reuse {TINY} --keep-alive nan", "keep-alive nan: expected seconds"),
        (f"reuse {TINY} --slots 0", "slots 0: expected at least 1"),
        (f"reuse {TINY} --slots 1.5", "slots '1.5': expected a whole number"),
        (f"info {TINY} --durations {TINY}", "expected no second file"),
        (f"convert {TINY} -o {TINY}", "exists; expected a new file"),
        (f"convert {TINY} -o /nowhere/x", "/nowhere/x: no such directory as /nowhere"),
        (f"transform {TINY} -o OUT --cut 5", "cut '5': expected FROM:TO"),
        (f"transform {TINY} -o OUT --cut x:5", "cut from x: expected seconds"),
        (f"transform {TINY} -o OUT --cut 5:1", "expected 0 <= from < to"),
        (f"transform {TINY} -o OUT --cut 9000:9001", "no request is left to write"),
        (f"transform {TINY} -o OUT --assign zipf", "assign 'zipf': expected zipf:ALPHA"),
        (f"info {TINY} --seed -1", "seed -1: expected a whole number"),
        (f"transform {TINY} -o OUT --start 1 --start 2", "2 starts for 1 traces"),
        (f"{SYNTH} --duration nan -o OUT", "duration nan: expected seconds"),
        (f"{SYNTH} --duration 0 -o OUT", "the span is 0 ns"),
        (f"{SYNTH} --service 3 --duration 9 -o OUT", "token lengths or service times"),
        ("servegen nowhere -o OUT", "nowhere: no such directory; expected a folder of ServeGen"),
        (f"servegen {TRACES} -o OUT", "expected one a ServeGen client"),
    ],
)
def test_mistake_is_one_line_and_status_two(inferx, tmp_path, words, message):
    status, out, err = inferx(*words.replace("OUT", str(tmp_path / "out")).split())
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("inferx: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_bar_is_drawn_on_a_terminal_only(inferx, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    status, out, err = inferx("info", TINY, "--json")
    assert status == 0
    assert json.loads(out)["requests"] == 608
    assert "reading tiny.parquet" in err


def test_interrupt_leaves_nothing_behind(tmp_path):
    """A real signal to a real process, midway through writing."""
    out = tmp_path / "out"
    words = "synth --arrivals poisson:1e6 --functions 9 --service 1 --duration 1e6 -o"
    # A shell starts background jobs deaf to the interrupt; whoever runs the tests may be one.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from inferx.cli import main; main()"
    command = [sys.executable, "-c", code, "trace", *words.split(), str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        # The file beside the target says that writing has begun.
        while not any(tmp_path.iterdir()):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip() == "inferx: interrupted"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["demo", "tiny"])
def test_bundled_trace_is_what_its_command_makes(inferx, tmp_path, name):
    readme = (TRACES / "README.md").read_text()
    (command,) = re.findall(
        rf"^inferx trace (synth .*traces/{name}\.parquet.*)$", readme, re.MULTILINE
    )
    words = shlex.split(command.replace(f"traces/{name}.parquet", str(tmp_path / name)))
    written = json.loads(ok(inferx(*words, "--json")))
    assert written["sha256"] == read_trace(TRACES / f"{name}.parquet").sha256()
    assert written["sha256"] in readme
    assert (TRACES / f"{name}.parquet").stat().st_size < 1 << 20

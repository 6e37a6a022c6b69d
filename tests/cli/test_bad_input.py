"""Bad input of every kind: one line on stderr, a status that is not zero, and nothing written."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from inferx.sim.workload.trace import make_trace
from inferx.sim.workload.write import write_trace

TRACES = Path(__file__).parents[2] / "traces"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
FUNCTION = (
    '[[function]]\nname = "f0000"\nhbm_gib = 8\nhost_gib = 2\nweight_gib = 4\ndevice_gib = 5\n'
)
FIELD = """
from dataclasses import replace
from inferx.policy import default


def bundle():
    return replace(default.bundle(), {field})
"""
POLICY = """
from dataclasses import dataclass, replace
from inferx.policy import Defer, Evict, Place, Promote, Retain, Tier, default


class Mine:
    def {slot}({arguments}):
        {body}


def bundle(x=1):
    return replace(default.bundle(), name="mine", {field}=Mine())
"""
ARGUMENTS = {
    "admit": ("admission", "self, request, queued, view"),
    "route": ("routing", "self, request, candidates, view, rng"),
    "place": ("placement", "self, want, view, rng"),
    "evict": ("eviction", "self, want, view, rng"),
    "retain": ("keep_alive", "self, function, at, view"),
    "promote": ("prewarm", "self, view, rng"),
    "target": ("scaling", "self, function, view"),
}


def policy(slot: str, body: str) -> str:
    """A policy whose one slot does the given thing."""
    name, arguments = ARGUMENTS[slot]
    text = POLICY.format(slot=slot, arguments=arguments, body=body, field=name)
    if slot == "target":
        text = text.replace(
            "class Mine:", "class Mine:\n    def targets(self, view): return None\n"
        )
    return text


@dataclass
class Case:
    says: str
    files: dict[str, str | bytes] = field(default_factory=dict)
    trace: str = "tiny"
    more: str = ""
    cluster: str = "g6e.12xlarge=1"
    status: int = 2
    pipes: tuple[str, ...] = ()


def text(trace: str, says: str) -> Case:
    return Case(says, {"t.csv": trace}, trace="t.csv")


def mine(slot: str, body: str, says: str) -> Case:
    return Case(says, {"p.py": policy(slot, body)}, more="--policy p.py")


def field_of(written: str, says: str) -> Case:
    """A bundle with one plain field that nobody could work with."""
    return Case(says, {"p.py": FIELD.format(field=written)}, more="--policy p.py")


def settings(name: str, setting: str, says: str) -> Case:
    """A shipped policy with a setting that it cannot have."""
    return Case(says, more=f"--policy {name} --set {setting}")


DAY = "HashOwner,HashApp,HashFunction,Trigger," + ",".join(map(str, range(1, 1441))) + "\n"
HUGE = "x" * 3_000_000
PARQUET = (TRACES / "tiny.parquet").read_bytes()
CASES = {
    # Traces.
    "trace is missing": Case("nowhere.csv", trace="nowhere.csv"),
    "trace is a directory": Case("directory", {"d/x": ""}, trace="d"),
    "trace is empty": text("", "t.csv"),
    "trace is one header": text(AZURE.splitlines()[0] + "\n", "no usable requests"),
    "trace has other columns": text("a,b,c\n1,2,3\n", "begins with"),
    "trace is prose": text("once upon a time\n", "begins with"),
    "trace is binary": Case("t.bin", {"t.bin": bytes(range(256)) * 40}, trace="t.bin"),
    "trace has one huge line": text(HUGE, "t.csv"),
    "trace has a huge row": text(AZURE + HUGE + "\n", "t.csv:3"),
    "trace has no end": Case("/dev/zero: not a regular file", trace="/dev/zero"),
    "trace is a pipe": Case("t.fifo: not a regular file", pipes=("t.fifo",), trace="t.fifo"),
    "durations are a pipe": Case(
        "t.fifo: not a regular file; expected one as durations",
        pipes=("t.fifo",),
        more="--durations t.fifo",
    ),
    "profile is a pipe": Case(
        "t.toml: not a regular file", pipes=("t.toml",), more="--profile t.toml"
    ),
    "faults are a pipe": Case(
        "t.toml: not a regular file", pipes=("t.toml",), more="--faults t.toml"
    ),
    "profile file is missing": Case("no such file; expected a profile", more="--profile no.toml"),
    "trace has too many invocations": text(
        DAY + "o,a,f,http,4000000000" + ",0" * 1439 + "\n",
        "t.csv:2: column '1' is '4000000000'; expected a number, 0 to 1e+07",
    ),
    "trace has part of an invocation": text(
        DAY + "o,a,f,http,0,0.5" + ",0" * 1438 + "\n", "column '2' is '0.5'; expected a whole"
    ),
    "trace is truncated parquet": Case("t.pq", {"t.pq": PARQUET[:4000]}, trace="t.pq"),
    "trace is damaged parquet": Case(
        "t.pq", {"t.pq": PARQUET[:60] + b"\0" * 900 + PARQUET[960:]}, trace="t.pq"
    ),
    "trace row is short": text(AZURE + "2023-11-16 18:15:47.0,374\n", "t.csv:3"),
    "trace goes back in time": text(AZURE + "2023-11-16 18:15:40.0,3,4\n", "--sort"),
    "trace has a bad time": text(AZURE + "yesterday,3,4\n", "t.csv:3"),
    "trace has negative tokens": text(AZURE + "2023-11-16 18:15:47.0,-3,4\n", "t.csv:3"),
    "trace has NaN tokens": text(AZURE + "2023-11-16 18:15:47.0,nan,4\n", "t.csv:3"),
    "durations for a trace that has them": Case("expected no second", more="--durations t"),
    # Clusters.
    "cluster is missing": Case("nowhere.toml", cluster="nowhere.toml"),
    "cluster is not TOML": Case("c.toml:1", {"c.toml": "[[["}, cluster="c.toml"),
    "cluster is empty": Case("empty file", {"c.toml": ""}, cluster="c.toml"),
    "cluster has an unknown key": Case(
        "gpuz", {"c.toml": '[[group]]\ninstance_type = "p5.4xlarge"\ngpuz = 1\n'}, cluster="c.toml"
    ),
    "cluster counts nothing": Case("g6e.12xlarge=0", cluster="g6e.12xlarge=0"),
    "cluster of an unknown type": Case("g7x.large", cluster="g7x.large=1"),
    # Functions.
    "functions are missing": Case("nowhere.toml", more="--functions nowhere.toml"),
    "functions by an unknown template": Case("template", more="--functions auto:9000b"),
    "functions are not JSON": Case("f.json:1", {"f.json": "{"}, more="--functions f.json"),
    "functions of an empty directory": Case("empty", {"d/x": ""}, more="--functions d"),
    "functions do not describe the trace": Case(
        "does not describe: f0",
        {"f.toml": FUNCTION.replace("f0000", "other")},
        more="--functions f.toml",
    ),
    "functions fit no node": Case(
        "--allow-misfits",
        {"f.toml": FUNCTION.replace("hbm_gib = 8", "hbm_gib = 800")},
        trace="one",
        more="--functions f.toml",
    ),
    # Policies that cannot be made.
    "policy is unknown": Case("expected one of", more="--policy deafult"),
    "policy file is missing": Case("no such file", more="--policy nowhere.py"),
    "policy file lacks the function": Case("no function", {"p.py": ""}, more="--policy p.py"),
    "policy is not Python": Case("p.py:1", {"p.py": "def ("}, more="--policy p.py:bundle"),
    "policy raises on import": Case(
        "ZeroDivisionError", {"p.py": "1 / 0"}, more="--policy p.py:bundle"
    ),
    "policy leaves on import": Case(
        "SystemExit", {"p.py": "raise SystemExit"}, more="--policy p.py:bundle"
    ),
    "policy ends the process on import": Case(
        "it called os._exit(3)", {"p.py": "import os; os._exit(3)"}, more="--policy p.py:bundle"
    ),
    "policy is binary": Case("p.py", {"p.py": bytes(range(256))}, more="--policy p.py:bundle"),
    "policy raises when made": Case(
        "KeyError", {"p.py": "def bundle(): return {}['x']"}, more="--policy p.py:bundle"
    ),
    "policy makes nothing": Case(
        "made a NoneType", {"p.py": "def bundle(): pass"}, more="--policy p.py:bundle"
    ),
    "policy lacks a method": Case(
        "no method 'place'",
        {"p.py": policy("evict", "pass").replace("eviction=", "placement=")},
        more="--policy p.py",
    ),
    "policy has no such setting": Case("its settings are", more="--policy default --set gap=1"),
    "setting is text for a number": settings("scale-to-zero", "grace_s=abc", "a whole number"),
    "setting is a fraction": settings("scale-to-zero", "stable_s=7.5", "expected a whole number"),
    "setting is no number": settings("scale-to-zero", "utilisation=nan", "a finite number"),
    "setting is infinite": settings("serverlessllm", "keep_alive_s=inf", "a finite number"),
    "setting is a switch": settings("inferx-reference", "trim=2", "expected true or false"),
    "window is nothing": settings("scale-to-zero", "stable_s=0", "stable_s is 0; expected 6 to"),
    "window is negative": settings("scale-to-zero", "stable_s=-5", "stable_s is -5; expected"),
    "grace is negative": settings("scale-to-zero", "grace_s=-1", "grace_s is -1; expected 0"),
    "outlook is negative": settings("default", "outlook_s=-5", "outlook_s is -5; expected 0 to"),
    "chance above one": settings("default", "waits=2", "waits is 2; expected 0 to 1"),
    "no period": settings("default", "period_s=0", "period_s is 0; expected 0.1 to 3600"),
    "lanes are negative": settings("default", "lanes=-1", "lanes is -1; expected 0 to 1000"),
    "patience is negative": settings("default", "patience_s=-1", "patience_s is -1; expected"),
    "no utilisation": settings("scale-to-zero", "utilisation=0", "expected above 0, at most 1"),
    "keep-alive is negative": settings("serverlessllm", "keep_alive_s=-1", "keep_alive_s is -1"),
    "no contexts": settings("inferx-reference", "contexts_per_gpu=0", "expected 1 to 1000"),
    "setting of a file is infinite": Case(
        "--set x=inf: expected a finite number",
        {"p.py": policy("place", "return Defer('no')")},
        more="--policy p.py --set x=inf",
    ),
    "setting without a value": Case("NAME=VALUE", more="--policy default --set gaps"),
    "setting before any policy": Case("no --policy before", more="--set lanes=1 --policy default"),
    "setting twice": Case("second time", more="--policy default --set lanes=1 --set lanes=2"),
    "policy twice": Case("second policy", more="--policy default --policy default"),
    "policy for an unknown mechanism": Case(
        "mechanism: 'magic'",
        {"p.py": policy("admit", "pass").replace('name="mine"', 'name="mine", mechanism="magic"')},
        more="--policy p.py",
    ),
    "bundle's name is a number": field_of("name=5", "policy p.py: bundle policy: name: 5"),
    "bundle's name is empty": field_of("name=''", "name: ''"),
    "bundle's name is a path": field_of("name='a/b'", "without a slash"),
    "bundle's name is two lines": field_of(r"name='a\nb'", "expected a printable text"),
    "bundle's period is nothing": field_of("name='m', control_period_ns=0", "at least 1"),
    "bundle's period is negative": field_of("name='m', control_period_ns=-1", "at least 1"),
    "bundle settles before the event": field_of("name='m', settle_ns=-1", "settle_ns: -1"),
    "bundle's patience is a float": field_of("name='m', patience_ns=1.5", "patience_ns: 1.5"),
    "bundle's switch is a number": field_of("name='m', snapshots=1", "expected true or false"),
    "bundle's mechanism is a list": field_of("name='m', mechanism=[]", "mechanism: []"),
    "bundle's observers are a list": field_of("name='m', observers=[]", "expected a tuple"),
    "bundle's observer is blind": field_of("name='m', observers=(3,)", "no method 'observe'"),
    # Policies that break a rule in the run.
    "policy raises in admit": mine(
        "admit", "return {}['x']", "admission policy: it raised KeyError"
    ),
    "policy raises in place": mine("place", "return 1 / 0", "placement policy: it raised ZeroDiv"),
    "policy raises many lines": mine("place", "raise ValueError('a\\nb\\n\\nc')", "a b c"),
    "policy leaves": mine("place", "raise SystemExit(0)", "it raised SystemExit"),
    "policy admits with a word": mine("admit", "return 'yes'", "expected Admit() or Reject"),
    "policy returns None for a place": mine("place", "return None", "it returned None"),
    "policy places on text": mine("place", "return Place('0')", "expected Place(tuple"),
    "policy places on no GPU": mine("place", "return Place(())", "1 distinct GPUs were wanted"),
    "policy places where no GPU is": mine("place", "return Place((99,))", "there is no GPU 99"),
    "policy places on a full GPU": mine("place", "return Place((0,))", "GPU 0 is too full"),
    "policy evicts whom nobody knows": Case(
        "eviction policy: pod 77",
        {
            "p.py": policy("place", "return Defer('never')")
            .replace("placement=Mine()", "placement=Mine(), eviction=Mine()")
            .replace(
                "class Mine:",
                "class Mine:\n    def evict(self, *a): return Evict((), ((77, Tier.ABSENT),))\n",
            )
        },
        more="--policy p.py",
    ),
    "policy holds for a float": mine(
        "retain", "return Retain(1e9, Tier.DRAM)", "keep_alive policy"
    ),
    "policy holds for less than nothing": mine(
        "retain", "return Retain(-1, Tier.DRAM)", "keep_alive policy"
    ),
    "policy promotes nowhere": mine("promote", "return [Promote(0, 99, Tier.NVME)]", "prewarm"),
    "policy promotes text": mine("promote", "return 'abc'", "a list or tuple of Promote"),
    "policy wants half a pod": mine("target", "return 0.5", "scaling policy"),
    "policy wants fewer than no pods": mine("target", "return -1", "expected a whole number of"),
    "policy wants pods without end": mine("target", "return 10**12", "0 to 2,147,483,647"),
    "policy is async": Case(
        "placement policy: it is async",
        {"p.py": policy("place", "return Place((0,))").replace("def place", "async def place")},
        more="--policy p.py",
    ),
    "policy changes the view": mine("place", "view.gpus.milli_free[0] = 0", "read-only"),
    # Options.
    "seed is a word": Case("seed 'one'", more="--seed one"),
    "seed is negative": Case("seed '-1'", more="--seed -1"),
    "seeds go backwards": Case("seed '5..1'", more="--seed 5..1"),
    "seed twice": Case("3 twice", more="--seed 1..3,3"),
    "too many seeds": Case("seed '0..999999'", more="--seed 0..999999"),
    "assign is a word": Case("assign 'zipf'", more="--assign zipf"),
    "assign to no function": Case("assign 'uniform:0'", more="--assign uniform:0"),
    "profile is unknown": Case("profile", more="--profile magic"),
    "profile of an unknown mechanism": Case("expected one of", more="--profile magic=criu-memfd"),
    "unused profile is unknown": Case("profile nope: unknown", more="--profile none=nope"),
    "unused profile is empty": Case("profile '': unknown", more="--profile none="),
    "prepared is a word": Case("prepared 'yes'", more="--prepared yes"),
    "no jobs": Case("jobs 0", more="--jobs 0"),
    "jobs is a word": Case("--jobs", more="--jobs many"),
    "no routers": Case("routers 0", more="--routers 0"),
    "link loses all": Case("link-loss 1", more="--link-loss 1"),
    "link delay is NaN": Case("link-delay-ms nan", more="--link-delay-ms nan"),
    "warm-up is negative": Case("warmup -1", more="--warmup -1"),
    "warm-up outlasts the trace": Case("warmup 1e+09: expected at most", more="--warmup 1e9"),
    "target is NaN": Case("slo-ttft nan", more="--slo-ttft nan"),
    "against is unknown": Case("policy nobody: unknown", more="--against nobody"),
    "option is unknown": Case("No such option", more="--polcy default"),
    "fault file is missing": Case("No such file", more="--faults nowhere.toml"),
    "fault file is not TOML": Case("x.toml", {"x.toml": "kind = lost"}, more="--faults x.toml"),
    "fault of an unknown kind": Case(
        "x.toml",
        {"x.toml": '[[fault]]\nnode = "g6e.12xlarge-0"\nat_s = 1\nkind = "melted"\n'},
        more="--faults x.toml",
    ),
    "fault of a node that is not there": Case(
        "not in the cluster",
        {"x.toml": '[[fault]]\nnode = "n"\nat_s = 1\nkind = "lost"\n'},
        more="--faults x.toml",
    ),
    "out exists": Case("exists", {"run/x": ""}),
    "out is no run": Case("is not a run", {"run/x": ""}, more="--overwrite"),
    "out is a file": Case("exists", {"run": "precious"}),
}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A trace of three requests of one function."""
    path = tmp_path_factory.mktemp("one") / "one.parquet"
    write_trace(path, [make_trace(np.arange(3) * 10**9, duration_ns=np.full(3, 10**8))])
    return path


def listing(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def assert_one_line(status: int, out: str, err: str, says: str) -> None:
    assert status != 0
    assert out == ""
    assert err.startswith("inferx: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    assert says in err


@pytest.mark.parametrize("name", CASES)
def test_replay_refuses_in_one_line_and_leaves_nothing(name, call, one, tmp_path, monkeypatch):
    case = CASES[name]
    monkeypatch.chdir(tmp_path)
    for file, content in case.files.items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    for pipe in case.pipes:
        os.mkfifo(tmp_path / pipe)
    before = listing(tmp_path)
    trace = {"tiny": TRACES / "tiny.parquet", "one": one}.get(case.trace, case.trace)
    # The run is to be in folders that are not there; they go with it.
    out = "run" if "run" in case.files or "run/x" in case.files else "new/folder/run"
    words = ("replay", trace, "--cluster", case.cluster, "--out", out, *case.more.split())
    status, told, err = call(*words)
    assert_one_line(status, told, err, case.says)
    assert len(err) < 400
    assert status == case.status
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("explain nowhere 1", "no such run"),
        ("explain . 1", "not part of a run"),
        ("explain .", "REQUEST or --slowest"),
        ("explain . 1 --slowest 2", "one of them"),
        ("explain . --slowest 0", "expected 1 to"),
        ("explain . one", "REQUEST"),
        ("up --otlp nowhere", "--otlp: expected http://HOST:PORT"),
        ("gateway --state grpc://127.0.0.1:1 --otlp http://a", "--otlp: expected"),
        ("gateway --state grpc://127.0.0.1:1 --trace-ratio 2", "--trace-ratio"),
        ("scheduler --state grpc://127.0.0.1:1 --otlp ftp://a:1", "--otlp: expected"),
        ("agent --functions . --otlp a:1", "--otlp: expected"),
        ("check", "--policy"),
        ("check --policy nobody", "unknown"),
        ("check --policy default --policy default", "expected one --policy"),
        ("check --policy default --set x=1", "its settings are"),
        ("check --policy default --limit 0", "limit 0: expected seconds"),
        ("check --policy default --limit nan", "limit nan: expected seconds"),
        ("replay", "TRACE"),
        ("replay t.csv", "--cluster"),
        ("reply", "No such command"),
    ],
)
def test_commands_refuse_in_one_line(words, says, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line(*call(*words.split()), says)
    assert listing(tmp_path) == {}

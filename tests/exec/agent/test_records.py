"""An agent that is killed as it writes a pod's first record leaves what the next one finds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inferx.exec.agent.containers.runc import RuncSandbox
from inferx.exec.agent.ports import AgentError, Launch, PodSpec
from inferx.exec.agent.processes.process import ProcessSandbox

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

AGENT = """
import os, signal, sys
from pathlib import Path
from test_records import sandbox_of, spec_in
folder, kind, event = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
sandbox, spec = sandbox_of(kind, folder), spec_in(folder)
def die(name, args):
    if name == event and str(args[0]).startswith(str(folder / "state")):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
sandbox.start(spec)
"""


def sandbox_of(kind: str, folder: Path) -> RuncSandbox | ProcessSandbox:
    if kind == "runc":
        return RuncSandbox(folder / "state")
    return ProcessSandbox(folder / "state", contained=False)


def spec_in(folder: Path) -> PodSpec:
    launch = Launch(function="t/n/f@1", command=("/bin/sleep", "60"))
    return PodSpec(pod="pod-1", launch=launch, folder=folder / "pod-1")


@needs_root
@pytest.mark.parametrize(
    ("kind", "event"),
    [("process", "os.rename"), ("runc", "os.rename"), ("runc", "os.link"), ("runc", "os.remove")],
)
def test_killed_while_its_record_is_written_a_pod_is_found_and_removed(
    tmp_path: Path, kind: str, event: str
) -> None:
    path = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, "-c", AGENT, str(tmp_path), kind, event],
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    written = {file for file in (tmp_path / "state").rglob("*") if file.is_file()}
    assert written
    sandbox = sandbox_of(kind, tmp_path)
    assert sandbox.live() == []
    assert list(sandbox.traces()) == ["pod-1"]
    sandbox.stop("pod-1")
    assert list(sandbox.traces()) == []
    assert not [file for file in written if file.exists()]


@needs_root
@pytest.mark.parametrize("kind", ["process", "runc"])
def test_a_record_that_cannot_be_removed_is_one_error(tmp_path: Path, kind: str) -> None:
    aside = tmp_path / "state" / {"process": ".pod-1.json.new", "runc": "pods/.pod-1"}[kind]
    aside.mkdir(parents=True)
    with pytest.raises(AgentError, match="pod pod-1: cannot remove its record") as caught:
        sandbox_of(kind, tmp_path).stop("pod-1")
    assert "\n" not in str(caught.value)

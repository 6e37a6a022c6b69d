"""Weights of the bench's workers, written by the command that users have."""

import os
import subprocess
from pathlib import Path

import inferx
from inferx.exec.agent.bench.plan import Subject, worker
from inferx.exec.agent.ports import AgentError

__all__ = ["write"]


def write(path: Path, subject: Subject, *, seed: int) -> None:
    """Write a file of weights.

    Raises:
        AgentError: It cannot be written; or torch is not installed.
    """
    words = ["weights", str(path), "--engine", subject.engine, "--bytes"]
    done = subprocess.run(
        worker(*words, str(subject.weight_bytes), "--seed", str(seed)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(inferx.__file__).parents[1])},
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no word of why"])[-1]
        raise AgentError(f"{subject.title}: {why.removeprefix('inferx: ')}", phase="weights")

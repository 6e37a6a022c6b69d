"""Runs the bench in every sandbox that is there, then writes data and document."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studies.restore.daemon import containerd
from studies.restore.document import document

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
INFERX = (sys.executable, "-c", "from inferx.cli import main; main()")
PROGRAMS = {"process": (), "runc": ("runc",), "containerd": ("containerd", "runc")}
"""What each sandbox needs besides CRIU."""


@contextmanager
def options_of(sandbox: str) -> Iterator[list[str]]:
    """Yield what the bench is told of a sandbox."""
    if sandbox != "containerd":
        yield []
        return
    with containerd() as socket:
        yield ["--containerd", socket]


def bench(sandbox: str, asked: list[str]) -> dict:
    """Run one bench, and return what it wrote.

    Raises:
        SystemExit: It failed; it said why.
    """
    with tempfile.TemporaryDirectory() as scratch, options_of(sandbox) as options:
        out = Path(scratch) / "bench.json"
        told = [*asked, "--sandbox", sandbox]
        command = [*INFERX, "agent", "bench", *told, *options, "--out", str(out)]
        if status := subprocess.run(command, check=False).returncode:
            sys.exit(f"the bench of {sandbox} failed with status {status}; nothing is written")
        found = json.loads(out.read_text())
    # Where the study's own files were says nothing.
    found["about"]["command"] = shlex.join(["inferx", "agent", "bench", *told])
    return found


def missing(sandbox: str) -> str:
    """Return why a sandbox cannot be measured here; empty if it can."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [name for name in PROGRAMS[sandbox] if not shutil.which(name)]
    return f"needs {', '.join(lacking)}" if lacking else ""


def measure(options: argparse.Namespace) -> dict:
    """Run all benches, one after another."""
    asked = ["--sizes", options.sizes, "--rounds", str(options.rounds)]
    runs, skipped = [], {}
    for sandbox in PROGRAMS:
        if why := missing(sandbox):
            skipped[sandbox] = why
            continue
        print(f"{sandbox}:", file=sys.stderr, flush=True)
        # Torch starts and restores alike wherever it lives; one sandbox shows it.
        runs.append(bench(sandbox, [*asked, "--torch"] if sandbox == "process" else asked))
    return {
        "command": shlex.join(["python", "-m", "studies.restore", *sys.argv[1:]]),
        "skipped": skipped,
        "runs": runs,
    }


def main() -> None:
    """Measure, or write the document from what was kept."""
    parser = argparse.ArgumentParser(prog="python -m studies.restore")
    parser.add_argument("--sizes", default="10MB,100MB,1GB,4GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--redraw", action="store_true", help="use the kept data")
    options = parser.parse_args()
    data = RESULTS / "data" / "restore.json"
    if not options.redraw:
        found = measure(options)
        data.write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "restore.md").write_text(document(json.loads(data.read_text())))


if __name__ == "__main__":
    main()

"""Runs the faults in a network namespace of their own; see `inside`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Run this program's other half where the network is its own: a loopback, and nothing else."""
    inner = 'ip link set lo up && exec "$@"'
    half = [sys.executable, "-m", "studies.faults.inside", *sys.argv[1:]]
    paths = (str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", ""))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = ["unshare", "--net", "sh", "-c", inner, "sh", *half]
    sys.exit(subprocess.run(command, cwd=ROOT, env=env, check=False).returncode)


if __name__ == "__main__":
    main()

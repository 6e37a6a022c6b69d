"""What every result file says of how it came about."""

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["DATA", "ROOT", "about"]

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "results" / "data"


def about(module: str, *, seed: int | None) -> dict[str, Any]:
    """Return command, commit, date, machine and seed of the run of a module."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = found[1] if found else platform.machine()
    git = ["git", "rev-parse", "HEAD"]
    return {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "commit": subprocess.check_output(git, cwd=ROOT, text=True).strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{processor}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "seed": seed,
    }

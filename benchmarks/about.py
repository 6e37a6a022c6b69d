"""What every result file says of how it came about."""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["DATA", "ROOT", "about", "needs", "origin", "processor", "program", "prose"]

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "results" / "data"


def about(module: str, *, seed: int | None) -> dict[str, Any]:
    """Return command, commit, date, machine and seed of the run of a module."""
    git = ["git", "rev-parse", "HEAD"]
    return {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "commit": subprocess.check_output(git, cwd=ROOT, text=True).strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{processor()}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "seed": seed,
    }


def program(module: str, text: str | None) -> argparse.ArgumentParser:
    """Return a parser that says of a module's run what the module does."""
    whole = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f"python -m {module}", description=text, formatter_class=whole)


def needs(*programs: str) -> None:
    """End with one line unless Debian's packages of these names are installed."""
    lacking = " ".join(name for name in programs if not shutil.which(name))
    if lacking:
        sys.exit(f"not found: {lacking}; on Debian: apt-get install {lacking}")


def processor() -> str:
    """Return what this machine's processor is called."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def prose(text: str) -> str:
    """Return a paragraph of a page, wrapped."""
    return textwrap.fill(" ".join(text.split()), 112, break_on_hyphens=False)


def origin(found: Mapping[str, Any], file: str, *more: str) -> str:
    """Return the paragraph that says how a result file, in `data`, came about."""
    told = ", ".join((f"Python {found['python']}", *more, f"seed {found['seed']}"))
    return prose(
        f"""Written by `{found["command"]}` at commit `{found["commit"][:12]}`, {found["date"]}:
        {found["machine"]}; {told}; load average {found["load_average"][0]:.1f} at the end.
        The measurements: [`data/{file}`](data/{file})."""
    )

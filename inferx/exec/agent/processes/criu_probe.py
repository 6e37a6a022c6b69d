"""Which CRIU there is, and whether it can do what we need of it."""

import os
import shutil
import subprocess

from inferx.exec.agent.processes.criu_files import first_error
from inferx.exec.agent.processes.criu_image import version_of

__all__ = ["LEAST", "ask", "find_criu", "why_not"]

LEAST = (4, 2)
"""Older ones fail on sockets of today's kernels."""
PROBE_S = 30.0


def find_criu(path: str = "") -> str:
    """Return CRIU's path: the given one, else INFERX_CRIU's, else PATH's; empty without any."""
    return shutil.which(path or os.environ.get("INFERX_CRIU", "") or "criu") or ""


def why_not(path: str, facts: dict[str, str]) -> str:
    """Return why this CRIU cannot be used, or nothing; `facts` gets its version."""
    version = version_of(ask(path, "--version")[1])
    if not version:
        return f"{path} does not tell its version"
    facts["criu_version"] = shown = ".".join(str(each) for each in version)
    if version < LEAST:
        least = ".".join(str(each) for each in LEAST)
        return f"{path} is version {shown}, expected {least} or newer"
    if os.geteuid() != 0:
        return "no permission: CRIU needs root"
    _, told = ask(path, "check")
    if "Looks good" not in told:
        return f"{path} check: {first_error(told) or told.strip() or 'it says nothing'}"
    return ""


def ask(path: str, *arguments: str) -> tuple[int | None, str]:
    """Return how CRIU answered and what it said; None and why where it cannot be asked."""
    try:
        done = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return done.returncode, done.stdout.decode(errors="replace")

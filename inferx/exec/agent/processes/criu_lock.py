"""CRIU's network lock: a table of nftables that holds back the packets of kept connections.

It is there from a dump on, so that a peer is not told that nobody listens, until the restore. CRIU
removes it then, or when a dump fails; but not if CRIU is killed, nor if nobody restores.
"""

import re
from pathlib import Path

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes import launch

__all__ = ["remove", "table_of"]

RUN = re.compile(r"\) CRIU run id = (\S+)")
NAME_LENGTH = 26


def table_of(log: Path) -> str:
    """Return the name of the table that a dump with this log made; empty if it is not told."""
    found = RUN.search(log.read_text(errors="replace")) if log.exists() else None
    return f"CRIU-{found[1]}"[:NAME_LENGTH] if found else ""


def remove(table: str, *, network: str, said: Path, within_s: float) -> None:
    """Remove a table from a network namespace, the host's if empty; no table is fine.

    Args:
        table: See `table_of`.
        network: Path of the namespace.
        said: File that nft's output is added to.
        within_s: How long it may take.

    Raises:
        AgentError: nft is not there, refuses, or did not end in time.
    """
    # Made first, so that it can be removed: there is no "if it exists" in older versions of nft.
    text = f"add table inet {table}; delete table inet {table}"
    plan = launch.Plan(
        command=["nft", text],
        env={"PATH": launch.PATH},
        join=[(network, launch.CLONE_NEWNET)] if network else [],
        files=[
            (0, "/dev/null", launch.READ),
            (1, str(said), launch.APPEND),
            (2, str(said), launch.APPEND),
        ],
        wait=True,
    )
    what = f"cannot remove the packet filter {table}"
    if code := launch.run(plan, what=what, timeout_s=within_s):
        raise AgentError(f"{what}: nft ended with {code} (see {said})", phase="network")

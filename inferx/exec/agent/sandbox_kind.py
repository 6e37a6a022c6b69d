"""Which sandbox this state's pods are in, over restarts of the agent.

Pods outlive the agent. An agent that started with another sandbox would take them for gone: their
GPUs would be promised to others while they run. So the kind is written beside their records, and as
long as there is a record no other is taken.
"""

import logging
import time
from pathlib import Path

from inferx.exec.agent.ports import AgentError, Sandbox
from inferx.exec.agent.store.durable import told
from inferx.exec.files import write_whole

__all__ = ["SANDBOX_WAIT_S", "await_sandbox", "kind_of", "pods_in", "remember"]

SANDBOX_WAIT_S = 60.0
"""How long an agent waits for the daemon that has its pods, as after a boot of the machine."""
PAUSE_S = 0.25

FILE = "sandbox"

_log = logging.getLogger(__name__)


def remember(state: Path, kind: str) -> None:
    """Write down which sandbox the pods of a state will be in.

    Raises:
        AgentError: It cannot be written.
    """
    with told(f"cannot keep the sandbox's kind in {state}", phase="sandbox"):
        write_whole(state / FILE, kind.encode())


def pods_in(state: Path) -> int:
    """Return how many pods a state has records of."""
    return len(list((state / "pods").glob("pod-*")))


def kind_of(state: Path, asked: str) -> str:
    """Return the sandbox to take: where there are pods, the one that has them.

    Args:
        state: The agent's.
        asked: `auto`, or a kind.

    Raises:
        AgentError: Another was asked for than has the pods.
    """
    count = pods_in(state)
    if not count:
        return asked
    try:
        kind = (state / FILE).read_text("ascii").strip()
    except FileNotFoundError:
        return asked
    except (OSError, ValueError) as error:
        raise AgentError(f"{state / FILE} cannot be read: {error}", phase="sandbox") from error
    if asked not in {"auto", kind}:
        raise AgentError(
            f"sandbox {asked}: {state} has {count} pods of sandbox {kind}; expected {kind} or auto"
            " until they are stopped",
            phase="sandbox",
        )
    return kind


def await_sandbox(sandbox: Sandbox, *, within_s: float) -> None:
    """Wait until the sandbox that has pods answers; whether it did is for its probe to tell."""
    end = time.monotonic() + within_s
    asked = False
    while not (found := sandbox.probe()).available and time.monotonic() < end:
        if not asked:
            _log.warning("waiting %g s for %s: %s", within_s, found.name, found.reason)
            asked = True
        time.sleep(PAUSE_S)

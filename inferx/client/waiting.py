"""Waits until a function is ready, idle or gone, and no longer than told."""

import time
from collections.abc import Mapping
from typing import Any, Final, Literal

from inferx.client.cluster import Cluster
from inferx.client.errors import GoneError, WaitError
from inferx.client.names import Name

__all__ = ["Goal", "wait_for"]

Goal = Literal["ready", "idle", "gone"]
"""`ready`: a pod of it serves. `idle`: no request of it waits or is served. `gone`: neither the
function is there, nor a pod of it."""

POLL_S: Final = 0.5


def wait_for(cluster: Cluster, function: Name, goal: Goal, timeout_s: float) -> None:
    """Wait.

    Raises:
        WaitError: It did not come about in time; with what was seen last.
        GoneError: There is no such function, and that is not waited for.
    """
    until = time.monotonic() + timeout_s
    while True:
        seen = _seen(cluster, function, goal)
        if seen is None:
            return
        if time.monotonic() + POLL_S > until:
            raise WaitError(f"{function}: not {goal} after {timeout_s:g} s: {seen}")
        time.sleep(POLL_S)


def _seen(cluster: Cluster, function: Name, goal: Goal) -> str | None:
    """Return what is against it; None if nothing is."""
    place = (function.tenant, function.namespace, function.name)
    if goal == "gone":
        try:
            cluster.get(function)
        except GoneError:
            return _pods(cluster.pods(*place))
        return "the function is there"
    cluster.get(function)
    if goal == "ready":
        pods = cluster.pods(*place)
        ready = any(pod["state"] == "ready" for pod in pods)
        return None if ready else _pods(pods) or "it has no pod"
    try:
        fares = cluster.function(function)
    except GoneError:
        return "the scheduler has not heard of it yet"
    busy = {key: fares[key] for key in ("queued", "inflight") if fares[key]}
    return ", ".join(f"{count} {key}" for key, count in busy.items()) or None


def _pods(pods: tuple[Mapping[str, Any], ...]) -> str | None:
    return ", ".join(f"pod {pod['pod']} is {pod['state']}" for pod in pods) or None

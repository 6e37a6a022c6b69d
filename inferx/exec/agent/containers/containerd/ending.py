"""Ends what containerd has of a pod: tasks are killed until they can be deleted."""

import time

from inferx.exec.agent.containers.containerd import client as api
from inferx.exec.agent.containers.containerd import containerd_pb2 as pb
from inferx.exec.agent.ports import AgentError

__all__ = ["call_unless_gone", "end_task"]

PAUSE_S = 0.01
"""Between two looks at a task that is being killed."""


def end_task(client: api.Client, pod: str, *, within_s: float) -> bool:
    """Kill a task until containerd lets it be deleted; return whether there was one.

    Raises:
        AgentError: It did not end in time.
    """
    end = time.monotonic() + within_s
    task = pb.TaskRequest(container_id=pod)
    while True:
        _call_ignoring(client, api.KILL_TASK, pb.KillRequest(container_id=pod, signal=9, all=True))
        try:
            client.call(api.DELETE_TASK, task, phase="stop")
        except api.Refused as refused:
            if refused.code == "NOT_FOUND":
                return False
            if time.monotonic() > end:
                raise AgentError(
                    f"pod {pod} was killed and did not end in {within_s:g} s: {refused}",
                    phase="stop",
                ) from refused
            # Frozen processes die when they are let go.
            _call_ignoring(client, api.RESUME_TASK, task)
            time.sleep(PAUSE_S)
        else:
            return True


def _call_ignoring(client: api.Client, method: api.Call[api.Q, api.A], request: api.Q) -> None:
    """Call what may fail because there is nothing to do; a containerd that is away still tells.

    What was not done shows in what is asked next.
    """
    try:
        client.call(method, request, phase="stop")
    except api.Refused as refused:
        if refused.code == "UNAVAILABLE":
            raise


def call_unless_gone(client: api.Client, method: api.Call[api.Q, api.A], request: api.Q) -> None:
    """Call what removes something; that it is not there is fine.

    Raises:
        Refused: It is there and was not removed.
    """
    try:
        client.call(method, request, phase="stop")
    except api.Refused as refused:
        # The other is of a snapshotter that containerd does not have, so nothing is in it.
        if refused.code not in {"NOT_FOUND", "INVALID_ARGUMENT"}:
            raise

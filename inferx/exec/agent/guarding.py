"""Holds this node's pods to their GPU memory: warned of, throttled, or to be killed.

And finds those whose GPU is lost, as the driver says, or whose MIG device is not there any more: no
call of theirs will return, though their processes run.

What is too much, and when it is too long, is decided by `gpus/memory_guard`; here NVML and the pods
are asked, and what was decided is done, but for killing: that is for whoever ends pods.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from inferx.core.types import PodId
from inferx.exec.agent.gpus.memory_guard import GuardPolicy, Holding, decide, exceeding
from inferx.exec.agent.pods import Pod, Pods
from inferx.exec.clock import Clock

__all__ = ["PATIENCE_NS", "SLACK_BYTES", "Guarding"]

SLACK_BYTES = 1 << 30
"""A CUDA context, which NVML counts and no slice does."""
PATIENCE_NS = 10_000_000_000

_log = logging.getLogger(__name__)


class Guarding:
    """The guard over one agent's pods.

    Args:
        pods: Whose memory is watched.
        clock: Tells for how long one has exceeded.
        is_idle: Whether nothing is done to a pod now: only then is anything done about it.

    Attributes:
        throttled: Pods that answer nobody because they exceeded their share, and since when.
        throttles: How many have been throttled since the start.
    """

    def __init__(self, pods: Pods, clock: Clock, is_idle: Callable[[Pod], bool]) -> None:
        self._pods = pods
        self._clock = clock
        self._is_idle = is_idle
        self._excess: dict[tuple[str, str], int] = {}
        self.throttled: dict[str, int] = {}
        self.throttles = 0

    def look(self, pods: Sequence[Pod]) -> list[tuple[PodId, str]]:
        """Return which pods are to be killed, and why: `gpu lost` or `gpu memory`.

        Raises:
            AgentError: NVML or a pod cannot be asked; nothing was done.
        """
        lost = self._lost(pods)
        rest = [one for one in pods if one.record.pod not in lost]
        return [
            *((pod, "gpu lost") for pod in lost),
            *((pod, "gpu memory") for pod in self._exceeding(rest)),
        ]

    def _lost(self, pods: Sequence[Pod]) -> list[PodId]:
        """Return the pods that have a slice of what is not there; it was when they were begun."""
        if not any(one.record.slices for one in pods):
            return []
        here = {gpu.uuid for gpu in self._pods.room.gpus()}
        return [
            PodId(one.record.pod)
            for one in pods
            if any(part.gpu not in here for part in one.record.slices) and self._is_idle(one)
        ]

    def _exceeding(self, pods: Sequence[Pod]) -> list[PodId]:
        """Warn of pods that hold more than their share, throttle them, or return who is killed."""
        node = self._pods.node
        # Those without a slice as well: they may hold nothing. What is suspended holds nothing.
        guarded = {one.spec.pod: one for one in pods if one.record.state == "ready"}
        processes = node.inventory.processes() if guarded else ()
        if not guarded or not (processes or self.throttled):
            self.throttled.clear()
            self._excess.clear()
            return []
        holdings = {
            name: Holding(one.record.slices, tuple(node.sandbox.pids(name)))
            for name, one in guarded.items()
        }
        excesses = exceeding(holdings, processes, slack_bytes=SLACK_BYTES)
        policy = GuardPolicy(node.config.over_memory, SLACK_BYTES, PATIENCE_NS)
        verdicts, since = decide(excesses, self._excess, self._clock.now_ns(), policy)
        self._excess = dict(since)
        self._thaw(guarded, {over.pod for over in excesses})
        killed: list[PodId] = []
        for verdict in verdicts:
            over = verdict.excess
            _log.warning(
                "%s holds %d bytes of %s, %d more than its share: %s",
                over.pod, over.held_bytes, over.gpu, over.excess_bytes, verdict.action,
            )  # fmt: skip
            if not self._is_idle(guarded[over.pod]):
                continue
            if verdict.action == "throttle":
                node.sandbox.freeze(over.pod)
                if over.pod not in self.throttled:
                    self.throttled[over.pod] = self._clock.now_ns()
                    self.throttles += 1
            elif verdict.action == "kill":
                killed.append(PodId(guarded[over.pod].record.pod))
        return killed

    def _thaw(self, guarded: Mapping[str, Pod], over: Collection[str]) -> None:
        """Let throttled pods go on that are within their share again; forget those that left."""
        for name in [one for one in self.throttled if one not in over]:
            one = guarded.get(name)
            if one is not None and self._is_idle(one):
                self._pods.node.sandbox.thaw(name)
                _log.warning("%s is within its share again: it goes on", name)
            del self.throttled[name]

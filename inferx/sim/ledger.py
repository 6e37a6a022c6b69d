"""The truth about pods over time: what each held and did, for the record of a run.

Snapshots on disk have a book of their own within it, `inferx.sim.disks`.

Kept apart from the kernel's beliefs: capacity counts from the scheduler's decision until it hears
of the release, states count from the moment the node acts.
"""

from collections.abc import Sequence

import numpy as np

from inferx.core.types import F64, FunctionSpec
from inferx.sim.disks import Disks
from inferx.sim.spans import SpanLog

__all__ = ["Ledger"]

_WORKING, _IDLE = "working", "idle"


class _Held:
    """A pod's open span."""

    __slots__ = ("function", "gpus", "host_bytes", "idle_ns", "node", "since_ns", "state")

    def __init__(self, function: int, node: int) -> None:
        self.function = function
        self.node = node
        self.gpus: tuple[int, ...] = ()
        self.host_bytes = 0
        self.state = ""
        self.since_ns = 0
        self.idle_ns = -1
        """Since when a working pod has had nothing to do; -1 while it works."""


class Ledger:
    """Writes spans and integrates charges.

    Args:
        functions: The run's functions.
        gpus: How many GPUs the cluster has.
        merge_ns: A pause in a pod's work shorter than this is part of the work, in the spans
            alone: busy time is exact elsewhere.
    """

    def __init__(self, functions: Sequence[FunctionSpec], gpus: int, merge_ns: int) -> None:
        self._functions = functions
        self._merge_ns = merge_ns
        self._pods: dict[int, _Held] = {}
        self._charged: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        self.spans = SpanLog()
        self.milli_ns: F64 = np.zeros(gpus)
        self.byte_ns: F64 = np.zeros(gpus)
        self.disks = Disks(functions, self.spans)

    # -- charges ---
    def charge(self, now_ns: int, pod: int, function: int, gpus: tuple[int, ...]) -> None:
        """The scheduler has decided that a pod gets GPUs; a repeated decision counts once."""
        if gpus and pod not in self._charged:
            self._charged[pod] = (now_ns, function, gpus)

    def release(self, now_ns: int, pod: int) -> None:
        """The scheduler has heard that a pod's GPUs are free."""
        held = self._charged.pop(pod, None)
        if held is None:
            return
        since, function, gpus = held
        spec = self._functions[function]
        for gpu in gpus:
            self.milli_ns[gpu] += float(spec.milli_gpu) * (now_ns - since)
            self.byte_ns[gpu] += float(spec.hbm_bytes) * (now_ns - since)

    # -- states ---
    def enter(
        self,
        now_ns: int,
        pod: int,
        state: str,
        *,
        function: int,
        node: int,
        gpus: tuple[int, ...],
        host_bytes: int,
    ) -> None:
        """A pod is in another state from now on."""
        held = self._pods.get(pod)
        if held is None:
            self._pods[pod] = held = _Held(function, node)
        else:
            self._close(now_ns, pod, held)
        held.gpus = gpus
        held.host_bytes = host_bytes
        held.state = state
        held.since_ns = now_ns
        held.idle_ns = -1

    def works(self, now_ns: int, pod: int) -> None:
        """A ready pod has got something to do."""
        held = self._pods[pod]
        if held.state == _WORKING:
            if now_ns - held.idle_ns < self._merge_ns:
                held.idle_ns = -1
                return
            self._close(now_ns, pod, held)
        elif held.state == _IDLE:
            self._close(now_ns, pod, held)
        else:
            return  # It drains or is snapshotted; that state tells more.
        held.state = _WORKING
        held.since_ns = now_ns
        held.idle_ns = -1

    def rests(self, now_ns: int, pod: int) -> None:
        """A ready pod has nothing to do any more."""
        held = self._pods.get(pod)
        if held is not None and held.state == _WORKING:
            held.idle_ns = now_ns

    def leave(self, now_ns: int, pod: int) -> None:
        """A pod is gone."""
        held = self._pods.pop(pod, None)
        if held is not None:
            self._close(now_ns, pod, held)

    def _close(self, now_ns: int, pod: int, held: _Held) -> None:
        if held.state == _WORKING and held.idle_ns >= 0:
            self._write(pod, held, _WORKING, held.since_ns, held.idle_ns)
            self._write(pod, held, _IDLE, held.idle_ns, now_ns)
        else:
            self._write(pod, held, held.state, held.since_ns, now_ns)

    def _write(self, pod: int, held: _Held, state: str, from_ns: int, to_ns: int) -> None:
        if to_ns <= from_ns:
            return
        spec = self._functions[held.function]
        for slot, gpu in enumerate(held.gpus or (-1,)):
            on_gpu = gpu >= 0
            self.spans.add(
                from_ns,
                to_ns,
                held.node,
                gpu,
                pod,
                held.function,
                state,
                spec.milli_gpu if on_gpu else 0,
                spec.hbm_bytes if on_gpu else 0,
                held.host_bytes if slot == 0 else 0,
            )

    def finish(self, now_ns: int) -> None:
        """Close everything at the end of the run."""
        for pod in list(self._pods):
            self.leave(now_ns, pod)
        for pod in list(self._charged):
            self.release(now_ns, pod)
        self.disks.finish(now_ns)

"""Host memory that is about to be taken: for a pod that is started or restored, for GPU state.

The driver moves GPU state into the process's own memory: it is charged to the pod's cgroup, and
where that or the host is too small, the kernel would kill the pod in the middle.

Laws:
1. Who is about to take host memory reserves it before, one at a time: what is promised to several
   at once is never more than there is.
2. A reservation shrinks as the pod's cgroup is charged, for the kernel's count has that part then;
   it ends when all is there, or with a failure.
3. What a tier in memory has reserved for a snapshot and not yet written is as good as taken, and
   that tier leaves what is promised here: a pod's GPU state and the file that it is dumped to are
   both in host memory then.
"""

import contextlib
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from inferx.exec.agent.host_memory import available_bytes
from inferx.exec.agent.ports import AgentError, Launch, PodSpec, Sandbox
from inferx.exec.agent.store import FolderTier, Tier

__all__ = ["HostRoom", "Promise"]

MARGIN_BYTES = 256 << 20
"""Of the host's memory, left to everybody else."""


class Promise:
    """Host memory that is one pod's to take, until released."""

    def __init__(self, room: "HostRoom", pod: str, size_bytes: int, charged_bytes: int) -> None:
        self.pod = pod
        self.size_bytes = size_bytes
        self.charged_bytes = charged_bytes
        """What the pod was charged when it was given."""
        self._room = room

    def release(self) -> None:
        """Let go; twice is fine."""
        self._room.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class HostRoom:
    """Promises of this node's host memory.

    Args:
        sandbox: Tells what pods have taken.
        tiers: Of the snapshots; those in memory share it.
    """

    def __init__(self, sandbox: Sandbox, tiers: Sequence[Tier] = ()) -> None:
        self._sandbox = sandbox
        self._tiers = [one for one in tiers if isinstance(one, FolderTier) and one.in_memory]
        for tier in self._tiers:
            tier.share_host_memory(self.promised_bytes)
        self._guard = threading.Lock()
        self._promises: list[Promise] = []

    def for_gpu_state(self, spec: PodSpec, size_bytes: int) -> Promise:
        """Reserve room for a running pod's GPU state.

        Raises:
            AgentError: The host, or what the pod's limit leaves, is too small.
        """
        with self._guard:
            charged = self._sandbox.memory_bytes(spec.pod)
            limit = spec.launch.memory_bytes
            left = limit - charged if limit else None
            what = f"{spec.pod}: {size_bytes} bytes of GPU state"
            return self._reserve(spec.pod, size_bytes, charged, what, "memory limit leaves", left)

    def for_start(self, pod: str, launch: Launch, size_bytes: int) -> Promise:
        """Reserve room for a pod that is to be started, as its function says; at most its limit.

        Raises:
            AgentError: The host is too small.
        """
        with self._guard:
            size_bytes = min(size_bytes, launch.memory_bytes or size_bytes)
            what = f"{pod}: {size_bytes} bytes of host memory to start"
            return self._reserve(pod, size_bytes, 0, what, "function's limit is", None)

    def for_restore(self, pod: str, launch: Launch, size_bytes: int) -> Promise:
        """Reserve room for all of a pod that is to be restored, GPU state included.

        Raises:
            AgentError: The host, or the function's limit, is too small.
        """
        with self._guard:
            left = launch.memory_bytes or None
            what = f"{pod}: {size_bytes} bytes to restore"
            return self._reserve(pod, size_bytes, 0, what, "function's limit is", left)

    def owed(self, pod: str, size_bytes: int) -> Promise:
        """Reserve what an earlier agent has promised a restored pod, there or not."""
        with self._guard:
            promise = Promise(self, pod, size_bytes, 0)
            self._promises.append(promise)
            return promise

    def promised_bytes(self) -> int:
        """Return what is promised and not yet taken."""
        with self._guard:
            return sum(self._untaken(one) for one in self._promises)

    def release(self, promise: Promise) -> None:
        """Give back what is left of a promise."""
        with self._guard:
            self._promises = [one for one in self._promises if one is not promise]

    def _reserve(
        self, pod: str, size_bytes: int, charged: int, what: str, limit: str, left: int | None
    ) -> Promise:
        promised = sum(self._untaken(one) for one in self._promises) + self._unwritten_bytes()
        free = available_bytes() - MARGIN_BYTES - promised
        if free < size_bytes:
            text = f"{what}; the host has {max(0, free)} to spare, {promised} promised to others"
            raise AgentError(text, phase="host-memory")
        if left is not None and left < size_bytes:
            raise AgentError(f"{what}; its {limit} {left}", phase="host-memory")
        promise = Promise(self, pod, size_bytes, charged)
        self._promises.append(promise)
        return promise

    def _unwritten_bytes(self) -> int:
        """Return what snapshots will take of tiers in memory."""
        found = 0
        for tier in self._tiers:
            # One that cannot be read takes nothing: nobody can write to it either.
            with contextlib.suppress(AgentError):
                found += tier.unwritten_bytes()
        return found

    def _untaken(self, promise: Promise) -> int:
        """Return what a pod has not taken yet of what it was promised."""
        charged = promise.charged_bytes
        # One that is not there yet, or not any more, has taken nothing that is still taken.
        with contextlib.suppress(AgentError):
            charged = self._sandbox.memory_bytes(promise.pod)
        return max(0, promise.size_bytes - max(0, charged - promise.charged_bytes))

"""What lies on the nodes' disks over time: a step series a node, of bytes and of snapshots.

The truth, as the nodes make it: a snapshot counts from when it is whole until it is deleted, so
the bytes are at most what the scheduler charges, which counts them from its decision.

Laws:
1. One span a node and change; none while nothing lies there. Their number is that of the writes
   and deletions, whatever the number of functions.
2. A write of what is there, and a deletion of what is not, change nothing.
"""

from collections.abc import Sequence

from inferx.core.types import FunctionSpec
from inferx.sim.spans import SpanLog

__all__ = ["Disks"]


class _Disk:
    """One node's disk: which functions' snapshots it holds, and since when."""

    __slots__ = ("holds", "since_ns", "size_bytes", "snapshots")

    def __init__(self, functions: int) -> None:
        # A byte a function: on a large cluster most disks hold many.
        self.holds = bytearray(functions)
        self.since_ns = 0
        self.size_bytes = 0
        self.snapshots = 0

    def copy(self, now_ns: int) -> "_Disk":
        """Return another disk with the same on it, from now on."""
        other = _Disk(0)
        other.holds = self.holds[:]
        other.since_ns, other.size_bytes = now_ns, self.size_bytes
        other.snapshots = self.snapshots
        return other


class Disks:
    """Writes the spans of state `snapshot`.

    Args:
        functions: The run's functions.
        spans: Where spans go.
    """

    def __init__(self, functions: Sequence[FunctionSpec], spans: SpanLog) -> None:
        self._functions = functions
        self._spans = spans
        self._disks: dict[int, _Disk] = {}
        self._filled: dict[tuple[int, tuple[int, ...]], _Disk] = {}

    def bytes_on(self, node: int) -> int:
        """Return the bytes of the snapshots that lie on a node's disk."""
        disk = self._disks.get(node)
        return 0 if disk is None else disk.size_bytes

    def stock(self, now_ns: int, node: int, functions: Sequence[int], room_bytes: int) -> None:
        """Fill an empty disk with the functions' snapshots, in order, those that still fit.

        Cost: O(functions) for the first of the nodes that are alike.
        """
        key = (room_bytes, tuple(functions))
        filled = self._filled.get(key)
        if filled is None:
            filled = _Disk(len(self._functions))
            for function in functions:
                size_bytes = self._functions[function].snapshot_bytes
                if filled.size_bytes + size_bytes <= room_bytes:
                    filled.holds[function] = 1
                    filled.size_bytes += size_bytes
                    filled.snapshots += 1
            self._filled[key] = filled
        assert node not in self._disks, f"node {node}: its disk is not empty"
        self._disks[node] = filled.copy(now_ns)

    def wrote(self, now_ns: int, node: int, function: int) -> None:
        """A function's snapshot is whole on a node's disk."""
        disk = self._disks.get(node)
        if disk is None:
            self._disks[node] = disk = _Disk(len(self._functions))
        if not disk.holds[function]:
            self._close(now_ns, node, disk)
            disk.holds[function] = 1
            disk.size_bytes += self._functions[function].snapshot_bytes
            disk.snapshots += 1

    def deleted(self, now_ns: int, node: int, function: int) -> None:
        """A function's snapshot is off a node's disk."""
        disk = self._disks.get(node)
        if disk is not None and disk.holds[function]:
            self._close(now_ns, node, disk)
            disk.holds[function] = 0
            disk.size_bytes -= self._functions[function].snapshot_bytes
            disk.snapshots -= 1

    def lost(self, now_ns: int, node: int) -> None:
        """A node is lost with its disk, or the run is over."""
        disk = self._disks.pop(node, None)
        if disk is not None:
            self._close(now_ns, node, disk)

    def finish(self, now_ns: int) -> None:
        """Close everything at the end of the run."""
        for node in sorted(self._disks):
            self.lost(now_ns, node)

    def _close(self, now_ns: int, node: int, disk: _Disk) -> None:
        """End the step that lasted until now; steps of no length, or of nothing, are not kept."""
        since_ns, disk.since_ns = disk.since_ns, now_ns
        if disk.snapshots and now_ns > since_ns:
            size, count = disk.size_bytes, disk.snapshots
            self._spans.add(since_ns, now_ns, node, -1, -1, -1, "snapshot", 0, 0, 0, size, count)

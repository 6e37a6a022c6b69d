"""Snapshots on the nodes' disks and in the shared store: what is there, and what is on its way.

Law: the bytes of a snapshot that is on its way to a disk, or being deleted from it, are charged;
it is a source of starts only while it is wholly there.
"""

from collections.abc import Sequence

import numpy as np

from inferx.core.cluster import Cluster
from inferx.core.commands import Copy, Drop, Restore
from inferx.core.machine.outbox import Outbox
from inferx.core.types import FunctionId, NodeId, Tier

__all__ = ["Disks"]


class Disks:
    """Moves snapshots, and keeps the charges of disks right."""

    def __init__(self, cluster: Cluster, outbox: Outbox, *, epoch: int) -> None:
        self._c = cluster
        self._outbox = outbox
        self._epoch = epoch
        self.arriving: dict[tuple[NodeId, FunctionId], None] = {}
        """Snapshots whose bytes are charged to a disk where they are not yet, or not any more."""
        self._uploading: dict[tuple[int, FunctionId], None] = {}

    def nearest(self, node: NodeId, function: FunctionId) -> Tier:
        """Return where a restore on a node would read: NVME, REMOTE, or ABSENT without any."""
        c = self._c
        if c.nvme[node, function]:
            return Tier.NVME
        return Tier.REMOTE if self.is_remote(node, function) else Tier.ABSENT

    def is_remote(self, node: NodeId, function: FunctionId) -> bool:
        """Tell whether the shared store has a snapshot that fits the node's platform."""
        return bool(self._c.remote[self._c.node_platform[node], function])

    # -- charges ---
    def fits(self, node: NodeId, function: FunctionId) -> bool:
        """Tell whether a snapshot can be put on a disk that neither has nor expects it."""
        c = self._c
        return (
            (node, function) not in self.arriving
            and not c.nvme[node, function]
            and bool(c.node_nvme_free[node] >= c.snapshot_bytes[function])
        )

    def expect(self, node: NodeId, function: FunctionId) -> None:
        """Charge a snapshot that is about to be written."""
        self._c.charge_nvme(node, function)
        self.arriving[node, function] = None

    def arrived(self, node: NodeId, function: FunctionId, *, ok: bool) -> None:
        """A snapshot that was expected is there, or will not be."""
        del self.arriving[node, function]
        if ok:
            self._c.nvme[node, function] = True
        else:
            self._c.release_nvme(node, function)

    # -- moves ---
    def copy_in(self, function: FunctionId, node: NodeId) -> bool:
        """Bring a snapshot from the shared store to a node's disk; False if it cannot be."""
        if not self.is_remote(node, function) or not self.fits(node, function):
            return False
        self.expect(node, function)
        number = self._outbox.number()
        self._outbox.send(Copy(node, self._epoch, number, function, Tier.REMOTE, Tier.NVME))
        return True

    def upload(self, node: NodeId, function: FunctionId) -> None:
        """Copy a snapshot to the shared store, unless it is there or on its way."""
        key = (int(self._c.node_platform[node]), function)
        if self._c.remote[key] or key in self._uploading:
            return
        self._uploading[key] = None
        number = self._outbox.number()
        self._outbox.send(Copy(node, self._epoch, number, function, Tier.NVME, Tier.REMOTE))

    def drop(self, function: FunctionId, node: NodeId) -> bool:
        """Delete a snapshot from a node's disk; False if it is not there, or is being read."""
        if not self._c.nvme[node, function] or self._reads(node, function):
            return False
        # It must not be chosen as a source any more; its bytes are free when it is gone.
        self._c.nvme[node, function] = False
        self.arriving[node, function] = None
        self._outbox.send(Drop(node, self._epoch, self._outbox.number(), function, Tier.NVME))
        return True

    def _reads(self, node: NodeId, function: FunctionId) -> bool:
        return any(
            isinstance(command, Restore | Copy)
            and command.source is Tier.NVME
            and (command.node, command.function) == (node, function)
            for command in self._outbox.unanswered()
        )

    # -- facts ---
    def copied(self, command: Copy, *, ok: bool) -> None:
        """A copy of a snapshot ended."""
        if command.target is not Tier.REMOTE:
            self.arrived(command.node, command.function, ok=ok)
            return
        self._end_upload(command)
        if ok:
            self._c.remote[self._c.node_platform[command.node], command.function] = True

    def _end_upload(self, command: Copy) -> None:
        platform = int(self._c.node_platform[command.node])
        self._uploading.pop((platform, command.function), None)

    def dropped(self, command: Drop, *, ok: bool) -> None:
        """A snapshot is off a node's disk; without `ok` it is there still, and charged."""
        self.arrived(command.node, command.function, ok=not ok)

    def found(self, node: NodeId, snapshots: Sequence[FunctionId]) -> None:
        """Take a node's word for what is on its disk; what is on its way there stays charged."""
        c = self._c
        there = np.zeros(len(c.functions), np.bool_)
        there[list(snapshots)] = True
        settled = np.ones(len(c.functions), np.bool_)
        settled[[function for at, function in self.arriving if at == node]] = False
        c.lose_snapshots(node, np.flatnonzero(c.nvme[node] & ~there & settled))
        c.hold_snapshots(node, np.flatnonzero(there & ~c.nvme[node] & settled))

    def lose(self, node: NodeId, void: Sequence[object]) -> None:
        """Forget a lost node's disk, and the copies of `void` that were under way there."""
        for command in void:
            if isinstance(command, Copy) and command.target is Tier.REMOTE:
                self._end_upload(command)
        for key in [key for key in self.arriving if key[0] == node]:
            self.arrived(*key, ok=False)
        self._c.lose_snapshots(node, np.flatnonzero(self._c.nvme[node]))

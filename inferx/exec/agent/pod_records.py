"""What the agent knows of its pods, on disk: how its next start finds again what this one left.

Laws:
1. A record is written before an action begins (with what it is about to do) and after it has ended,
   each time aside and then renamed: there is always a whole one.
2. A record is removed last, when nothing of the pod is left. So whatever is left has a record.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.ports import AgentError, SliceShape
from inferx.exec.agent.store.durable import remove_tree, told
from inferx.exec.agent.store.manifest import GpuModel
from inferx.exec.files import write_whole

__all__ = ["PodRecord", "PodRecords"]

_FILE = "record.json"


class PodRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One pod.

    Attributes:
        pod: The scheduler's id; the pod's name on this node is made of it.
        function: The scheduler's id of the function.
        named: `tenant/namespace/name@version` of the function.
        state: `ready` or `standby`; or what was being done to it: `creating`, `restoring`,
            `resuming`, `suspending`, `snapshotting`, `stopping`.
        before: The state in which it was before that was begun; empty for a pod that is made.
        slices: What it holds of GPUs; empty while it is suspended.
        built_on: GPUs on which its GPU state was made: what a restore maps from.
        built_among: All GPUs of the node where that was; empty for this node's.
        gpus: The scheduler's ids of its GPUs.
        device_bytes: GPU state when it was last checkpointed.
        address: Where it serves: `host:port`.
        snapshot: What it was restored from; empty after a cold start.
    """

    pod: int
    function: int
    named: str
    state: str
    before: str = ""
    slices: tuple[SliceShape, ...] = ()
    built_on: tuple[str, ...] = ()
    built_among: tuple[GpuModel, ...] = ()
    gpus: tuple[int, ...] = ()
    device_bytes: int = 0
    address: str = ""
    network: str = ""
    snapshot: str = ""


class PodRecords:
    """The pods' folders under one root, each with its record."""

    def __init__(self, root: Path) -> None:
        """Make the root, for this user alone."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root

    @staticmethod
    def name(pod: int) -> str:
        """Return a pod's name on this node."""
        return f"pod-{pod}"

    def place(self, pod: int) -> Path:
        """Return where a pod's folder is, if it is there."""
        return self._root / self.name(pod)

    def folder(self, pod: int) -> Path:
        """Return a pod's folder, made if need be."""
        folder = self.place(pod)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def put(self, record: PodRecord) -> None:
        """Make a record durable.

        Raises:
            AgentError: It could not be; the one before it is still there.
        """
        with told(f"cannot keep the record of pod {record.pod}", phase="record"):
            write_whole(self.folder(record.pod) / _FILE, msgspec.json.encode(record))

    def remove(self, pod: int) -> None:
        """Forget a pod: its folder goes, the record before the rest, so that nothing is half there.

        Not there is fine.
        """
        folder = self.place(pod)
        if not folder.exists():
            return
        with told(f"cannot remove the record of pod {pod}", phase="record"):
            (folder / _FILE).unlink(missing_ok=True)
            remove_tree(folder)

    def read(self) -> tuple[Sequence[PodRecord], Sequence[int]]:
        """Return all records, and the pods whose folder has none: they were not begun, or are gone.

        Raises:
            AgentError: A record cannot be read as one.
        """
        found: list[PodRecord] = []
        empty: list[int] = []
        for folder in sorted(self._root.iterdir()):
            kind, _, number = folder.name.partition("-")
            if kind != "pod" or not number.isdecimal():
                continue
            file = folder / _FILE
            if not file.exists():
                empty.append(int(number))
                continue
            try:
                found.append(msgspec.json.decode(file.read_bytes(), type=PodRecord))
            except UNDECODABLE as error:
                raise AgentError(f"{file}: {error}; expected a pod's record") from error
        return found, empty

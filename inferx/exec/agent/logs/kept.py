"""The output of pods that have ended: moved aside before their folder goes, and kept within bounds.

Laws:
1. What is kept is at most so many bytes and so many pods; who ended first goes first.
2. Keeping is never in the way of an end: a pod whose output cannot be kept ends without.
"""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.logs.stream import STREAMS, held_bytes, trim
from inferx.exec.agent.store.durable import make_folder, remove_tree
from inferx.exec.files import write_whole

__all__ = ["KEPT_PODS", "KeptLog", "KeptLogs"]

KEPT_PODS: Final = 1_000
_FILE: Final = "log.json"

_log = logging.getLogger(__name__)


class _Of(msgspec.Struct, frozen=True):
    """Whose output it is; the file's time says when the pod ended."""

    pod: int
    function: str


class KeptLog(NamedTuple):
    """The output of one pod that has ended; the function as `tenant/namespace/name@version`."""

    pod: int
    function: str
    folder: Path
    held_bytes: int
    ended_ns: int


class KeptLogs:
    """Those of one node.

    Args:
        root: Folder of theirs alone; made when the first is kept.
        stream_bytes: Of one stream of one pod.
        all_bytes: Of all together; 0 keeps none.
    """

    def __init__(self, root: Path, *, stream_bytes: int, all_bytes: int) -> None:
        self._root = root
        self._stream_bytes = stream_bytes
        self._all_bytes = all_bytes
        self._guard = threading.Lock()

    def trim(self, folder: Path) -> None:
        """Hold a pod's output, in its folder, to its bound.

        Raises:
            OSError: It could not be.
        """
        for stream in STREAMS:
            trim(folder / f"{stream}.log", self._stream_bytes)

    def keep(self, pod: int, function: str, folder: Path) -> None:
        """Take a pod's output out of its folder; there may be none, or it was taken before."""
        try:
            with self._guard:
                self._keep(pod, function, folder)
                self._make_room()
        except OSError as error:
            _log.warning("the output of pod %s is not kept: %s", pod, error)

    def _keep(self, pod: int, function: str, folder: Path) -> None:
        there = [f"{stream}.log" for stream in STREAMS if (folder / f"{stream}.log").exists()]
        if not there or not self._all_bytes:
            return
        self.trim(folder)
        mine = self._root / f"pod-{pod}"
        make_folder(mine)
        write_whole(mine / _FILE, msgspec.json.encode(_Of(pod, function)))
        for name in there:
            (folder / name).rename(mine / name)

    def _make_room(self) -> None:
        kept = self._read()
        held = sum(one.held_bytes for one in kept)
        over = len(kept) - KEPT_PODS
        for number, one in enumerate(kept):
            if held <= self._all_bytes and number >= over:
                return
            remove_tree(one.folder)
            held -= one.held_bytes

    def all(self) -> Sequence[KeptLog]:
        """Return what is kept, who ended first comes first.

        Raises:
            OSError: It cannot be read.
        """
        with self._guard:
            return self._read()

    def _read(self) -> list[KeptLog]:
        found: list[KeptLog] = []
        if not self._root.exists():
            return found
        for folder in self._root.iterdir():
            file = folder / _FILE
            try:
                of = msgspec.json.decode(file.read_bytes(), type=_Of)
            except (FileNotFoundError, *UNDECODABLE):
                # Cut short while it was made or removed: nobody knows whose it is.
                remove_tree(folder)
                continue
            held = sum(held_bytes(folder / f"{stream}.log") for stream in STREAMS)
            found.append(KeptLog(of.pod, of.function, folder, held, file.stat().st_mtime_ns))
        return sorted(found, key=lambda one: (one.ended_ns, one.pod))

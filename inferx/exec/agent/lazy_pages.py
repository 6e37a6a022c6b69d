"""Which restores are lazy, and what is held for a pod until all of its memory is there.

A lazily restored pod serves while its pages come. It pays where there are many of them that nobody
wants at once. The driver wants all GPU state at once, so that does not count.

Laws:
1. While a pod's pages come, its snapshot is held, and so is the host memory that they will take.
2. A pod is neither suspended nor written before all its pages are there.
3. A pod whose pages are lost is killed, and told of as such; see `page_server`.
"""

import contextlib
import threading
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Final

from inferx.exec.agent.host_room import HostRoom
from inferx.exec.agent.node import Node
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pod import Pod
from inferx.exec.agent.ports import AgentError, Capability
from inferx.exec.agent.processes.criu_files import said_in
from inferx.exec.agent.processes.page_server import LOG, pages_of
from inferx.exec.agent.store import Manifest, TierName

__all__ = ["LazyPages", "pays_lazily", "telling"]

WAIT_S = 120.0
"""How long a suspend or a snapshot waits for a pod's last pages."""
PAUSE_S = 0.02
NEAR: Final[frozenset[TierName]] = frozenset({"dram", "nvme"})
"""Tiers of this node: what is far could go away while a pod runs on it."""


class LazyPages:
    """Pods of this node whose memory is coming."""

    def __init__(self, node: Node, host_room: HostRoom) -> None:
        self._node = node
        self._host_room = host_room
        self._guard = threading.Lock()
        self._held: dict[str, tuple[Path, contextlib.ExitStack]] = {}

    def pays(self, manifest: Manifest, tier: TierName) -> bool:
        """Whether a snapshot is to be restored lazily from a tier of this node."""
        least, there = self._node.config.lazy_from_bytes, self._node.lazy_pages
        return pays_lazily(manifest, tier, least_bytes=least, there=there)

    def hold(self, name: str, folder: Path, kept: contextlib.ExitStack) -> None:
        """Keep something for a pod until its pages are all there, or the pod has gone."""
        with self._guard:
            self._held[name] = (folder, kept)
        self._let_go(name)

    def adopt(self, one: Pod) -> None:
        """Hold again what an earlier agent did for a pod.

        Raises:
            AgentError: Its pages are lost.
        """
        name, folder, store = one.spec.pod, one.spec.folder, self._node.store
        match pages_of(folder):
            case "whole":
                return
            case "lost":
                raise lost(name, folder)
            case "coming":
                snapshot, size_bytes = one.record.snapshot, 0
                with contextlib.ExitStack() as kept:
                    # Which copy they come from is not on record. One that was deleted meanwhile is
                    # still read: CRIU has its files open.
                    for tier in store.where(snapshot):
                        with contextlib.suppress(AgentError):
                            _, held = store.hold(snapshot, name, now_ns=0, tiers=(tier,))
                            kept.enter_context(held)
                            size_bytes = held.manifest.sizes.host_bytes
                    kept.enter_context(self._host_room.owed(name, size_bytes))
                    self.hold(name, folder, kept.pop_all())

    def forget(self, name: str) -> None:
        """Let go of what was kept for a pod that has ended."""
        with self._guard:
            _, kept = self._held.pop(name, (None, None))
        if kept is not None:
            kept.close()

    def look(self) -> Mapping[str, AgentError]:
        """Let go for pods whose pages are all there; return those whose pages are lost, and why."""
        with self._guard:
            held = {name: folder for name, (folder, _) in self._held.items()}
        return {name: lost(name, folder) for name, folder in held.items() if self._let_go(name)}

    def _let_go(self, name: str) -> bool:
        """Let go of what a pod needs no more; tell whether its pages are lost."""
        with self._guard:
            folder, _ = self._held.get(name, (None, None))
        state = pages_of(folder) if folder is not None else "whole"
        if state == "whole":
            self.forget(name)
        return state == "lost"

    def await_whole(self, one: Pod, phases: Phases) -> None:
        """Wait until all of a pod's pages are there; mostly they are.

        Raises:
            AgentError: They are not in time, or are lost.
        """
        name, folder = one.spec.pod, one.spec.folder
        if pages_of(folder) == "whole":
            return
        with phases.step("pages"):
            # It may have been throttled, and who brings them with it.
            self._node.sandbox.thaw(name)
            until = time.monotonic() + WAIT_S
            while (state := pages_of(folder)) == "coming":
                if time.monotonic() > until:
                    text = f"{name}: its pages are not all there after {WAIT_S:g} s"
                    raise AgentError(text)
                time.sleep(PAUSE_S)
            if state == "lost":
                raise lost(name, folder)
        self._let_go(name)


def pays_lazily(manifest: Manifest, tier: TierName, *, least_bytes: int, there: Capability) -> bool:
    """Whether a snapshot is to be restored lazily.

    Args:
        manifest: The snapshot's.
        tier: Where it is read.
        least_bytes: How many that are no GPU state it must have; 0 is never.
        there: Whether this node can.
    """
    device_bytes = manifest.sizes.device_bytes
    others = manifest.size_bytes - device_bytes
    return there.available and tier in NEAR and 0 < least_bytes <= others >= device_bytes


@contextlib.contextmanager
def telling(name: str, folder: Path) -> Generator[None]:
    """Say of what fails in here that it was for want of pages, where it was."""
    try:
        yield
    except AgentError as error:
        if pages_of(folder) != "lost":
            raise
        why = lost(name, folder)
        raise AgentError(f"{why}; {error}", phase=why.phase) from error


def lost(name: str, folder: Path) -> AgentError:
    """Return what is to be told of a pod whose pages are lost."""
    why = ""
    for log in folder.glob(f"criu/**/{LOG}"):
        why = said_in(log)
    text = f"{name}: its pages are lost, for who brings them has ended: {why or 'it was killed'}"
    return AgentError(text, phase="pages")

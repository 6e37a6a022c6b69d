"""Journals of live machines: written beside a service, and replayed later, byte for byte.

A machine is made by `make` from plain values alone, live and for a replay: what is not among them
cannot have had an influence.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from inferx.core.journal import Divergence, JournalError, JournalReader, JournalWriter, replaying
from inferx.core.machine.agent import Agent
from inferx.core.machine.router import Router
from inferx.core.machine.scheduler import Scheduler
from inferx.core.machine.step import Machine, Step
from inferx.core.protocols import PolicyBundle
from inferx.core.rng import stream
from inferx.core.types import NodeId, RouterId

__all__ = ["Journal", "LoadBundle", "make", "open_journal", "replayed"]

LoadBundle = Callable[[str, Mapping[str, int | float | bool | str]], PolicyBundle]
"""Makes the bundle of a name, with its settings."""

LIMIT_BYTES = 4 << 30
"""A longer journal ends here: from its middle no machine can be made."""


def make(kind: str, config: Mapping[str, Any], load: LoadBundle, **more: Any) -> Machine[Any, Any]:
    """Return a machine in its first state.

    Args:
        kind: `scheduler`, `router` or `agent`.
        config: What it is made of, as it stands in its journal.
        load: Finds its policy.
        more: What only listens to it, and changes nothing.

    Raises:
        JournalError: The configuration is not of such a machine.
        InferXError: Its policy is not found here.
    """
    try:
        if kind == "agent":
            return Agent(NodeId(config["node"]), epoch=config["epoch"])
        bundle = load(config["policy"], config["settings"])
        rng = stream(config["seed"], config["name"])
        if kind == "router":
            return Router(RouterId(config["router"]), (), bundle, rng, strict=False)
        return Scheduler(
            (),
            (),
            bundle,
            rng,
            epoch=config["epoch"],
            routers=0,
            awaited_nodes=[NodeId(node) for node in range(config["awaited_nodes"])],
            awaited_routers=[RouterId(router) for router in range(config["awaited_routers"])],
            strict=False,
            **more,
        )
    except KeyError as error:
        raise JournalError(f"the journal's header says no {error} of its {kind}") from error


class Journal:
    """One machine's journal, and the machine: steps are written before anybody acts on them."""

    def __init__(
        self, file: BinaryIO, kind: str, config: Mapping[str, Any], machine: Machine[Any, Any]
    ) -> None:
        self._file = file
        self._writer = JournalWriter(file, kind, config)
        self._machine = machine
        self.ended = False
        """Whether it has grown to its limit, and says no more."""
        self.size_bytes = 0

    def step(self, now_ns: int, events: Any) -> Step[Any]:
        """Let the machine step, and write it down."""
        step = self._machine.step(now_ns, events)
        if not self.ended:
            self._writer.append(now_ns, events, step)
            self.size_bytes = self._file.tell()
            self.ended = self.size_bytes >= LIMIT_BYTES
        return step

    def close(self) -> None:
        """Let what was written reach the disk."""
        self._file.close()


def open_journal(
    folder: Path, name: str, kind: str, config: Mapping[str, Any], machine: Machine[Any, Any]
) -> Journal:
    """Begin a journal in a folder; one of that name that is there is left alone, and an error.

    Raises:
        JournalError: It cannot be written there.
    """
    path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}.journal"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a killed service has decided is in the file.
        return Journal(path.open("xb", buffering=0), kind, config, machine)
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror or error}; expected a new file") from error


def replayed(path: Path, load: LoadBundle) -> tuple[str, int, bool, Divergence | None]:
    """Replay a journal.

    Returns:
        The kind of machine; how many steps it has; whether its last one was cut off; the first
        step that comes out otherwise, or None.

    Raises:
        JournalError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            reader = JournalReader(file)
            machine = make(reader.machine, reader.config, load)
            steps, divergence = 0, None
            for one in replaying(reader.machine, machine, reader):
                steps += 1
                if isinstance(one, Divergence):
                    divergence = one
            return reader.machine, steps, reader.truncated, divergence
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror or error}") from error

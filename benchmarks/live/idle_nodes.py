"""Nodes whose actions take no time: the real agent machine and line, over pods that are nothing.

They stand at the other end of a scheduler that is measured, so that what it costs is its own.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from inferx.core.commands import (
    AgentCommand,
    AgentEvent,
    Create,
    NodeCommand,
    Perform,
    Report,
    Restore,
    Resume,
)
from inferx.core.events import Fact, LeaderChanged, NodeJoined, Performed
from inferx.core.machine.agent import Agent
from inferx.core.machine.step import Record
from inferx.core.types import Links, NodeId, NodeSpec, PodId
from inferx.core.units import GIB
from inferx.exec.agent.deployments import Deployments
from inferx.exec.agent.membership import Membership
from inferx.exec.agent.service import AgentService
from inferx.exec.clock import Clock
from inferx.exec.driver import Driver
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.store import Store

__all__ = ["IdleNode"]

GPUS = 8


class Names(Deployments):
    """Functions of a node that starts none: their names."""

    def deploy(self, name: str, text: bytes) -> None:
        """Take in a name."""
        del text
        self.names.add(name)


class IdleNode:
    """A node that answers each command at once; an `AgentService` to its line."""

    def __init__(self, name: str, folder: Path, store: Store, clock: Clock) -> None:
        self.node = NodeId(0)
        self.executor = SimpleNamespace(pods=None)
        """Its line reads pods' logs there: these have none."""
        self.started = 0
        """Pods that it was told to start."""
        self._driver: Driver[AgentEvent, AgentCommand] = Driver(
            name, Agent(self.node, epoch=0), clock, self
        )
        self._facts: deque[Fact] = deque()
        self._told = asyncio.Event()
        self._reports = 0
        spec = NodeSpec(
            name=name,
            group="g",
            zone="z",
            instance_type="t",
            gpu_type="H100",
            platform="H100/580",
            gpus=GPUS,
            hbm_bytes=80 * GIB,
            host_bytes=2048 * GIB,
            nvme_bytes=8192 * GIB,
            links=Links(
                pcie_gpu=1, pcie_root=0, dram=1, nvme_read=1, nvme_write=1, ebs=0, network=1
            ),
        )
        self._member = Membership(
            cast("AgentService", self),
            Names(folder / name),
            spec,
            store,
            Objects(store),
            listen="127.0.0.1:0",
            clock=clock,
        )

    # -- what the line asks of an agent's service ---
    def command(self, command: NodeCommand, traceparent: str = "") -> None:
        """Take a command; it is traced by nobody."""
        del traceparent
        self.started += isinstance(command, Create | Restore | Resume)
        self._driver.post(command)

    def follow(self, epoch: int) -> AsyncIterator[Fact]:
        """Tell a leader that nothing is here, then what happens."""
        self._facts.clear()
        self._driver.post(LeaderChanged(epoch))
        return self._each()

    async def _each(self) -> AsyncIterator[Fact]:
        while True:
            while self._facts:
                yield self._facts.popleft()
            self._told.clear()
            await self._told.wait()

    def address_of(self, pod: PodId) -> str:
        """Return where a pod would serve."""
        return f"127.0.0.1:{1 + pod % 65_535}"

    async def run(self, *, ready: Callable[[Any], None] = lambda _: None) -> None:
        """Answer commands until cancelled."""
        ready(None)
        await self._driver.run()

    async def serve(self) -> None:
        """Be a member of the cluster until cancelled."""
        await self._member.run()

    # -- effects of the machine ---
    async def persist(self, records: tuple[Record, ...]) -> None:
        """Forget the epoch with the process."""

    def send(self, command: AgentCommand) -> None:
        """Answer at once."""
        if isinstance(command, Perform):
            self._driver.post(Performed(command.action, (), "", False))
            return
        fact = command.fact if isinstance(command, Report) else None
        if fact is None:
            self._reports += 1
            fact = NodeJoined(self.node, self._reports, (), ())
        self._facts.append(fact)
        self._told.set()

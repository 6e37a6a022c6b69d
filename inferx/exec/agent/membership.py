"""A node as a member of a cluster: its agent serves leaders, and its description is registered."""

import asyncio
import time
from collections.abc import Callable

import grpc
import msgspec

from inferx.core.types import NodeSpec
from inferx.exec.agent.deployments import Deployments
from inferx.exec.agent.line import LeaderLine
from inferx.exec.agent.service import AgentService
from inferx.exec.clock import Clock
from inferx.exec.registration import registered
from inferx.exec.state.objects.bodies import NodeInfo
from inferx.exec.state.objects.envelope import SYSTEM_NAME, DataObject
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.store import Store

__all__ = ["Membership"]


class Membership:
    """Runs a node's agent in a cluster.

    Args:
        service: The agent.
        functions: What it is told of functions.
        spec: The node's description.
        store: The cluster's state.
        objects: The objects in it.
        listen: Where leaders reach it; port 0 is chosen by the system.
        clock: The time.
        credentials: Of its server; None is in the clear.
    """

    def __init__(
        self,
        service: AgentService,
        functions: Deployments,
        spec: NodeSpec,
        store: Store,
        objects: Objects,
        *,
        listen: str,
        clock: Clock,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._service = service
        self._spec = spec
        self._store = store
        self._objects = objects
        self._listen = listen
        self._credentials = credentials
        self._line = LeaderLine(service, functions, clock, gpus=spec.gpus)

    async def run(self, *, ready: Callable[[str], None] = lambda _: None) -> None:
        """Serve until cancelled; `ready` takes the address. Pods outlive it."""
        loop = asyncio.get_running_loop()
        recovered: asyncio.Future[object] = loop.create_future()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._service.run(ready=recovered.set_result), name="agent")
            await recovered
            async with self._line.served(self._listen, self._credentials) as address:
                ready(address)
                await registered(self._store, self._objects, self._info(address))

    def _info(self, address: str) -> DataObject:
        host, _, port = address.rpartition(":")
        info = NodeInfo(
            nodeEpoch=time.time_ns(),
            nodeIp=host,
            naIp=host,
            podMgrPort=int(port),
            state="NodeAgentReady",
            resources=msgspec.to_builtins(self._spec),
        )
        return DataObject(
            type="node_info",
            tenant=SYSTEM_NAME,
            namespace=SYSTEM_NAME,
            name=self._spec.name,
            object=msgspec.to_builtins(info),
        )

"""Runs an agent that joins a cluster."""

import asyncio
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from inferx.cli.services import Ready, server_credentials
from inferx.core.types import NodeId
from inferx.exec.agent.config import AgentConfig
from inferx.exec.agent.control import serve
from inferx.exec.agent.deployments import Deployments
from inferx.exec.agent.description import describe
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.membership import Membership
from inferx.exec.agent.node import assemble
from inferx.exec.agent.pods import Pods
from inferx.exec.agent.sandbox_kind import SANDBOX_WAIT_S
from inferx.exec.agent.service import AgentService
from inferx.exec.agent.standing_in import stand_in
from inferx.exec.agent.traces import ActionTraces
from inferx.exec.clock import WallClock
from inferx.exec.identity.tls import TlsFiles
from inferx.exec.metrics.node import NodeSource
from inferx.exec.metrics.process import ProcessSource
from inferx.exec.metrics.server import MetricsAddress, metrics_served
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.opening import open_store
from inferx.exec.tracing.recorder import Recorder

__all__ = ["Member", "run_member"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """How a node takes part in a cluster."""

    state: str
    name: str
    host_bytes: int
    stand_in_workers: bool
    worker_options: tuple[str, ...]
    journals: Path | None
    listen: str
    metrics: MetricsAddress | None
    tls: TlsFiles | None


async def run_member(
    config: AgentConfig, member: Member, ready: Ready, recorder: Recorder | None = None
) -> None:
    """Run the agent until cancelled; `recorder` takes spans."""
    clock = WallClock()
    node = await asyncio.to_thread(assemble, config, wait_s=SANDBOX_WAIT_S)
    try:
        # Functions are asked for by their engines' names for models, which stand-ins do not know.
        instead = partial(stand_in, options=("--any-model", *member.worker_options))
        functions = Deployments(
            config.state / "functions", instead if member.stand_in_workers else None
        )
        pods = Pods(node, functions)
        service = AgentService(
            Executor(pods),
            node=NodeId(0),
            state=config.state,
            name=member.name,
            journals=member.journals,
            clock=clock,
            traces=None if recorder is None else ActionTraces(recorder),
        )
        store = await open_store(member.state, clock)
        control = await serve(service, config.socket)
        try:
            sources = (ProcessSource("agent"), NodeSource(service))
            async with (
                server_credentials(member.tls) as credentials,
                metrics_served(member.metrics, sources) as at,
            ):
                membership = Membership(
                    service,
                    functions,
                    describe(node, name=member.name, host_bytes=member.host_bytes),
                    store,
                    Objects(store),
                    listen=member.listen,
                    clock=clock,
                    credentials=credentials,
                )
                await membership.run(ready=partial(ready, metrics=at))
        finally:
            await control.cleanup()
            await store.close()
            pods.close()
    finally:
        node.close()

"""The scheduler's process: it stands for election, leads while it can, and stands again.

Its server answers at all times: those who ask one that does not lead are told so, and look for the
leader in the store.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import msgspec

from inferx.core.events import NodeDraining, PodEndAsked
from inferx.core.lifecycle import PodState
from inferx.core.types import PodId
from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock, WallClock
from inferx.exec.functions import KINDS
from inferx.exec.logs import ids
from inferx.exec.metrics.audit import AuditSource
from inferx.exec.metrics.cluster import SchedulerSource
from inferx.exec.metrics.exposition import MetricSource
from inferx.exec.metrics.process import ProcessSource
from inferx.exec.metrics.scheduler import SchedulerCounts
from inferx.exec.scheduler.election import DeposedError, win
from inferx.exec.scheduler.explaining import explained
from inferx.exec.scheduler.leader import Term, TermConfig
from inferx.exec.scheduler.view import view_of
from inferx.exec.state.objects.informer import Informer
from inferx.exec.state.objects.mirror import Source
from inferx.exec.state.objects.selector import Selection
from inferx.exec.state.store import Store
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.rpc import DRAIN, END_POD, EXPLAIN, JOIN, KEEPALIVE, VIEW, handlers

__all__ = ["SchedulerService"]

DRAIN_LIMIT_NS = 366 * 86_400 * NS_PER_S
"""A node that is to be gone for longer is to be removed."""

_log = logging.getLogger(__name__)


class SchedulerService:
    """One scheduler.

    Args:
        config: What its terms are run with.
        store: The cluster's state.
        objects: The objects in it.
        address: Where gateways reach it; port 0 is chosen by the system.
        credentials: Of its server; None is in the clear.
        clock: The time.
    """

    def __init__(
        self,
        config: TermConfig,
        store: Store,
        objects: Source,
        *,
        address: str,
        credentials: grpc.ServerCredentials | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._objects = objects
        self._address = address
        self._credentials = credentials
        self._clock = clock or WallClock()
        self.term: Term | None = None
        """The present one; None while another scheduler leads, or none."""
        self._counts = SchedulerCounts(config.policy)
        self.metrics: tuple[MetricSource, ...] = (
            ProcessSource("scheduler", config.policy),
            SchedulerSource(self._counts, lambda: self.term),
            AuditSource(config.audit),
        )
        """What Prometheus is told."""

    async def run(self, *, ready: Callable[[str], None] = lambda _: None) -> None:
        """Serve until cancelled; `ready` takes the address."""
        kinds = (*KINDS, "node_info", "gateway")
        informer = Informer(self._objects, *(Selection(type=kind) for kind in kinds))
        async with self._served() as address, asyncio.TaskGroup() as tasks:
            tasks.create_task(informer.run(), name="objects")
            if self._config.audit is not None:
                tasks.create_task(self._config.audit.run(), name="audit")
            await informer.synced()
            ready(address)
            while True:
                await self._lead(informer, address)

    async def _lead(self, informer: Informer, address: str) -> None:
        leadership = await win(self._store, address)
        _log.info(
            "epoch %d: leading at %s", leadership.epoch, address, extra=ids(epoch=leadership.epoch)
        )
        self._counts.begin(leadership.epoch)
        self.term = term = Term(self._config, leadership, informer, self._clock, self._counts)
        term.audit.happened("lead", "", outcome=f"at {address}", reason="elected")
        try:
            await term.run()
        except* DeposedError as deposed:
            for error in deposed.exceptions:
                _log.warning("%s", error, extra=ids(epoch=leadership.epoch))
                term.audit.happened("lead no more", "", outcome="", reason=str(error))
        finally:
            self.term = None
            self._counts.end(term.machine.fleet.counters)
            await leadership.resign()

    @asynccontextmanager
    async def _served(self) -> AsyncGenerator[str]:
        server = grpc.aio.server(options=KEEPALIVE)
        served = {
            JOIN: self._join,
            VIEW: self._view,
            EXPLAIN: self._explain,
            DRAIN: self._drain,
            END_POD: self._end_pod,
        }
        server.add_generic_rpc_handlers((handlers("Scheduler", served),))
        host, _, _ = self._address.rpartition(":")
        if self._credentials is None:
            port = server.add_insecure_port(self._address)
        else:
            port = server.add_secure_port(self._address, self._credentials)
        await server.start()
        try:
            yield f"{host}:{port}"
        finally:
            await server.stop(grace=0)

    async def _leading(self, context: Any) -> Term:
        if self.term is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this scheduler does not lead")
        assert self.term is not None
        return self.term

    async def _join(self, requests: Any, context: Any) -> None:
        term = await self._leading(context)
        await term.routers.join(requests, context)

    async def _view(self, _: pb.ViewRequest, context: Any) -> pb.ViewReply:
        term = await self._leading(context)
        return pb.ViewReply(json=msgspec.json.encode(view_of(term)))

    async def _explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainReply:
        term = await self._leading(context)
        told = explained(term, request.function, request.pod, request.since_ns, request.until_ns)
        return pb.ExplainReply(json=msgspec.json.encode(told))

    async def _drain(self, request: pb.DrainRequest, context: Any) -> pb.DrainReply:
        term = await self._leading(context)
        node = term.node(request.node)
        if node is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"node {request.node!r} is not known")
        assert node is not None
        if not 0 <= request.for_ns <= DRAIN_LIMIT_NS:
            text = f"for_ns is {request.for_ns}; expected 0 to {DRAIN_LIMIT_NS}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        term.post(NodeDraining(node, self._clock.now_ns() + request.for_ns))
        term.audit.happened(
            "drain", request.node, outcome=f"for {request.for_ns / NS_PER_S:g} s", reason="asked"
        )
        return pb.DrainReply()

    async def _end_pod(self, request: pb.EndPodRequest, context: Any) -> pb.EndPodReply:
        term = await self._leading(context)
        pod = PodId(request.pod)
        there = term.machine.cluster.pods.get(pod)
        if there is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"pod {pod} is not there")
        assert there is not None
        if there.state is PodState.TERMINATING and not term.machine.fleet.gave_up(pod):
            text = f"pod {pod} is being ended already"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        term.post(PodEndAsked(pod, request.now))
        return pb.EndPodReply()

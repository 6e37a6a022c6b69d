"""The gateway's process: the router machine between HTTP and the scheduler that leads.

What is stopped is stopped in order: first no new connections and requests, then those that are
served end, then the leases go back.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import msgspec

from inferx.core.commands import AskLease, ReportLeases, ReportLoad, ReturnLease, RouterCommand
from inferx.core.events import (
    FunctionDefined,
    FunctionRetired,
    LeaderLost,
    LeaseGranted,
    LeaseRevoked,
    RouterEvent,
)
from inferx.core.machine.router import Router
from inferx.core.machine.step import Record
from inferx.core.types import NO_FUNCTION, FunctionId, PodId
from inferx.exec.clock import Clock, WallClock
from inferx.exec.driver import Driver
from inferx.exec.functions import KINDS, FunctionBook
from inferx.exec.gateway.api.application import Api, ApiParts
from inferx.exec.gateway.catalogue import ModelCatalogue
from inferx.exec.gateway.choices import Choices
from inferx.exec.gateway.dispatch import FunctionName, RouterDispatch, Target
from inferx.exec.gateway.door import Door
from inferx.exec.gateway.limits import HttpLimits
from inferx.exec.gateway.records import RequestRecord
from inferx.exec.gateway.request_log import RequestLog
from inferx.exec.gateway.requests import Requests
from inferx.exec.gateway.scheduler_line import SchedulerLine
from inferx.exec.gateway.server import Gateway
from inferx.exec.gateway.tenants import Tenants
from inferx.exec.identity.audit import Audit
from inferx.exec.identity.authenticator import Authenticator
from inferx.exec.identity.key_cache import KeyCache
from inferx.exec.identity.limiter import Limiter
from inferx.exec.identity.oidc import Issuers, IssuerSettings
from inferx.exec.identity.role_copy import RoleCopy
from inferx.exec.identity.tls import ServerTls
from inferx.exec.journal import Journal, LoadBundle, make, open_journal
from inferx.exec.logs import ids
from inferx.exec.metrics.audit import AuditSource
from inferx.exec.metrics.exposition import MetricSource
from inferx.exec.metrics.gateway import GatewayNow, GatewaySource
from inferx.exec.metrics.process import ProcessSource
from inferx.exec.registration import registered
from inferx.exec.scheduler.election import LEADER
from inferx.exec.state.objects.bodies import Gateway as GatewayBody
from inferx.exec.state.objects.bodies import Scheduler as SchedulerBody
from inferx.exec.state.objects.envelope import SYSTEM_NAME, DataObject
from inferx.exec.state.objects.informer import Informer
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.selector import Selection
from inferx.exec.state.store import Store
from inferx.exec.tracing.recorder import Recorder
from inferx.exec.wire.codec import Codec

__all__ = ["GatewayConfig", "GatewayService"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """How a gateway is run.

    Attributes:
        load: Finds policies.
        name: What it is registered as; another one's for each gateway.
        host: Address that it listens on.
        port: 0 is chosen by the system.
        policy: Name of the bundle: its admission, routing and queueing are the gateway's.
        settings: Of the bundle.
        seed: Of its random stream.
        limits: Of its HTTP.
        journals: Folder that its journal is written to; None writes none.
        credentials: Of the channel to schedulers; None is in the clear.
        https: Clients are served with it; None is in the clear.
        issuers: Whose bearer tokens are taken, beside API keys.
        public: Tenants whose functions everybody may call.
        recorder: Takes spans; None traces nothing.
        log_requests: Whether each request is a line in the log.
    """

    load: LoadBundle
    name: str
    host: str = "127.0.0.1"
    port: int = 4000
    policy: str = "default"
    settings: Mapping[str, int | float | bool | str] = field(
        default_factory=dict[str, int | float | bool | str]
    )
    seed: int = 1
    limits: HttpLimits = field(default_factory=HttpLimits)
    journals: Path | None = None
    credentials: grpc.ChannelCredentials | None = None
    https: ServerTls | None = None
    issuers: tuple[IssuerSettings, ...] = ()
    public: tuple[str, ...] = ()
    recorder: Recorder | None = None
    log_requests: bool = False


class GatewayService:
    """One gateway.

    Args:
        config: How it is run.
        store: The cluster's state.
        objects: The objects in it.
        clock: The time.
        audit: The audit log; None keeps none.
    """

    def __init__(
        self,
        config: GatewayConfig,
        store: Store,
        objects: Objects,
        clock: Clock | None = None,
        *,
        audit: Audit | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._objects = objects
        self._clock = clock = clock or WallClock()
        self.book = FunctionBook()
        self._addresses: dict[PodId, str] = {}
        self._targets: dict[FunctionName, Target] = {}
        """Of the functions that were called since any of them changed."""
        self._leader: str = ""
        self._leads = asyncio.Event()
        made_of = {
            "policy": config.policy,
            "settings": dict(config.settings),
            "seed": config.seed,
            "name": f"router/{config.name}",
            "router": 0,
        }
        choices = Choices()
        machine = make(
            "router", made_of, lambda name, settings: choices.watched(config.load(name, settings))
        )
        assert isinstance(machine, Router)
        self._router = machine
        self._journal: Journal | None = None
        if config.journals is not None:
            name = f"router-{config.name}-{clock.now_ns()}"
            self._journal = open_journal(config.journals, name, "router", made_of, machine)
        self._driver: Driver[RouterEvent, RouterCommand] = Driver(
            f"router/{config.name}", self._journal or machine, clock, self
        )
        self._line = SchedulerLine(
            config.name,
            self._find_leader,
            codec=Codec(self.book.names),
            clock=clock,
            post=self._heard,
            locate=self._locate,
            credentials=config.credentials,
        )
        self.dispatch = RouterDispatch(
            self._driver.post,
            clock,
            function=self._target,
            address=self._addresses.get,
            among=choices.take,
        )
        self.requests = Requests(
            clock,
            recorder=config.recorder,
            log=RequestLog(clock, everything=config.log_requests),
        )
        self._keys = KeyCache(store, clock)
        self._audit = audit
        tokens = Issuers.of(*config.issuers, clock=clock) if config.issuers else None
        # Who is meant by a name, a token alone can tell.
        self._roles = RoleCopy(store) if config.issuers else None
        authenticator = Authenticator(self._keys, tokens, self._roles, public=config.public)
        self._tenants = Tenants()
        door = Door(authenticator, Limiter(), self._tenants.terms, clock, audit)
        self._catalogue = ModelCatalogue(self.book, door.who)
        self.http = Gateway(
            self.dispatch, door, self._catalogue, config.limits, self.requests, fault=_fault
        )
        self.metrics: tuple[MetricSource, ...] = (
            ProcessSource("gateway", config.policy),
            GatewaySource(self.http.counts, self._now),
            AuditSource(audit),
        )
        """What Prometheus is told."""
        kinds = (*KINDS, LEADER.type)
        self._informer = Informer(objects, *(Selection(type=kind) for kind in kinds))
        self._api = Api(
            ApiParts(
                store=store,
                objects=objects,
                authenticator=authenticator,
                clock=clock,
                leader=lambda: self._leader if self._leads.is_set() else "",
                credentials=config.credentials,
                stands={
                    "keys": lambda: self._keys.is_fresh,
                    "objects": lambda: self._informer.is_current,
                    "scheduler": lambda: self._line.stands,
                },
                router=self._numbers,
                name=config.name,
                records=self.requests.records,
                metrics=self.metrics,
                audit=self._audit,
                issuers=tuple(dict.fromkeys(one.issuer for one in config.issuers)),
            )
        )

    async def run(self, *, ready: Callable[[str], None] = lambda _: None) -> None:
        """Serve until cancelled; `ready` takes the address."""
        config = self._config
        https = config.https
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(work, name=name)
                    for name, work in (
                        ("objects", self._informer.run()),
                        ("functions", self._follow_objects()),
                        ("keys", self._keys.run()),
                        *(() if self._roles is None else (("roles", self._roles.run()),)),
                        ("router", self._driver.run()),
                        ("scheduler", self._line.run()),
                        *(() if self._audit is None else (("audit", self._audit.run()),)),
                        *(() if https is None else (("certificates", https.keep_fresh()),)),
                    )
                ]
                await self._informer.synced()
                await self._keys.wait_listed()
                if self._roles is not None:
                    await self._roles.wait_listed()
                api = await self._api.listen()
                tls = None if https is None else https.context
                port = await self.http.listen(config.host, config.port, api=api, tls=tls)
                address = f"{config.host}:{port}"
                ready(address)
                try:
                    await registered(self._store, self._objects, self._info(address))
                finally:
                    self._api.end_watches()
                    await self.http.drain()
                    await self._api.close()
                    for task in background:
                        task.cancel()
        finally:
            if self._journal is not None:
                self._journal.close()

    # -- effects of the machine ---
    async def persist(self, records: tuple[Record, ...]) -> None:
        """Nothing of a router is durable: what it holds, it tells whoever leads."""
        raise AssertionError(f"a router has no records: {records}")

    def send(self, command: RouterCommand) -> None:
        """Give a request its turn, or tell the scheduler."""
        if not self.dispatch.take(command):
            assert isinstance(command, AskLease | ReturnLease | ReportLoad | ReportLeases)
            traceparent = ""
            if isinstance(command, ReturnLease):
                self._forget(command.pod)
            elif isinstance(command, AskLease):
                traceparent = self._trace_of(command.function)
            self._line.send(command, traceparent)

    def _trace_of(self, function: FunctionId) -> str:
        asked = self.book.by_id(function).object
        return self.requests.trace_of(FunctionName(asked.tenant, asked.namespace, asked.name))

    def _numbers(self) -> Mapping[str, object]:
        router = self._router
        counted = ("arrived", "finished", "refused", "failed", "cancelled", "policy_errors")
        return {
            "leader": self._leader,
            "connected": self._line.stands,
            "connections": self.http.connections,
            "waiting": router.waiting(),
            "running": router.running(),
            **{name: getattr(router, name) for name in counted},
            "functions": len(self.book.all()),
            "audit": None if self._audit is None else msgspec.to_builtins(self._audit.counts),
        }

    def _now(self) -> GatewayNow:
        router = self._router
        return GatewayNow(
            functions=[
                ((key.tenant, key.namespace, key.name), *self._inside(called.id))
                for key, called in self.book.all().items()
            ],
            ended={
                name: getattr(router, name)
                for name in ("finished", "refused", "failed", "cancelled")
            },
            connections=self.http.connections,
            connected=self._line.stands,
            policy_errors=router.policy_errors,
            journal_bytes=0 if self._journal is None else self._journal.size_bytes,
        )

    def _inside(self, function: FunctionId) -> tuple[int, int]:
        """Return how many requests of a function wait and run."""
        try:
            return self._router.queued(function), self._router.inflight(function)
        except IndexError:
            return 0, 0  # The router is about to be told of it.

    def _count_functions(self, events: Iterable[FunctionDefined | FunctionRetired]) -> None:
        for event in events:
            one = self.book.by_id(event.function).object
            name = one.tenant, one.namespace, one.name
            if isinstance(event, FunctionDefined):
                self.http.counts.add(name)
            elif event.successor == NO_FUNCTION:
                self.http.counts.drop(name)

    def _forget(self, pod: PodId) -> None:
        self._addresses.pop(pod, None)
        self.dispatch.forget(pod)
        self.requests.records.given_back(pod)

    def _heard(self, event: RouterEvent) -> None:
        if isinstance(event, LeaseGranted):
            self.dispatch.granted(event)
            self.requests.records.granted(event.pod, self._clock.now_ns(), cold=event.cold)
        elif isinstance(event, LeaseRevoked):
            self._forget(event.pod)
        elif isinstance(event, LeaderLost):
            self.requests.records.forget_leases()
        self._driver.post(event)

    # -- functions, and who leads ---
    async def _follow_objects(self) -> None:
        async for changed in self._informer.changes():
            if changed.key.type == LEADER.type:
                self._leader_is(changed.new)
                continue
            if changed.key.type == "tenant":
                self._tenants.take(changed.key.name, changed.new)
            events = self.book.take(changed)
            self._targets.clear()
            if events:
                self._driver.post(*events)
                self._catalogue.functions_changed()
                self._count_functions(events)

    def _leader_is(self, leader: DataObject | None) -> None:
        if leader is None:
            self._leads.clear()
            return
        self._leader = msgspec.convert(leader.object, SchedulerBody).address
        self._leads.set()
        self._line.leader_changed(self._leader)

    async def _find_leader(self) -> str:
        await self._leads.wait()
        return self._leader

    def _target(self, function: FunctionName) -> Target | None:
        target = self._targets.get(function)
        if target is None:
            called = self.book.get(*function)
            if called is not None:
                target = Target(called.id, called.spec.queue_timeout_ns)
                self._targets[function] = target
        return target

    def _locate(self, pod: PodId, address: str) -> None:
        self._addresses[pod] = address

    def _info(self, address: str) -> DataObject:
        body = GatewayBody(address=address, id=secrets.randbits(48))
        return DataObject(
            type="gateway",
            tenant=SYSTEM_NAME,
            namespace=SYSTEM_NAME,
            name=self._config.name,
            object=msgspec.to_builtins(body),
        )


def _fault(error: Exception, record: RequestRecord) -> None:
    _log.error("%s met a defect", record.id, exc_info=error, extra=ids(request=record.id))

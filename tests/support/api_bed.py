"""A gateway over a store of its own, called over HTTP by people with and without keys."""

import asyncio
import io
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
from cluster_objects import namespace, tenant

from inferx.exec.clock import WallClock
from inferx.exec.gateway.service import GatewayConfig, GatewayService
from inferx.exec.identity.audit import Audit
from inferx.exec.identity.audit_table import AuditTable
from inferx.exec.identity.key_desk import KeyRequest, new_record
from inferx.exec.identity.keys import Secret, make_secret, store_key, write_record
from inferx.exec.state.client import RemoteStore
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.objects.actor import ADMIN
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.server import served
from inferx.exec.state.store import ABSENT, Expect, Put, Store
from inferx.load import load_bundle

__all__ = ["Answer", "Bed", "bed", "function", "gateway", "run", "two_gateways"]

DEADLINE_S = 30.0


def function(name: str, place: str = "t1/n", **labels: str) -> dict[str, Any]:
    """Return a function as its author writes it."""
    tenant_name, _, namespace_name = place.partition("/")
    spec = {
        "image": "vllm/vllm-openai:v0.9.0",
        "commands": ["--model", name],
        "resources": {"CPU": 1000, "Mem": 2000, "GPU": {"Type": "Any", "Count": 1, "vRam": 20_000}},
        "endpoint": {"port": 8000, "schema": "Http", "probe": "/health"},
    }
    return {
        "type": "function",
        "tenant": tenant_name,
        "namespace": namespace_name,
        "name": name,
        "labels": labels,
        "object": {"spec": spec},
    }


class Answer(NamedTuple):
    """What came back."""

    status: int
    told: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        """Of the error."""
        return str(self.told["error"]["code"])


class Bed:
    """A gateway, and the means to call it."""

    store: Store
    objects: Objects

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.http = http
        self.admin = ""

    async def key(
        self, level: Any, tenant_name: str, namespace_name: str = "*", **more: Any
    ) -> Secret:
        """Put a key into the store, and wait until the gateway knows it."""
        request = KeyRequest(
            tenant=tenant_name, namespace=namespace_name, level=level, label="", **more
        )
        secret = make_secret()
        record = new_record(request, secret, issuer="test", now_ns=0)
        where = store_key(record)
        await self.store.commit([Expect(where, ABSENT)], [Put(where, write_record(record))])
        if not more.get("expires_ns"):
            await self.knows(secret.token)
        return secret

    async def knows(self, key: str) -> None:
        """Wait until the gateway knows a key."""
        while True:
            if (await self.ask("GET", "/v1/models", key)).status != 401:
                return
            await asyncio.sleep(0.01)

    async def ask(
        self, method: str, path: str, key: str = "", body: Any = None, **options: Any
    ) -> Answer:
        """Ask through the gateway's front."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        raw = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        url = f"{self.url}{path}"
        async with self.http.request(
            method, url, headers=headers, data=raw and io.BytesIO(raw), **options
        ) as answer:
            text = await answer.read()
            told = msgspec.json.decode(text) if text else None
            return Answer(answer.status, told, answer.headers)


@asynccontextmanager
async def bed(audit: Path | None = None, **config: Any) -> AsyncGenerator[Bed]:
    """Run a gateway without a scheduler; two tenants whose names begin alike are there."""
    clock = WallClock()
    store = MemoryStore(clock)
    objects = Objects(store, rng=random.Random(1))
    for name in ("t1", "t10"):
        await objects.create(tenant(name, max_funccount=100, max_replica=4), who=ADMIN)
        await objects.create(namespace(name, "n"), who=ADMIN)
    async with gateway(store, audit, **config) as made:
        made.store = store
        made.objects = objects
        made.admin = (await made.key("full", "*")).token
        yield made


@asynccontextmanager
async def gateway(
    store: Store, audit: Path | None = None, name: str = "bed", **config: Any
) -> AsyncGenerator[Bed]:
    """Run a gateway over a store."""
    clock = WallClock()
    log = None if audit is None else Audit(AuditTable(f"sqlite:///{audit}"), clock)
    settings = GatewayConfig(load=load_bundle, name=name, port=0, **config)
    service = GatewayService(settings, store, Objects(store), clock, audit=log)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as http:
        running = tasks.create_task(service.run(ready=address.set_result))
        try:
            yield Bed(f"http://{await address}", http)
        finally:
            running.cancel()


@asynccontextmanager
async def two_gateways(**config: Any) -> AsyncGenerator[tuple[Bed, Bed]]:
    """Two gateways over one state service, each by a connection of its own."""
    store = MemoryStore(WallClock())
    async with served(store, "127.0.0.1:0") as serving:
        remotes = [RemoteStore([f"127.0.0.1:{serving.port}"]) for _ in range(2)]
        try:
            async with (
                gateway(remotes[0], name="one", **config) as one,
                gateway(remotes[1], name="two", **config) as two,
            ):
                for made in (one, two):
                    made.store = store
                one.admin = two.admin = (await one.key("full", "*")).token
                await two.knows(two.admin)
                yield one, two
        finally:
            for remote in remotes:
                await remote.close()


def run(work: Callable[[Bed], Awaitable[None]], audit: Path | None = None, **config: Any) -> None:
    """Do some work in a bed."""

    async def main() -> None:
        async with asyncio.timeout(DEADLINE_S), bed(audit, **config) as made:
            await work(made)

    asyncio.run(main())

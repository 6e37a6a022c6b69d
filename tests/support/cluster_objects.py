"""Objects for tests: small ones of each type, and the objects of a new memory store."""

import asyncio
import copy
from collections.abc import Coroutine
from typing import Any, TypeVar

from inferx.exec.clock import WallClock
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.objects.actor import ADMIN
from inferx.exec.state.objects.envelope import DataObject
from inferx.exec.state.objects.objects import Objects

__all__ = [
    "SPEC",
    "function",
    "in_loop",
    "namespace",
    "new_objects",
    "node",
    "policy",
    "tenant",
    "with_tenants",
]

T = TypeVar("T")

SPEC: dict[str, Any] = {
    "image": "vllm/vllm-openai:v0.9.0",
    "commands": ["--model", "tiny"],
    "resources": {"CPU": 1000, "Mem": 2000, "GPU": {"Type": "Any", "Count": 1, "vRam": 1000}},
    "endpoint": {"port": 8000, "schema": "Http", "probe": "/health"},
}


def in_loop(test: Coroutine[Any, Any, T]) -> T:
    """Run a test's body; none takes longer than this."""

    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await test

    return asyncio.run(bounded())


def new_objects() -> Objects:
    return Objects(MemoryStore(WallClock()))


def tenant(name: str, *, status: dict[str, bool] | None = None, **limit: Any) -> DataObject:
    body = {"spec": {"limit": limit}, "status": status or {}}
    return DataObject(type="tenant", tenant="system", namespace="system", name=name, object=body)


def namespace(tenant: str, name: str, *, disable: bool = False) -> DataObject:
    body = {"spec": {}, "status": {"disable": disable}}
    return DataObject(type="namespace", tenant=tenant, namespace="system", name=name, object=body)


def function(place: str, *, labels: dict[str, str] | None = None, **spec: Any) -> DataObject:
    """Return a function at `tenant/namespace/name` whose specification differs by `spec`."""
    owner, space, name = place.split("/")
    body = {"spec": copy.deepcopy(SPEC) | spec}
    return DataObject(
        type="function",
        tenant=owner,
        namespace=space,
        name=name,
        labels=labels or {},
        object=body,
    )


def policy(place: str, **body: Any) -> DataObject:
    owner, space, name = place.split("/")
    return DataObject(type="funcpolicy", tenant=owner, namespace=space, name=name, object=body)


def node(name: str, **body: Any) -> DataObject:
    body = {"nodeEpoch": 1, "nodeIp": "127.0.0.1"} | body
    return DataObject(type="node_info", tenant="system", namespace="system", name=name, object=body)


async def with_tenants(*names: str, **limit: Any) -> Objects:
    """Return objects with tenants of these limits, each with a namespace `ns`."""
    objects = new_objects()
    for name in names:
        await objects.create(tenant(name, **limit), who=ADMIN)
        await objects.create(namespace(name, "ns"), who=ADMIN)
    return objects

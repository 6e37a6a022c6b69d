"""The objects over gRPC: the same answers, the same errors, the same changes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest
from cluster_objects import function, namespace, node, tenant, with_tenants
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferx import __version__
from inferx.core.errors import DescriptionError, InferXError
from inferx.exec.clock import WallClock
from inferx.exec.state.client import RemoteStore
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.objects import client as client_module
from inferx.exec.state.objects import informer as informer_module
from inferx.exec.state.objects.actor import ADMIN, SYSTEM, Actor, namespace_admin, tenant_admin
from inferx.exec.state.objects.client import RemoteObjects
from inferx.exec.state.objects.envelope import DataObject, Key
from inferx.exec.state.objects.errors import (
    AdmissionError,
    BusyError,
    ConflictError,
    ExistsError,
    ForbiddenError,
    LimitError,
    NotFoundError,
)
from inferx.exec.state.objects.informer import Informer
from inferx.exec.state.objects.methods import SERVICE
from inferx.exec.state.objects.mirror import Mirror, follow
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.proto import objects_pb2 as pb
from inferx.exec.state.objects.results import ANY_REVISION, Batch, Outcome
from inferx.exec.state.objects.selector import Selection, parse_labels
from inferx.exec.state.objects.status import error_of, told
from inferx.exec.state.server import served
from inferx.exec.state.store import (
    LeaseLostError,
    RefusedError,
    StoreLeaseId,
    TooOldError,
    UnavailableError,
)
from inferx.exec.state.wire import PART_BYTES

NODES = Selection("node_info")


@asynccontextmanager
async def _served(objects: Objects, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    async with served(objects._store, address, objects=objects) as serving:
        yield f"127.0.0.1:{serving.port}"


@asynccontextmanager
async def _connected(*addresses: str) -> AsyncIterator[RemoteObjects]:
    remote = RemoteObjects(addresses, deadline_s=5)
    try:
        yield remote
    finally:
        await remote.close()


@asynccontextmanager
async def _remote(objects: Objects) -> AsyncIterator[RemoteObjects]:
    async with _served(objects) as address, _connected(address) as remote:
        yield remote


async def test_what_is_written_from_afar_is_what_is_there() -> None:
    objects = await with_tenants("t1", "t10")
    async with _remote(objects) as remote:
        assert await remote.version() == __version__
        assert await remote.uid() < await remote.uid()
        one = msgspec.structs.replace(
            function("t1/ns/f", labels={"a": "1"}), annotations={"why": "größer\n"}
        )
        made = await remote.create(one, who=tenant_admin("t1"))
        assert made == await objects.get(made.key) == await remote.get(made.key)
        same = await remote.apply(one, who=ADMIN)
        assert (same.object, same.outcome) == (made, Outcome.UNCHANGED)
        new = function("t1/ns/f", image="b:1")
        changed = await remote.update(new, who=ADMIN, expected=made.revision)
        changed = (await remote.apply(function("t1/ns/f", image="c:1"), who=ADMIN)).object
        forced = await remote.update(new, who=ADMIN, expected=ANY_REVISION)
        assert forced.revision > changed.revision
        await remote.create(function("t10/ns/f", labels={"a": "1"}), who=ADMIN)
        for selection in (
            Selection("function"),
            Selection("function", "t1"),
            Selection("function", "t1", "ns"),
            Selection("function", labels=parse_labels("a=1,b!=2,!c,a")),
        ):
            assert await remote.list(selection) == await objects.list(selection)
        assert await remote.delete(made.key, who=ADMIN, expected=forced.revision) == forced
        await remote.delete(tenant("t10").key, who=ADMIN, cascade=True)
        assert [one.name for one in (await remote.list(Selection("tenant"))).objects] == ["t1"]
        empty = await remote.list(Selection("function"))
        assert empty.objects == ()
        assert empty.revision == (await objects.list(Selection("function"))).revision


async def test_errors_are_told_as_what_they_are() -> None:
    objects = await with_tenants("t1", max_funccount=1)
    made = await objects.create(function("t1/ns/f"), who=ADMIN)
    async with _remote(objects) as remote:
        calls: list[tuple[Any, type[InferXError], str]] = [
            (
                remote.create(function("t1/ns/g", image=3), who=ADMIN),
                DescriptionError,
                "function/t1/ns/g: object.spec.image: the number 3; expected text",
            ),
            (remote.get(Key("pod", "t", "n", "p")), DescriptionError, "type: the text 'pod'"),
            (remote.list(Selection("pod")), DescriptionError, "type: the text 'pod'"),
            (
                remote.update(made, who=ADMIN, expected=0),
                DescriptionError,
                "expected: no revision; expected the one that was read, or force",
            ),
            (remote.get(Key("tenant", "system", "system", "x")), NotFoundError, "not there"),
            (remote.create(function("t1/ns/f"), who=ADMIN), ExistsError, "there already"),
            (remote.update(made, who=ADMIN, expected=1), ConflictError, "expected 1"),
            (
                remote.create(function("t1/ns/g"), who=tenant_admin("t10")),
                ForbiddenError,
                "function/t1/ns/g: not for the tenant admin of t10 to write",
            ),
            (
                remote.create(function("t1/ns/g"), who=namespace_admin("t1", "other")),
                ForbiddenError,
                "not for the namespace admin of t1/other",
            ),
            (remote.create(function("t1/ns/g"), who=ADMIN), LimitError, "max_funccount"),
            (remote.create(function("t2/ns/g"), who=ADMIN), AdmissionError, "no tenant t2"),
            (
                remote.create(node("n"), who=SYSTEM, lease=StoreLeaseId(12345)),
                LeaseLostError,
                "lease 12345 has run out",
            ),
            (anext(remote.changes(NODES, 1)), TooOldError, ""),
        ]
        for call, kind, message in calls:
            with pytest.raises(InferXError) as raised:
                await call
            assert type(raised.value) is kind
            assert message in str(raised.value)


async def _raw(address: str, method: str, request: Any) -> grpc.StatusCode:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/{method}", request_serializer=type(request).SerializeToString
        )
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await call(request, timeout=5)
    return told.value.code()


async def test_requests_that_say_too_little_are_refused() -> None:
    """Nobody may leave out for whom they write and pass for someone."""
    objects = await with_tenants("t1")
    key = pb.Key(type="namespace", tenant="t1", namespace="system", name="x")
    full = pb.Object(key=key, body="{}")
    async with _served(objects) as address:
        for request in (
            pb.WriteRequest(object=full),
            pb.WriteRequest(object=full, who=pb.Actor(tenant="t1")),
            pb.WriteRequest(object=pb.Object(key=key, body="[]"), who=_ADMIN),
            pb.WriteRequest(object=pb.Object(key=key, body="NaN"), who=_ADMIN),
            pb.WriteRequest(object=pb.Object(body="{}"), who=_ADMIN),
            pb.WriteRequest(),
        ):
            code = await _raw(address, "Create", request)
            assert code is grpc.StatusCode.INVALID_ARGUMENT, request
        lost = pb.ListRequest(selection=pb.Selection(type="function", namespace="ns"))
        assert await _raw(address, "List", lost) is grpc.StatusCode.INVALID_ARGUMENT
        missing = pb.GetRequest(key=pb.Key(type="function", tenant="t", namespace="n", name="f"))
        assert await _raw(address, "Get", missing) is grpc.StatusCode.NOT_FOUND
        assert await _raw(address, "Nothing", missing) is grpc.StatusCode.UNIMPLEMENTED


_ADMIN = pb.Actor(role=pb.Actor.ROLE_ADMIN)


@pytest.mark.parametrize(
    "kind",
    [
        AdmissionError, BusyError, ConflictError, DescriptionError, ExistsError, ForbiddenError,
        LeaseLostError, LimitError, NotFoundError, RefusedError, TooOldError, UnavailableError,
    ],
)  # fmt: skip
def test_an_error_comes_back_from_its_code(kind: type[InferXError]) -> None:
    status = told(kind("why"))
    assert status is not None
    code, words, metadata = status
    there = grpc.aio.Metadata(*metadata)
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), there, words)
    assert type(error_of(error, "the objects")) is kind
    assert str(error_of(error, "the objects")) == "why"
    # A proxy's status of the same number is no word of the service.
    other = error_of(
        grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), words), "x"
    )
    assert type(other) is UnavailableError


async def test_a_defect_of_the_service_is_told_as_one_and_tells_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Objects):
        async def uid(self) -> int:
            raise ZeroDivisionError("hunter2")

    async with _remote(Broken(MemoryStore(WallClock()))) as remote:
        with pytest.raises(UnavailableError) as told:
            await remote.uid()
        assert "a defect of the state service" in str(told.value)
        assert "hunter2" not in str(told.value)
    assert "hunter2" in caplog.text


async def test_a_list_larger_than_a_message_comes_in_parts_of_one_revision() -> None:
    objects = await with_tenants("t1", max_funccount=40)
    long = "x" * 300_000
    for number in range(40):
        one = function(f"t1/ns/f{number:02}", commands=[long])
        await objects.create(one, who=ADMIN)
    async with _remote(objects) as remote:
        selection = Selection("function")
        assert 40 * len(long) > 4 << 20 > PART_BYTES, "gRPC takes 4 MiB unless told otherwise"
        assert await remote.list(selection) == await objects.list(selection)


async def test_changes_come_over_the_wire_in_order_and_whole() -> None:
    objects = await with_tenants()
    async with _remote(objects) as remote:
        after = (await remote.list(NODES)).revision
        async with (
            aclosing(remote.changes(NODES, after)) as far,
            aclosing(objects.changes(NODES, after)) as near,
        ):
            await objects.create(node("a"), who=SYSTEM)
            await objects.apply(node("a", nodeIp="2"), who=SYSTEM)
            await objects.delete(node("a").key, who=SYSTEM)
            for _ in range(3):
                there = await _next(near)
                assert await _next(far) == there
            assert there.changes == (node("a").key,)


async def _next(batches: AsyncGenerator[Batch, None]) -> Batch:
    while not (batch := await anext(batches)).changes:
        pass
    return batch


async def test_a_watch_ends_with_its_store() -> None:
    store = MemoryStore(WallClock())
    objects = Objects(store)
    async with _remote(objects) as remote:
        both = [follow(source, Mirror(NODES)) for source in (remote, objects)]
        for events in both:
            # The list, then the first word of the watch.
            assert [await anext(events), await anext(events)]
        await store.close()
        for events in both:
            with pytest.raises(UnavailableError, match="ended"):
                await anext(events)


async def test_a_watch_that_never_begins_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BEGIN_S", 0.05)

    class Mute(Objects):
        async def changes(self, selection: Selection, after: int) -> AsyncGenerator[Batch, None]:
            await asyncio.Event().wait()
            yield Batch(after)

    async with _remote(Mute(MemoryStore(WallClock()))) as remote:
        with pytest.raises(UnavailableError, match=r"did not begin a watch within"):
            await anext(remote.changes(NODES, 1))


async def test_a_watcher_that_leaves_is_forgotten() -> None:
    watching = 0

    class Counting(Objects):
        async def changes(self, selection: Selection, after: int) -> AsyncGenerator[Batch, None]:
            nonlocal watching
            watching += 1
            try:
                async for batch in super().changes(selection, after):
                    yield batch
            finally:
                watching -= 1

    objects = Counting(MemoryStore(WallClock()))
    async with _remote(objects) as remote:
        after = (await remote.list(NODES)).revision
        async with aclosing(remote.changes(NODES, after)) as batches:
            await anext(batches)
            assert watching == 1
        while watching:  # noqa: ASYNC110 the service's doing
            await asyncio.sleep(0.001)


async def test_an_informer_outlives_the_service_it_listens_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(informer_module, "RETRY_S", 0.01)
    objects = await with_tenants()
    await objects.create(node("gone"), who=SYSTEM)
    async with AsyncExitStack() as stack:
        async with _served(objects) as address:
            remote = await stack.enter_async_context(_connected(address))
            informer = Informer(remote, NODES)
            running = asyncio.create_task(informer.run())
            await informer.synced()
            changes = informer.changes()
            assert (await anext(changes)).key == node("gone").key
        while informer.is_current:  # noqa: ASYNC110 the informer's doing
            await asyncio.sleep(0.001)
        await objects.delete(node("gone").key, who=SYSTEM)
        await objects.create(node("new"), who=SYSTEM)
        await stack.enter_async_context(_served(objects, address))
        seen = [await anext(changes), await anext(changes)]
        assert {(one.key.name, one.new is None) for one in seen} == {
            ("gone", True),
            ("new", False),
        }
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_of_two_services_over_one_store_either_will_do() -> None:
    objects = await with_tenants("t1")
    other = Objects(objects._store)
    async with _served(other) as staying:
        async with _served(objects) as leaving:
            both = _connected(leaving, staying)
            remote = await both.__aenter__()
            made = await remote.create(function("t1/ns/f"), who=ADMIN)
        assert await remote.get(made.key) == made
        assert (await remote.apply(function("t1/ns/f"), who=ADMIN)).object == made
        await both.__aexit__(None, None, None)


async def test_a_client_that_is_closed_ends_what_waits_on_it() -> None:
    objects = await with_tenants()
    async with _served(objects) as address:
        async with _connected(address) as remote:
            after = (await remote.list(NODES)).revision
            batches = remote.changes(NODES, after)
            await anext(batches)
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0.01)
        with pytest.raises(UnavailableError):
            await waiting
        with pytest.raises(UnavailableError):
            await remote.get(node("n").key)


async def test_both_services_and_their_health_are_at_one_address() -> None:
    store = MemoryStore(WallClock())
    async with served(store, "127.0.0.1:0") as serving:
        address = f"127.0.0.1:{serving.port}"
        far = RemoteStore([address])
        async with _connected(address) as remote:
            await remote.create(tenant("t1"), who=ADMIN)
            assert len((await far.list("/registry/tenant/")).entries) == 1
            # Whoever has the store alone writes objects as well, in the same turns.
            await Objects(far).create(namespace("t1", "ns"), who=ADMIN)
            await remote.create(function("t1/ns/f"), who=ADMIN)
        await far.close()
        async with grpc.aio.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", SERVICE, "inferx.state.v1.Store"):
                asked = health_pb2.HealthCheckRequest(service=name)
                answer = await health.Check(asked)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_namespaces_are_written_for_those_who_own_them() -> None:
    objects = await with_tenants("t1")
    writers: list[tuple[Actor, DataObject]] = [
        (SYSTEM, node("n")),
        (ADMIN, tenant("t2")),
        (tenant_admin("t1"), namespace("t1", "more")),
        (namespace_admin("t1", "ns"), function("t1/ns/f")),
    ]
    async with _remote(objects) as remote:
        for who, one in writers:
            assert (await remote.apply(one, who=who)).outcome is Outcome.CREATED

"""The store's service beside what the suite holds every store to: health, TLS, slow peers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from stores import put, take
from system_parts import free_port

from inferx.exec.clock import WallClock
from inferx.exec.state.client import RemoteStore
from inferx.exec.state.etcd.client import Client
from inferx.exec.state.etcd.store import EtcdStore
from inferx.exec.state.history import History
from inferx.exec.state.memory import Contents, MemoryStore
from inferx.exec.state.opening import credentials_of, open_store
from inferx.exec.state.proto import state_pb2 as pb
from inferx.exec.state.rpc import ask, open_channel
from inferx.exec.state.service import StoreService
from inferx.exec.state.serving import Serving
from inferx.exec.state.sqlite import open_sqlite
from inferx.exec.state.store import (
    Committed,
    Delete,
    Deleted,
    Entry,
    Put,
    Store,
    TooOldError,
    UnavailableError,
)
from inferx.exec.state.table import Table
from inferx.exec.state.wire import COMMIT, SERVICE

WITHIN_S = 10.0


@asynccontextmanager
async def served(
    store: Store, *, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[Serving]:
    serving = Serving(store, [(SERVICE, StoreService(store).handler())])
    await serving.start(address, credentials)
    try:
        yield serving
    finally:
        await serving.stop()


def remote(serving: Serving, **choices) -> RemoteStore:
    return RemoteStore([f"127.0.0.1:{serving.port}"], **choices)


async def test_health_is_that_of_the_store_underneath():
    status = health_pb2.HealthCheckResponse
    gone = EtcdStore(Client(["127.0.0.1:1"], deadline_s=0.2))
    expected = {status.SERVING: MemoryStore(WallClock()), status.NOT_SERVING: gone}
    for health, store in expected.items():
        async with served(store) as serving:
            channel = open_channel(f"127.0.0.1:{serving.port}", None)
            stub = health_pb2_grpc.HealthStub(channel)
            for name in ("", SERVICE):
                request = health_pb2.HealthCheckRequest(service=name)
                async with asyncio.timeout(WITHIN_S):
                    async for answer in stub.Watch(request):
                        if answer.status == health:
                            break
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Check(health_pb2.HealthCheckRequest(service="another"))
            await channel.close()
        await store.close()


async def test_what_no_client_of_ours_sends_is_refused_by_the_service():
    store = MemoryStore(WallClock())
    async with served(store) as serving:
        channel = open_channel(f"127.0.0.1:{serving.port}", None)
        requests = [
            pb.CommitRequest(changes=[pb.Change()]),
            pb.CommitRequest(changes=[pb.Change(put=pb.Put(key="no/"))]),
            pb.CommitRequest(changes=[pb.Change(put=pb.Put(key="k", value=b"x" * 2_000_000))]),
        ]
        for request in requests:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(channel, COMMIT, request, 5.0, ())
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        await channel.close()
    assert (await store.list("/")).entries == ()
    await store.close()


async def test_a_slow_watcher_is_held_back_and_in_the_end_told_to_list_again():
    contents = Contents(Table(0), History(0, most=16))
    store = MemoryStore(WallClock(), contents=contents)
    async with served(store) as serving:
        client = remote(serving)
        async with aclosing(client.watch("/", 0)) as slow, aclosing(client.watch("/", 0)) as quick:
            await anext(slow)
            await anext(quick)
            for number in range(100):
                await put(store, "/large", b"x" * 500_000)
                assert len(await take(quick, 1)) == 1, number
            with pytest.raises(TooOldError, match="list again"):
                # Some was on its way when it stopped reading.
                await take(slow, 80)
        listing = await client.list("/")
        async with aclosing(client.watch("/", listing.revision)) as again:
            revision = await put(client, "/small", b"")
            assert [each.revision for each in await take(again, 1)] == [revision]
        await client.close()
    await store.close()


async def test_a_commit_larger_than_a_message_arrives_whole():
    store = MemoryStore(WallClock())
    async with served(store) as serving:
        client = remote(serving)
        lease = await client.grant(600.0)
        keys = [f"/{number:05}".ljust(500, "k") for number in range(20_000)]
        for begin in range(0, len(keys), 100):
            await client.commit([], [Put(key, b"", lease) for key in keys[begin : begin + 100]])
        listing = await client.list("/")
        assert [entry.key for entry in listing.entries] == keys
        async with aclosing(client.watch("/", listing.revision)) as items:
            await client.revoke(lease)
            [seen] = await take(items, 1)
        assert seen.changes == tuple(map(Deleted, keys))
        await client.close()
    await store.close()


async def test_a_service_that_comes_back_is_found_and_watches_go_on_where_they_were(tmp_path: Path):
    address = f"127.0.0.1:{free_port()}"
    client = RemoteStore([address])
    store = await open_sqlite(tmp_path / "store", WallClock())
    async with served(store, address=address):
        revision = await put(client, "/a", b"1")
        items = client.watch("/", revision)
        await anext(items)
    await store.close()
    with pytest.raises(UnavailableError):
        await take(items, 1)
    reading = asyncio.create_task(client.get("/a"))
    await asyncio.sleep(0.2)
    store = await open_sqlite(tmp_path / "store", WallClock())
    async with served(store, address=address):
        assert await reading == Entry("/a", b"1", revision)
        gone = await client.commit([], [Delete("/a")])
        assert gone
        async with aclosing(client.watch("/", revision)) as items:
            assert await take(items, 1) == [Committed(gone, (Deleted("/a"),))]
        await client.close()
    await store.close()


async def test_one_of_two_services_over_one_store_is_enough():
    store = MemoryStore(WallClock())
    async with served(store) as lasting:
        async with served(store) as passing:
            client = RemoteStore([f"127.0.0.1:{each.port}" for each in (passing, lasting)])
            revision = await put(client, "/a", b"1")
            items = client.watch("/", revision)
            await anext(items)
        with pytest.raises(UnavailableError):
            await take(items, 1)
        assert await client.get("/a") == Entry("/a", b"1", revision)
        assert await put(client, "/b", b"2")
        async with aclosing(client.watch("/", revision)) as items:
            assert len(await take(items, 1)) == 1
        await client.close()
    await store.close()


async def test_nobody_there_is_one_line_within_the_deadline():
    client = RemoteStore(["127.0.0.1:1"], deadline_s=0.3)
    for call in (client.get("/a"), put(client, "/a", b""), anext(client.watch("/", 0))):
        with pytest.raises(UnavailableError, match=r"the store at 127\.0\.0\.1:1: .*refused"):
            async with asyncio.timeout(3):
                await call
    await client.close()


async def test_an_address_that_is_taken_is_one_line():
    store = MemoryStore(WallClock())
    async with served(store) as first:
        with pytest.raises(UnavailableError, match="cannot listen") as caught:
            async with served(store, address=f"127.0.0.1:{first.port}"):
                pass
        assert "\n" not in str(caught.value)
    await store.close()


async def test_tls_both_ways(tmp_path: Path):
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    client = authority.issue_cert("us@inferx")
    pem = {name: str(tmp_path / name) for name in ("ca", "client", "other")}
    authority.cert_pem.write_to_path(pem["ca"])
    client.private_key_and_cert_chain_pem.write_to_path(pem["client"])
    trustme.CA().cert_pem.write_to_path(pem["other"])
    chain = b"".join(each.bytes() for each in server.cert_chain_pems)
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), chain)],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    store = MemoryStore(WallClock())
    async with served(store, credentials=credentials) as serving:
        where = f"127.0.0.1:{serving.port}"
        ours = f"cert={pem['client']}&key={pem['client']}"
        good = await open_store(f"grpcs://{where}?ca={pem['ca']}&{ours}", WallClock())
        assert await put(good, "/a", b"1")
        await good.close()
        wrong = (
            {"ca": pem["ca"]},
            {"ca": pem["other"], "cert": pem["client"], "key": pem["client"]},
        )
        for options in wrong:
            secured = credentials_of("grpcs", options)
            assert where in await refusal(remote(serving, credentials=secured, deadline_s=0.5))
        assert where in await refusal(remote(serving, deadline_s=0.5))
    await store.close()


async def refusal(store: Store) -> str:
    with pytest.raises(UnavailableError) as caught:
        await store.get("/a")
    await store.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)

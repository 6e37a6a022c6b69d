"""Keys in processes that share a real store: etcd's, and a state service's over mutual TLS."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trustme
from etcd_server import cluster, missing_etcd

from inferx.exec.clock import WallClock
from inferx.exec.identity.key_cache import KeyCache
from inferx.exec.identity.key_desk import KeyDesk, KeyRequest
from inferx.exec.identity.keys import Secret
from inferx.exec.identity.principal import EVERY, Denied, Grant, Level, Principal
from inferx.exec.identity.tls import ServerTls, TlsFiles, channel_credentials
from inferx.exec.state.client import RemoteStore
from inferx.exec.state.etcd.client import Client
from inferx.exec.state.etcd.store import EtcdStore
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.service import StoreService
from inferx.exec.state.serving import Serving
from inferx.exec.state.store import Store
from inferx.exec.state.wire import SERVICE

ROOT = Principal("root", (Grant(Level.FULL, EVERY, EVERY),))
REQUEST = KeyRequest(tenant="t1", namespace="n", level="full", label="")
REVOKED, STALE = Denied("revoked"), Denied("keys unavailable")


@asynccontextmanager
async def following(store: Store, *, stale_s: float = 15.0) -> AsyncGenerator[KeyCache]:
    cache = KeyCache(store, WallClock(), stale_s=stale_s)
    task = asyncio.create_task(cache.run())
    try:
        await cache.wait_listed()
        yield cache
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def soon(condition: Callable[[], object], *, within_s: float) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, f"not so within {within_s} s"
        await asyncio.sleep(0.002)


async def revoked_everywhere(stores: list[Store]) -> None:
    """Issue and revoke a key through one store; every other one's followers see both in time."""
    desk = KeyDesk(stores[0], WallClock())
    async with AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(following(store)) for store in stores]
        secret = await desk.issue(ROOT, REQUEST)
        assert isinstance(secret, Secret)
        token = secret.token
        await soon(
            lambda: all(isinstance(each.look_up(token), Principal) for each in caches), within_s=1
        )
        await desk.revoke(ROOT, "t1", "n", secret.id)
        await soon(lambda: all(each.look_up(token) == REVOKED for each in caches), within_s=1)


@pytest.mark.skipif(bool(missing_etcd()), reason=missing_etcd())
def test_a_key_revoked_in_etcd_opens_nothing_anywhere_within_a_second():
    async def work(endpoint: str) -> None:
        stores: list[Store] = [
            EtcdStore(Client([endpoint], credentials=None, login=None)) for _ in range(3)
        ]
        try:
            await revoked_everywhere(stores)
        finally:
            for store in stores:
                await store.close()

    with cluster() as [member]:
        asyncio.run(asyncio.wait_for(work(member.endpoint), 60))


def test_a_key_revoked_over_mutual_tls_and_a_state_service_that_goes_away(tmp_path: Path):
    authority = trustme.CA()

    def files(name: str) -> TlsFiles:
        folder = tmp_path / name
        folder.mkdir()
        one = authority.issue_cert("127.0.0.1")
        one.private_key_pem.write_to_path(folder / "key.pem")
        one.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        return TlsFiles(
            certificate=folder / "cert.pem", key=folder / "key.pem", authority=folder / "ca.pem"
        )

    async def serve(local: Store, tls: ServerTls, port: int = 0) -> Serving:
        serving = Serving(local, [(SERVICE, StoreService(local).handler())])
        await serving.start(f"127.0.0.1:{port}", tls.grpc_credentials())
        return serving

    async def work() -> None:
        local = MemoryStore(WallClock(), bookmark_s=0.1)
        tls = ServerTls(files("server"))
        serving = await serve(local, tls)
        credentials = channel_credentials(files("client"))
        stores: list[Store] = [
            RemoteStore([f"127.0.0.1:{serving.port}"], credentials=credentials, deadline_s=1.0)
            for _ in range(2)
        ]
        await revoked_everywhere(stores)
        secret = await KeyDesk(local, WallClock()).issue(ROOT, REQUEST)
        assert isinstance(secret, Secret)
        async with following(stores[1], stale_s=1.0) as cache:
            assert isinstance(cache.look_up(secret.token), Principal)
            await serving.stop()
            assert isinstance(cache.look_up(secret.token), Principal)
            await soon(lambda: cache.look_up(secret.token) == STALE, within_s=3)
            # Revoked behind its back: the first that it hears again, it hears that.
            await KeyDesk(local, WallClock()).revoke(ROOT, "t1", "n", secret.id)
            serving = await serve(local, tls, serving.port)
            await soon(lambda: cache.look_up(secret.token) != STALE, within_s=15)
            assert cache.look_up(secret.token) == REVOKED
        for store in stores:
            await store.close()
        await serving.stop()
        await local.close()

    asyncio.run(asyncio.wait_for(work(), 60))

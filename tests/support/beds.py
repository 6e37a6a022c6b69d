"""Every kind of store there is, for the conformance suite."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from etcd_server import cluster, etcdctl, missing_etcd
from stores import Bed, put

from inferx.exec.clock import WallClock
from inferx.exec.metrics.state import CountedStore
from inferx.exec.state.client import RemoteStore
from inferx.exec.state.etcd.client import Client
from inferx.exec.state.etcd.store import EtcdStore
from inferx.exec.state.history import History
from inferx.exec.state.memory import Contents, MemoryStore
from inferx.exec.state.service import StoreService
from inferx.exec.state.serving import Serving
from inferx.exec.state.sqlite import open_sqlite
from inferx.exec.state.store import Store
from inferx.exec.state.table import Table
from inferx.exec.state.wire import SERVICE

__all__ = ["BEDS"]

HISTORY = 64
BOOKMARK_S = 0.1


class MemoryBed:
    name = "memory"
    ttl_s = 0.5

    @contextmanager
    def up(self) -> Iterator[None]:
        yield

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        contents = Contents(Table(0), History(0, most=HISTORY))
        store = MemoryStore(WallClock(), contents=contents, bookmark_s=BOOKMARK_S)
        try:
            yield store
        finally:
            await store.close()

    async def forget(self, store: Store) -> None:
        await fill_history(store)


class CountedBed(MemoryBed):
    """What counts changes nothing."""

    name = "counted"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        async with super().open() as store:
            yield CountedStore(store)


class SqliteBed:
    name = "sqlite"
    ttl_s = 0.5

    @contextmanager
    def up(self) -> Iterator[None]:
        yield

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        with tempfile.TemporaryDirectory() as folder:
            store = await open_sqlite(
                Path(folder) / "store",
                WallClock(),
                history_commits=HISTORY,
                bookmark_s=BOOKMARK_S,
            )
            try:
                yield store
            finally:
                await store.close()

    async def forget(self, store: Store) -> None:
        await fill_history(store)


class EtcdBed:
    name = "etcd"
    ttl_s = 1.0

    @contextmanager
    def up(self) -> Iterator[None]:
        if missing := missing_etcd():
            pytest.skip(missing)
        with cluster() as [self.member]:
            yield

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        client = Client([self.member.endpoint], credentials=None, login=None)
        store = EtcdStore(client, bookmark_s=BOOKMARK_S)
        try:
            yield store
        finally:
            await store.close()

    async def forget(self, store: Store) -> None:
        # etcd keeps the revision that it compacts at.
        revision = await put(store, "/elsewhere/filler", b"")
        etcdctl(self.member, "compaction", str(revision), "--physical")


class RemoteBed:
    name = "grpc"
    ttl_s = 0.5

    @contextmanager
    def up(self) -> Iterator[None]:
        yield

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        async with MemoryBed().open() as local:
            serving = Serving(local, [(SERVICE, StoreService(local).handler())])
            await serving.start("127.0.0.1:0")
            store = RemoteStore([f"127.0.0.1:{serving.port}"])
            try:
                yield store
            finally:
                await store.close()
                await serving.stop()

    async def forget(self, store: Store) -> None:
        await fill_history(store)


async def fill_history(store: Store) -> None:
    for _ in range(HISTORY):
        await put(store, "/elsewhere/filler", b"")


BEDS: list[Bed] = [MemoryBed(), CountedBed(), SqliteBed(), EtcdBed(), RemoteBed()]

"""A state service put together: opened by a URL, served, closed at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cluster_objects import function, namespace, tenant

from inferx.core.errors import DescriptionError
from inferx.exec.clock import WallClock
from inferx.exec.state.objects.actor import ADMIN
from inferx.exec.state.objects.client import RemoteObjects
from inferx.exec.state.opening import open_store
from inferx.exec.state.server import served
from inferx.exec.state.store import UnavailableError


@asynccontextmanager
async def _up(url: str, port: int = 0) -> AsyncIterator[int]:
    store = await open_store(url, WallClock())
    try:
        async with served(store, f"127.0.0.1:{port}") as serving:
            yield serving.port
    finally:
        await store.close()


@asynccontextmanager
async def _objects(port: int) -> AsyncIterator[RemoteObjects]:
    remote = RemoteObjects([f"127.0.0.1:{port}"])
    try:
        yield remote
    finally:
        await remote.close()


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'state'}"
    async with _up(url) as port, _objects(port) as remote:
        await remote.create(tenant("t1"), who=ADMIN)
        await remote.create(namespace("t1", "ns"), who=ADMIN)
        made = await remote.create(function("t1/ns/f"), who=ADMIN)
    async with _up(url, port) as again, _objects(again) as remote:
        assert again == port
        assert await remote.get(made.key) == made
        newer = await remote.apply(function("t1/ns/f", image="b:1"), who=ADMIN)
        assert newer.object.revision > made.revision


async def test_a_service_over_anothers_store_serves_the_same_objects() -> None:
    async with (
        _up("memory:") as port,
        _up(f"grpc://127.0.0.1:{port}") as other,
        _objects(port) as near,
        _objects(other) as far,
    ):
        made = await far.create(tenant("t1"), who=ADMIN)
        assert await near.get(made.key) == made


async def test_what_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    async with _up(f"sqlite:{tmp_path / 'state'}") as taken:
        for url, port, kind in (
            ("nonsense", 0, DescriptionError),
            (f"sqlite:{tmp_path / 'state'}", 0, UnavailableError),
            ("memory:", taken, UnavailableError),
        ):
            with pytest.raises(kind) as told:
                async with _up(url, port):
                    pass
            assert len(str(told.value).splitlines()) == 1

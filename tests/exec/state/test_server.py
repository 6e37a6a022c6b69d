"""A state service as a process runs it: opened by a URL, served, closed at the end."""

import asyncio
from pathlib import Path

import pytest
from cluster_objects import function, namespace, tenant

from inferx.core.errors import DescriptionError
from inferx.exec.clock import WallClock
from inferx.exec.state.objects.actor import ADMIN
from inferx.exec.state.objects.client import RemoteObjects
from inferx.exec.state.server import run_state
from inferx.exec.state.store import UnavailableError


async def _start(url: str, address: str = "127.0.0.1:0") -> tuple[asyncio.Task[None], int]:
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    run = run_state(url, WallClock(), address=address, ready=listening.set_result)
    task = asyncio.create_task(run)
    await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    return task, await listening


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'state'}"
    task, port = await _start(url)
    remote = RemoteObjects([f"127.0.0.1:{port}"])
    await remote.create(tenant("t1"), who=ADMIN)
    await remote.create(namespace("t1", "ns"), who=ADMIN)
    made = await remote.create(function("t1/ns/f"), who=ADMIN)
    await _stop(task)
    task, again = await _start(url, f"127.0.0.1:{port}")
    assert again == port
    assert await remote.get(made.key) == made
    newer = await remote.apply(function("t1/ns/f", image="b:1"), who=ADMIN)
    assert newer.object.revision > made.revision
    await remote.close()
    await _stop(task)


async def test_a_service_over_anothers_store_serves_the_same_objects() -> None:
    first, port = await _start("memory:")
    second, other = await _start(f"grpc://127.0.0.1:{port}")
    near, far = RemoteObjects([f"127.0.0.1:{port}"]), RemoteObjects([f"127.0.0.1:{other}"])
    made = await far.create(tenant("t1"), who=ADMIN)
    assert await near.get(made.key) == made
    await asyncio.gather(near.close(), far.close())
    await _stop(second)
    await _stop(first)


async def test_what_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    task, port = await _start(f"sqlite:{tmp_path / 'state'}")
    for url, address, kind in (
        ("nonsense", "127.0.0.1:0", DescriptionError),
        (f"sqlite:{tmp_path / 'state'}", "127.0.0.1:0", UnavailableError),
        ("memory:", f"127.0.0.1:{port}", UnavailableError),
    ):
        with pytest.raises(kind) as told:
            await _start(url, address)
        assert len(str(told.value).splitlines()) == 1
    await _stop(task)

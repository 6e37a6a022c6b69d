"""The SQLite store as a file: restarts, crashes, other files, other owners."""

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hand_clock import HandClock
from stores import commits, put

from inferx.exec.clock import WallClock
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.sqlite import open_sqlite
from inferx.exec.state.store import (
    Entry,
    LeaseLostError,
    Put,
    StoreError,
    TooOldError,
    UnavailableError,
)

COMMITS_FOR_EVER = Path(__file__).parents[2] / "support/commits_for_ever.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


async def opened(path: Path, **choices) -> MemoryStore:
    return await open_sqlite(path, WallClock(), **choices)


async def test_all_is_there_again_and_watches_go_on_where_they_were(path: Path):
    store = await opened(path)
    first = await put(store, "/a", b"1")
    second = await put(store, "/b", b"2")
    await store.close()
    store = await opened(path)
    assert (await store.list("/")).entries == (Entry("/a", b"1", first), Entry("/b", b"2", second))
    third = await put(store, "/a", b"3")
    assert third == second + 1
    seen = await commits(store, "/", first, third)
    assert [each.revision for each in seen] == [second, third]
    await store.close()


async def test_history_has_a_bound_in_the_file_too(path: Path):
    store = await opened(path, history_commits=10)
    revisions = [await put(store, "/a", b"") for _ in range(50)]
    await store.close()
    with sqlite3.connect(path) as file:
        [count] = file.execute("SELECT count(*) FROM history").fetchone()
    file.close()
    assert count <= 11
    store = await opened(path, history_commits=10)
    with pytest.raises(TooOldError):
        await commits(store, "/", revisions[30], revisions[-1])
    assert len(await commits(store, "/", revisions[-10], revisions[-1])) == 9
    await store.close()


async def test_a_lease_outlives_a_restart_with_its_full_time_before_it(path: Path):
    clock = HandClock()
    store = await open_sqlite(path, clock)
    lease = await store.grant(0.3)
    ended = await store.grant(60.0)
    await store.commit([], [Put("/a", b"", lease), Put("/b", b"", ended)])
    await store.revoke(ended)
    clock.advance(0.29)
    await store.close()
    clock.advance(0.29)
    store = await open_sqlite(path, clock)
    clock.advance(0.29)
    assert await store.get("/a")
    await store.keep_alive(lease)
    with pytest.raises(LeaseLostError):
        await store.keep_alive(ended)
    assert await store.grant(1.0) not in {lease, ended}
    clock.advance(0.29)
    assert await store.get("/a")
    clock.advance(0.02)
    assert (await store.list("/")).entries == ()
    await store.close()
    store = await opened(path)
    assert (await store.list("/")).entries == ()
    await store.close()


@pytest.mark.parametrize("lines", [1, 100, 400, 900, 1_500])
async def test_a_killed_process_loses_no_commit_that_it_answered_for(path: Path, lines: int):
    with subprocess.Popen(
        [sys.executable, str(COMMITS_FOR_EVER), str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        answered = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        answered += process.stdout.readlines()
    latest: dict[int, tuple[int, int]] = {}
    for line in answered:
        if line.endswith("\n"):
            number, turn, revision = map(int, line.split())
            latest[number] = (turn, revision)
    store = await opened(path)
    listing = await store.list("/")
    for number, (turn, revision) in latest.items():
        both = [each for each in listing.entries if each.key.startswith(f"/{number}/")]
        assert len(both) == 2
        assert both[0].value == both[1].value
        assert both[0].modified == both[1].modified >= revision
        assert int(both[0].value) >= turn
    newest = max(each.modified for each in listing.entries)
    assert listing.revision == newest
    assert await put(store, "/after", b"") == newest + 1
    await store.close()


async def test_a_file_has_one_owner(path: Path):
    store = await opened(path)
    await put(store, "/a", b"")
    with pytest.raises(UnavailableError, match="open in another process"):
        await opened(path)
    code = (
        "import asyncio, sys; from pathlib import Path; from inferx.exec.clock import WallClock\n"
        "from inferx.exec.state.sqlite import open_sqlite\n"
        "from inferx.exec.state.store import StoreError\n"
        "try: asyncio.run(open_sqlite(Path(sys.argv[1]), WallClock()))\n"
        "except StoreError as error: print(error)\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert other.stdout == f"{path} is open in another process: expected to be its only user\n"
    await store.close()
    await (await opened(path)).close()


async def test_nobody_else_may_read_the_file(path: Path):
    store = await opened(path)
    await put(store, "/a", b"")
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    await store.close()


async def refusal(path: Path) -> str:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError) as caught:
        await opened(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert before is None or path.read_bytes() == before
    return str(caught.value)


async def test_what_is_no_store_is_refused_and_left_alone(path: Path):
    path.write_bytes(b"some text\n" * 200)
    assert "not a database" in await refusal(path)
    path.unlink()
    path.mkdir()
    assert "Is a directory" in await refusal(path)
    path.rmdir()
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE theirs (x)")
    file.close()
    assert "another program's" in await refusal(path)
    assert "No such file" in await refusal(path.parent / "missing" / "store")


async def test_another_format_is_refused_and_left_alone(path: Path):
    await (await opened(path)).close()
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 7")
    file.close()
    assert "format 7" in await refusal(path)


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM history WHERE revision = 2", "UPDATE history SET changes = x'ff'", "garbage"],
)
async def test_a_damaged_file_is_refused(path: Path, damage: str):
    store = await opened(path)
    for number in range(200):
        await put(store, f"/{number}", b"x" * 100)
    await store.close()
    if damage == "garbage":
        content = bytearray(path.read_bytes())
        content[4096:-4096] = b"\x55" * (len(content) - 8192)
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as file:
            file.execute(damage)
        file.close()
    await refusal(path)


async def test_a_full_disk_ends_the_store_in_one_line_and_loses_nothing(path: Path):
    store = await opened(path)
    await put(store, "/a", b"1")
    journal = store._behind._journal
    await asyncio.get_running_loop().run_in_executor(
        journal._thread, journal._file._connection.execute, "PRAGMA max_page_count = 12"
    )
    watch = store.watch("/", 1)
    await anext(watch)
    with pytest.raises(UnavailableError, match="full") as caught:
        await put(store, "/b", b"x" * 100_000)
    assert "\n" not in str(caught.value)
    for call in (store.get("/a"), store.list("/"), put(store, "/c", b"")):
        with pytest.raises(UnavailableError, match="full"):
            await call
    with pytest.raises(UnavailableError, match="full"):
        await anext(watch)
    with pytest.raises(UnavailableError, match="full"):
        await store.close()
    store = await opened(path)
    assert [each.key for each in (await store.list("/")).entries] == ["/a"]
    await store.close()


async def test_who_gives_up_waiting_stops_no_write(path: Path):
    store = await opened(path)
    tasks = [asyncio.create_task(put(store, f"/{number}", b"")) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len((await store.list("/")).entries) == 20
    await store.close()
    store = await opened(path)
    assert len((await store.list("/")).entries) == 20
    await store.close()

"""The audit log in SQLite and in a real PostgreSQL: written, kept, lost only when told so."""

import asyncio
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hand_clock import HandClock
from postgres import PASSWORD, Postgres, missing_postgres, postgres

from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock, WallClock
from inferx.exec.identity.audit import Audit, AuditUnavailableError, Target
from inferx.exec.identity.audit_table import AuditDatabaseError, AuditRow, AuditTable
from inferx.exec.identity.authenticator import Authenticator
from inferx.exec.identity.key_cache import KeyCache
from inferx.exec.identity.keys import make_secret
from inferx.exec.identity.principal import Denied
from inferx.exec.identity.rights import ALLOWED
from inferx.exec.state.memory import MemoryStore

TARGET = Target(type="function", tenant="t1", namespace="n", name="f", request="r-1")
READ = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM inferx_audit").fetchone()[0])
connection.close()
"""
needs_postgres = pytest.mark.skipif(bool(missing_postgres()), reason=missing_postgres())


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/audit.db"
    running: Postgres = request.getfixturevalue("server")
    engine = sa.create_engine(running.url.replace("postgresql", "postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS inferx_audit, inferx_audit_schema")
    engine.dispose()
    return running.url


@asynccontextmanager
async def auditing(url: str, clock: Clock | None = None, **bounds: float) -> AsyncGenerator[Audit]:
    audit = Audit(AuditTable(url), clock or WallClock(), **bounds)  # type: ignore[arg-type]
    task = asyncio.create_task(audit.run())
    await asyncio.sleep(0)  # A task that is cancelled before its first turn has no end, either.
    try:
        yield audit
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def soon(condition: Callable[[], object], *, within_s: float = 20.0) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, f"not so within {within_s} s"
        await asyncio.sleep(0.01)


def go(work: Awaitable[None]) -> None:
    async def run() -> None:
        await asyncio.wait_for(work, 60)

    asyncio.run(run())


def rows(url: str, **which: str | int) -> tuple[AuditRow, ...]:
    table = AuditTable(url)
    try:
        return table.read(**which)  # type: ignore[arg-type]
    finally:
        table.close()


def event(number: int, *, at_ns: int = 1, writer: str = "w", tenant: str = "t1") -> AuditRow:
    return AuditRow(
        writer, number, at_ns, "decision", "key:1", "invoke", "function", tenant, "n", "f",
        "allowed", "", "",
    )  # fmt: skip


# -- The tables ---
def test_decisions_are_written_with_who_what_and_why(url: str):
    async def work() -> None:
        async with auditing(url) as audit:
            audit.decision("key:1", "invoke", TARGET, ALLOWED)
            audit.decision("anonymous", "write", TARGET, Denied("no right"))
            await soon(lambda: audit.counts.written == 2)
        denied, allowed = rows(url, tenant="t1")
        assert (denied.who, denied.action, denied.outcome) == ("anonymous", "write", "denied")
        assert denied.reason == "no right"
        assert (allowed.who, allowed.outcome, allowed.reason) == ("key:1", "allowed", "")
        assert (allowed.type, allowed.namespace, allowed.name) == ("function", "n", "f")
        assert allowed.request == "r-1"
        assert rows(url, tenant="t10") == ()

    go(work())


def test_what_is_queued_at_the_end_is_written(url: str):
    async def work() -> None:
        async with auditing(url) as audit:
            for _ in range(5_000):
                audit.decision("key:1", "invoke", TARGET, ALLOWED)
        assert audit.counts.written == 5_000
        assert audit.counts.lost == 0
        written = rows(url, limit=10_000)
        assert sum(one.times for one in written) == 5_000
        # Equal decisions that wait together are one event.
        assert len(written) < 50

    go(work())


def test_a_batch_that_is_written_twice_is_there_once(url: str):
    table = AuditTable(url)
    table.prepare()
    table.write([event(1), event(2)])
    table.write([event(1), event(2), event(3)])
    assert sorted(row.number for row in table.read()) == [1, 2, 3]
    table.close()


def test_the_schema_is_made_once_however_many_start_at_once(url: str):
    tables = [AuditTable(url) for _ in range(6)]
    with ThreadPoolExecutor(max_workers=6) as threads:
        list(threads.map(AuditTable.prepare, tables))
    for number, table in enumerate(tables):
        table.write([event(number)])
        table.close()
    assert len(rows(url)) == 6


def test_a_newer_schema_is_refused_in_one_line_and_left_alone(url: str):
    table = AuditTable(url)
    table.prepare()
    with table._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE inferx_audit_schema SET version = 99")
    with pytest.raises(AuditDatabaseError, match="schema version 99; expected 2 or older"):
        table.prepare()
    table.close()


def test_a_log_of_an_older_version_goes_on_as_it_was(url: str):
    table = AuditTable(url)
    table.prepare()
    table.write([event(1)])
    table.close()
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE inferx_audit DROP COLUMN times")
        connection.exec_driver_sql("UPDATE inferx_audit_schema SET version = 1")
    engine.dispose()
    table = AuditTable(url)
    table.prepare()
    table.write([msgspec.structs.replace(event(2), times=7)])
    assert {one.number: one.times for one in table.read()} == {1: 1, 2: 7}
    table.close()


def test_old_events_go_in_bites_and_newer_ones_stay(url: str):
    async def work() -> None:
        clock = HandClock()
        table = AuditTable(url)
        table.prepare()
        table.write([event(number, at_ns=number) for number in range(12_000)])
        table.close()
        clock.advance(1)
        # All but the last 2,000 are older than this.
        retention_ns = NS_PER_S - 10_000
        async with auditing(url, clock, retention_ns=retention_ns, forget_every_s=0.05) as audit:
            await soon(lambda: audit.counts.forgotten == 10_000)
        kept = rows(url, limit=20_000)
        assert sorted(row.number for row in kept) == list(range(10_000, 12_000))

    go(work())


# -- Trouble ---
def test_a_full_queue_loses_events_and_counts_each(url: str, caplog: pytest.LogCaptureFixture):
    async def work() -> None:
        async with auditing(url, queue_rows=100) as audit:
            began_s = time.perf_counter()
            for number in range(1_000):
                audit.decision(f"key:{number}", "invoke", TARGET, ALLOWED)
            assert time.perf_counter() - began_s < 1.0
            assert audit.counts.lost == 900
            await soon(lambda: audit.counts.written == 100)
        loud = [each for each in caplog.records if "queue is full" in each.message]
        assert [each.levelno for each in loud] == [logging.ERROR]

    go(work())


@needs_postgres
def test_requests_go_on_while_the_database_is_down_and_nothing_is_lost_after():
    async def work(server: Postgres) -> None:
        async with auditing(server.url) as audit:
            audit.decision("key:1", "invoke", TARGET, ALLOWED)
            await soon(lambda: audit.counts.written == 1)
            await asyncio.to_thread(server.stop)
            for _ in range(50):
                audit.decision("key:2", "invoke", TARGET, ALLOWED)
            await soon(lambda: audit.counts.failures > 0)
            with pytest.raises(AuditUnavailableError, match="nothing was done"):
                async with audit.act("root", "revoke", TARGET):
                    pytest.fail("it was done without a record")
            assert audit.counts.written == 1
            await asyncio.to_thread(server.start)
            await soon(lambda: audit.counts.written == 51)
            assert audit.counts.lost == 0
        assert sum(one.times for one in rows(server.url)) == 51

    with postgres() as server:
        go(work(server))


def test_what_a_database_that_never_answers_did_not_take_is_counted(tmp_path: Path):
    async def work() -> None:
        async with auditing(f"sqlite:///{tmp_path}/no/folder/a.db") as audit:
            for _ in range(10):
                audit.decision("key:1", "invoke", TARGET, ALLOWED)
            await soon(lambda: audit.counts.failures > 0)
        assert (audit.counts.written, audit.counts.lost) == (0, 10)

    go(work())


def test_who_reads_the_file_meanwhile_sees_all_and_takes_nothing_away(tmp_path: Path):
    path = tmp_path / "audit.db"
    read = (sys.executable, "-c", READ, str(path))

    async def work() -> None:
        table = AuditTable(f"sqlite:///{path}")
        # As at a start, which tells at once of a file that cannot be used.
        table.prepare()
        audit = Audit(table, WallClock())
        task = asyncio.create_task(audit.run())
        for number in range(1, 4):
            audit.decision("key:1", "invoke", TARGET, ALLOWED)
            await soon(lambda number=number: audit.counts.written == number)
            # Another process: within one, SQLite knows of its own connections.
            told = await asyncio.to_thread(subprocess.check_output, read, text=True)
            assert int(told) == number
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    go(work())
    assert len(rows(f"sqlite:///{path}")) == 3


# -- Acts ---
def test_an_act_is_on_record_before_it_is_done(url: str):
    async def work() -> None:
        async with auditing(url) as audit:
            async with audit.act("root", "issue", TARGET):
                (begun,) = await asyncio.to_thread(rows, url)
                assert (begun.what, begun.action, begun.outcome) == ("act", "issue", "begun")
            with pytest.raises(RuntimeError):
                async with audit.act("root", "revoke", TARGET):
                    raise RuntimeError
        told = [(row.action, row.outcome) for row in reversed(rows(url))]
        assert told == [
            ("issue", "begun"), ("issue", "done"), ("revoke", "begun"), ("revoke", "failed"),
        ]  # fmt: skip

    go(work())


def test_an_act_that_cannot_be_recorded_is_not_done(tmp_path: Path):
    async def work() -> None:
        async with auditing(f"sqlite:///{tmp_path}/no/folder/a.db") as audit:
            with pytest.raises(AuditUnavailableError, match="issue function"):
                async with audit.act("root", "issue", TARGET):
                    pytest.fail("it was done without a record")

    go(work())


# -- What must not be in it ---
def test_no_secret_reaches_the_log_or_the_database(url: str, caplog: pytest.LogCaptureFixture):
    secret = make_secret()

    async def work() -> None:
        cache = KeyCache(MemoryStore(WallClock()), WallClock())
        who = await Authenticator(cache).authenticate({"Authorization": f"Bearer {secret.token}"})
        assert isinstance(who, Denied)
        async with auditing(url) as audit:
            audit.decision("anonymous", "invoke", TARGET, who)
            # As somebody does who mistakes the key for the function's name.
            misplaced = Target(type="function", tenant="t1", namespace="n", name=secret.token)
            audit.decision("anonymous", "invoke", misplaced, who)

    caplog.set_level(logging.DEBUG)
    go(work())
    found = rows(url)
    assert len(found) == 2
    for text in (repr(found), caplog.text):
        assert secret.token[20:] not in text
        assert PASSWORD not in text


@pytest.mark.parametrize(
    "odd", ["a\0b", "line\nline", "\ud800", "\x1b[2J", "ü" * 3000], ids=range(5)
)
def test_whatever_somebody_sends_can_be_written(url: str, odd: str):
    async def work() -> None:
        async with auditing(url) as audit:
            target = Target(type="function", tenant=odd, namespace=odd, name=odd, request=odd)
            audit.decision("anonymous", "invoke", target, Denied("bad name"))
        (row,) = rows(url)
        assert row.name.isprintable()

    go(work())


@needs_postgres
def test_an_error_of_the_database_does_not_tell_the_password():
    table = AuditTable(f"postgresql://inferx:{PASSWORD}@127.0.0.1:1/postgres")
    with pytest.raises(AuditDatabaseError) as caught:
        table.prepare()
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)
    table.close()


@pytest.mark.parametrize("wrong", ["", "nothing", "mysql://u:hunter2@h/d", "sqlite://"])
def test_what_is_no_database_is_refused_in_one_line(wrong: str):
    with pytest.raises(AuditDatabaseError) as caught:
        AuditTable(wrong)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_is_its_owners_alone_and_another_programs_is_left_alone(tmp_path: Path):
    path = tmp_path / "audit.db"
    table = AuditTable(f"sqlite:///{path}")
    table.prepare()
    table.close()
    assert path.stat().st_mode & 0o077 == 0
    other = tmp_path / "text"
    other.write_text("not a database, but a text of some length\n" * 40)
    table = AuditTable(f"sqlite:///{other}")
    with pytest.raises(AuditDatabaseError, match="not a database"):
        table.prepare()
    table.close()
    assert other.read_text().startswith("not a database, but")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version FROM inferx_audit_schema").fetchall() == [(2,)]
    connection.close()

"""The etcd store beside what the suite holds every store to: members lost, users, TLS, progress."""

import asyncio
import itertools
from contextlib import aclosing
from pathlib import Path

import pytest
import trustme
from etcd_server import Member, cluster, etcdctl, missing_etcd
from stores import put, take

from inferx.exec.clock import WallClock
from inferx.exec.state.etcd import watch
from inferx.exec.state.etcd.client import Client, Login
from inferx.exec.state.etcd.store import EtcdStore
from inferx.exec.state.opening import credentials_of, open_store
from inferx.exec.state.store import (
    ABSENT,
    Bookmark,
    Committed,
    Expect,
    Put,
    Store,
    StoreError,
    UnavailableError,
)

pytestmark = pytest.mark.skipif(bool(missing_etcd()), reason=missing_etcd())


DEADLINE_S = 2.0


def store_of(members: list[Member], login: Login | None = None) -> EtcdStore:
    endpoints = [member.endpoint for member in members]
    return EtcdStore(Client(endpoints, login=login, deadline_s=DEADLINE_S))


async def refusal(store: Store) -> str:
    """Return why a store does not read, and close it."""
    with pytest.raises(StoreError) as caught:
        await store.get("/a")
    await store.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


WRITERS = 4


class Load:
    """Writers and a watcher that go on whatever happens to members."""

    def __init__(self, store: Store, lease) -> None:
        self.store = store
        self.lease = lease
        self.done_by: list[dict[str, int | None]] = [{} for _ in range(WRITERS)]
        self.seen: dict[str, int] = {}
        self.stopping = False

    async def write(self, writer: int) -> None:
        for turn in itertools.count():
            if self.stopping:
                return
            key = f"/load/{writer}/{turn:05}"
            while True:
                try:
                    revision = await self.store.commit([Expect(key, ABSENT)], [Put(key, b"x")])
                except UnavailableError:
                    continue
                # None: an attempt that seemed to fail was done.
                self.done_by[writer][key] = revision
                break

    async def keep_alive(self) -> None:
        while not self.stopping:
            try:
                await self.store.keep_alive(self.lease)
            except UnavailableError:
                continue
            await asyncio.sleep(0.2)

    async def watch(self, after: int) -> None:
        while True:
            try:
                async with aclosing(self.store.watch("/load/", after)) as items:
                    async for item in items:
                        assert item.revision >= after
                        after = item.revision
                        if isinstance(item, Committed):
                            for change in item.changes:
                                assert change.key not in self.seen
                                self.seen[change.key] = item.revision
                        if "/load/last" in self.seen:
                            return
            except UnavailableError:
                continue

    async def some_more(self) -> None:
        """Wait until every writer is answered for commits made from now on."""
        counts = [len(keys) for keys in self.done_by]
        async with asyncio.timeout(20):
            for keys, count in zip(self.done_by, counts, strict=True):
                while len(keys) < count + 5:  # noqa: ASYNC110 - a number, no event.
                    await asyncio.sleep(0.01)


async def test_each_member_in_turn_may_be_killed_and_no_commit_is_lost():
    with cluster(3) as members:
        store = store_of(members)
        lease = await store.grant(20.0)
        begin = await store.commit([], [Put("/alive", b"", lease)])
        assert begin
        load = Load(store, lease)
        watching = asyncio.create_task(load.watch(begin))
        tasks = [asyncio.create_task(load.write(writer)) for writer in range(WRITERS)]
        tasks.append(asyncio.create_task(load.keep_alive()))
        await load.some_more()
        for member in members:
            member.stop()
            await load.some_more()
            member.start()
            await asyncio.to_thread(member.await_up)
            await load.some_more()
        load.stopping = True
        await asyncio.gather(*tasks)
        await put(store, "/load/last", b"")
        listing = await store.list("/load/")
        there = {entry.key: entry.modified for entry in listing.entries}
        for done in load.done_by:
            assert there.keys() >= done.keys()
            assert all(there[key] == at for key, at in done.items() if at is not None)
        await watching
        assert load.seen == there
        assert await store.get("/alive")
        await store.close()


async def test_without_a_majority_every_call_says_so_in_time_and_goes_on_when_it_is_back():
    with cluster(3) as members:
        store = store_of(members)
        await put(store, "/a", b"1")
        for member in members[:2]:
            member.stop()
        calls = (
            store.get("/a"),
            store.list("/"),
            put(store, "/b", b""),
            take(store.watch("/", 1), 5),
        )
        async with asyncio.timeout(DEADLINE_S + 2):
            answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            assert isinstance(answer, UnavailableError)
            assert "\n" not in str(answer)
        members[0].start()
        await asyncio.to_thread(members[0].await_up)
        async with asyncio.timeout(20):
            while True:
                try:
                    entry = await store.get("/a")
                    break
                except UnavailableError:
                    continue
        assert entry
        assert entry.value == b"1"
        await store.close()


async def test_nobody_there_is_one_line_within_the_deadline():
    store = EtcdStore(Client(["127.0.0.1:1", "127.0.0.1:2"], deadline_s=0.5))
    for call in (store.get("/a"), anext(store.watch("/", 0))):
        with pytest.raises(UnavailableError, match=r"etcd at 127\.0\.0\.1:1, .*refused"):
            async with asyncio.timeout(2):
                await call
    await store.close()


async def restart(member: Member) -> None:
    """Let a member begin anew: tokens are in its memory only."""
    await asyncio.to_thread(member.stop)
    member.start()
    await asyncio.to_thread(member.await_up)


async def test_a_user_logs_in_and_again_when_the_token_is_gone(tmp_path: Path):
    with cluster() as [member]:
        etcdctl(member, "user", "add", "root:correct horse")
        etcdctl(member, "user", "grant-role", "root", "root")
        etcdctl(member, "user", "add", "tenant:pony")
        etcdctl(member, "role", "add", "tenant")
        etcdctl(member, "role", "grant-permission", "tenant", "readwrite", "/t1/", "--prefix=true")
        etcdctl(member, "user", "grant-role", "tenant", "tenant")
        etcdctl(member, "auth", "enable")
        store = store_of([member], Login("root", "correct horse"))
        revision = await put(store, "/a", b"1")
        lease = await store.grant(60.0)
        await store.keep_alive(lease)
        await restart(member)
        assert await store.commit([Expect("/a", revision)], [Put("/a", b"2")])
        await restart(member)
        async with aclosing(store.watch("/", revision)) as items:
            assert len(await take(items, 1)) == 1
        await restart(member)
        await store.keep_alive(lease)
        await store.close()
        for login in (None, Login("root", "WRONG"), Login("nobody", "WRONG")):
            with pytest.raises(StoreError):
                await take(store_of([member], login).watch("/", revision), 1)
            assert "WRONG" not in await refusal(store_of([member], login)) + repr(login)
        tenant = store_of([member], Login("tenant", "pony"))
        revision = await tenant.commit([Expect("/t1/a", ABSENT)], [Put("/t1/a", b"")])
        assert revision
        assert await tenant.commit([Expect("/t1/a", ABSENT)], []) is None
        assert len((await tenant.list("/t1/")).entries) == 1
        async with aclosing(tenant.watch("/t1/", revision)) as items:
            assert await anext(items) == Bookmark(revision)
        for call in (tenant.list("/t10/"), tenant.list("/"), anext(tenant.watch("/", revision))):
            with pytest.raises(StoreError, match="permission denied"):
                await call
        await tenant.close()
        password = tmp_path / "password"
        password.write_text("correct horse\n")
        url = f"etcd://{member.endpoint}?user=root&password-file={password}"
        store = await open_store(url, WallClock())
        assert await store.get("/a")
        await store.close()


async def test_tls_both_ways(tmp_path: Path):
    authority = trustme.CA()
    pem = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "server", "client", "other")}
    authority.cert_pem.write_to_path(pem["ca"])
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem["server"])
    authority.issue_cert("us@inferx").private_key_and_cert_chain_pem.write_to_path(pem["client"])
    trustme.CA().cert_pem.write_to_path(pem["other"])
    arguments = [
        f"--cert-file={pem['server']}",
        f"--key-file={pem['server']}",
        f"--trusted-ca-file={pem['ca']}",
        "--client-cert-auth",
    ]
    with cluster(arguments=arguments, tls=True) as [member]:
        ours = f"cert={pem['client']}&key={pem['client']}"
        url = f"etcds://{member.endpoint}?ca={pem['ca']}"
        store = await open_store(f"{url}&{ours}", WallClock())
        assert await put(store, "/a", b"1")
        await store.close()
        wrong = (
            None,
            credentials_of("etcds", {"ca": pem["ca"]}),
            credentials_of(
                "etcds", {"ca": pem["other"], "cert": pem["client"], "key": pem["client"]}
            ),
        )
        for credentials in wrong:
            client = Client([member.endpoint], credentials=credentials, deadline_s=0.5)
            assert member.endpoint in await refusal(EtcdStore(client))


async def test_a_silent_watch_asks_how_far_etcd_is(monkeypatch):
    # The race of older versions needs load: a silent one answers in order as well.
    monkeypatch.setattr(watch, "IN_ORDER", {(3, 4): (3, 4, 0)})
    with cluster(arguments=["--experimental-watch-progress-notify-interval=10m"]) as [member]:
        store = EtcdStore(Client([member.endpoint]), bookmark_s=0.1)
        begin = await put(store, "/a/b", b"")
        async with aclosing(store.watch("/a/", begin)) as items:
            assert await anext(items) == Bookmark(begin)
            elsewhere = await put(store, "/elsewhere", b"")
            while (item := await anext(items)) == Bookmark(begin):
                pass
            assert item == Bookmark(elsewhere)
            revision = await put(store, "/a/b", b"")
            assert [each.revision for each in await take(items, 1)] == [revision]
        await store.close()


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("interval", ["100ms", "10m"])
async def test_a_watch_over_which_nothing_is_written_is_heard_of(monkeypatch, asked, interval):
    monkeypatch.setattr(watch, "IN_ORDER", {(3, 4): (3, 4, 0 if asked else 99)})
    arguments = [f"--experimental-watch-progress-notify-interval={interval}"]
    with cluster(arguments=arguments) as [member]:
        store = EtcdStore(Client([member.endpoint]), bookmark_s=0.2)
        begin = await put(store, "/a/b", b"")
        async with asyncio.timeout(20), aclosing(store.watch("/a/", begin)) as items:
            assert [await anext(items) for _ in range(4)] == [Bookmark(begin)] * 4
            revision = await put(store, "/a/b", b"")
            assert [each.revision for each in await take(items, 1)] == [revision]
        await store.close()


@pytest.mark.parametrize(
    ("version", "in_order"),
    [
        ("3.3.9", False),
        ("3.4.23", False),
        ("3.4.31", True),
        ("3.5.12", False),
        ("3.5.13", True),
        ("3.5.13-rc.0", True),
        ("3.6.0", True),
        ("4.0.0", True),
        ("unknown", False),
    ],
)
def test_only_versions_that_answer_in_order_are_asked(version, in_order):
    assert watch.answers_in_order(version) is in_order

"""A whole gateway and those who mean it ill: slow, malformed, oversized; others are served on."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from api_bed import Bed, bed, function
from hypothesis import given
from hypothesis import strategies as st

from inferx.exec.gateway.limits import HttpLimits

START_S = 20.0
READ_S = 20.0


class Served:
    """A gateway that runs beside a test, on a loop of its own."""

    def __init__(self, made: Bed, loop: asyncio.AbstractEventLoop, log: list[str]) -> None:
        self.bed = made
        self.loop = loop
        host, _, port = made.url.removeprefix("http://").rpartition(":")
        self.place = host, int(port)

    def do(self, work: Any) -> Any:
        """Run a coroutine where the gateway runs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(START_S)

    def serves(self) -> None:
        """The gateway answers somebody who means it well."""
        told = self.do(self.bed.ask("GET", "/objects/function/t1/", self.bed.admin))
        assert (told.status, [one["name"] for one in told.told["objects"]]) == (200, ["f"])
        assert self.do(self.bed.ask("GET", "/healthz")).status == 200


@contextmanager
def served(**limits: float) -> Iterator[Served]:
    begun = threading.Event()
    made: list[Served] = []
    stops: list[asyncio.Event] = []

    async def main() -> None:
        bounds = HttpLimits(**limits)  # type: ignore[arg-type]
        async with bed(limits=bounds) as one:
            await one.ask("PUT", "/object/", one.admin, function("f"))
            stops.append(asyncio.Event())
            made.append(Served(one, asyncio.get_running_loop(), []))
            begun.set()
            await stops[0].wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert begun.wait(START_S)
        yield made[0]
    finally:
        if made:
            made[0].loop.call_soon_threadsafe(stops[0].set)
        thread.join()


@pytest.fixture(scope="module")
def whole() -> Iterator[Served]:
    with served(header_s=1.0, keep_alive_s=1.0, body_idle_s=0.5) as one:
        yield one


def said(place: tuple[str, int], raw: bytes) -> bytes:
    """Send bytes, and the end; return all that is said to it."""
    with socket.create_connection(place, timeout=READ_S) as client:
        try:
            client.sendall(raw)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            # It was refused before it was through.
            pass
        told = b""
        try:
            while piece := client.recv(65_536):
                told += piece
        except ConnectionResetError:
            pass
        return told


METHODS = [b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"PATCH", b"BREW", b"get", b""]
PATHS = [
    b"/", b"/v1/models", b"/v1/completions", b"/v1/chat/completions", b"/funccall/t1/n/f/x",
    b"/funccall/t1/n/f/../../../../v1", b"/funccall//n/f/", b"/funccall/t1/n", b"/object/",
    b"/objects/function/t1/", b"/apikey/", b"/%00", b"/%ff%fe", b"//", b"*", b"http://x/v1/models",
    b"/objects/function/?watch=1&after=99999999999999999999", b"/readyz", b"/" + b"a" * 9000,
]  # fmt: skip
HEADERS = [
    b"Host: x", b"Host: ", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 5, 6",
    b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity", b"Connection: upgrade",
    b"Upgrade: websocket", b"Expect: 100-continue", b"Authorization: Bearer ",
    b"Authorization: \xff",
    b"Authorization: Bearer ix_" + b"0" * 16 + b"_" + b"0" * 64, b"Authorization: Basic YTpi",
    b"Authorization: Bearer a.b.c", b"X-Inferx-Timeout: nan", b"X-Inferx-Timeout: 1e999",
    b" folded", b"No colon", b": no name", b"A\0B: c", b"X: \x01", b"Accept: text/event-stream",
    b"Content-Type: application/json",
]  # fmt: skip
BODIES = [
    b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff1\r\n", b"-1\r\n", b"0\r\n\r\n",
    b'{"model": "t1/n/f"}', b'{"model": ' + b"[" * 3000, b"\xff\xfe\0", b'{"model": "\\ud800"}',
    b"{" * 5000,
]  # fmt: skip
requests = st.tuples(
    st.sampled_from(METHODS),
    st.sampled_from(PATHS) | st.binary(max_size=30),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"FTP/1.1", b""]),
    st.lists(st.sampled_from(HEADERS) | st.binary(max_size=30), max_size=4),
    st.sampled_from(BODIES) | st.binary(max_size=60),
).map(
    lambda one: (
        b" ".join(one[:3]) + b"\r\n" + b"".join(h + b"\r\n" for h in one[3]) + b"\r\n" + one[4]
    )
)


@given(st.binary(max_size=300) | requests | st.tuples(requests, requests).map(b"".join))
def test_whatever_comes_is_answered_by_no_5xx_and_ends_nothing(whole: Served, raw: bytes):
    told = said(whole.place, raw)
    for line in told.split(b"\r\n"):
        if line.startswith(b"HTTP/1.1 ") and line[9:12].isdigit():
            status = int(line[9:12])
            # Nobody leads here, and some of what is asked takes a leader.
            assert status < 500 or b"no_leader" in told, told
    whole.serves()


def test_a_crowd_that_drips_heads_and_bodies_is_got_rid_of_while_others_are_served(whole: Served):
    crowd = 150
    head = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n"
    body = (
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
        b"Authorization: Bearer " + whole.bed.admin.encode() + b"\r\n\r\n"
    )
    nobody = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n"
    clients = [
        (socket.create_connection(whole.place, timeout=READ_S), start, drip)
        for _ in range(crowd // 3)
        for start, drip in ((head, b"X-A: b\r\n"), (body, b" "), (nobody, b" "))
    ]
    try:
        for client, start, _ in clients:
            client.sendall(start)
        open_ones = [(client, drip) for client, _, drip in clients]
        rounds = 0
        while open_ones:
            rounds += 1
            # Each of them sends for far longer than any is listened to.
            assert rounds < 400
            open_ones = [one for one in open_ones if dripped(*one)]
            if rounds % 10 == 0:
                whole.serves()
    finally:
        for client, _, _ in clients:
            client.close()
    whole.serves()


def dripped(client: socket.socket, drip: bytes) -> bool:
    """Send a little; return whether the other side still listens."""
    try:
        client.sendall(drip)
        client.settimeout(0.001)
        while client.recv(4096):
            pass
    except TimeoutError:
        return True
    except OSError:
        pass
    return False


def test_more_connections_than_there_may_be_are_told_so_and_those_there_are_served():
    with served(connections=20) as one:
        idle = [socket.create_connection(one.place, timeout=READ_S) for _ in range(30)]
        try:
            refused = [client for client in idle if refused_at_once(client)]
            assert len(refused) >= 10
        finally:
            for client in idle:
                client.close()
        one.serves()


def refused_at_once(client: socket.socket) -> bool:
    client.settimeout(0.5)
    try:
        return b"too_many_connections" in client.recv(4096)
    except TimeoutError:
        return False


@pytest.mark.parametrize("path", [b"/object/", b"/apply/", b"/apikey/"])
def test_a_body_that_is_too_large_is_refused(whole: Served, path: bytes):
    head = b"PUT " if path != b"/apply/" else b"POST "
    sent = (
        head + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Authorization: Bearer " + whole.bed.admin.encode() + b"\r\n"
        b"Content-Length: 9000000\r\n\r\n" + b"x" * 9_000_000
    )
    told = said(whole.place, sent)
    assert told.startswith(b"HTTP/1.1 413") or told == b"", told[:200]
    whole.serves()

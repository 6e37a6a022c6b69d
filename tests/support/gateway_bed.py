"""A gateway on loopback over a real router, scripted pods, and clients of raw HTTP.

What stands in is the scheduler alone: it grants the pods that a test names, when asked.
"""

import asyncio
import re
import socket
from contextlib import asynccontextmanager

import uvloop

from inferx.core.commands import AskLease
from inferx.core.events import LeaseGranted, RequestFinished
from inferx.core.machine.router import Router
from inferx.core.rng import stream
from inferx.core.types import FunctionId, FunctionSpec, LeaseId, PodId, RouterId
from inferx.core.units import NS_PER_S
from inferx.exec.clock import WallClock
from inferx.exec.driver import Driver
from inferx.exec.gateway.choices import Choices
from inferx.exec.gateway.dispatch import FunctionName, RouterDispatch, Target
from inferx.exec.gateway.limits import HttpLimits
from inferx.exec.gateway.requests import Requests
from inferx.exec.gateway.server import Gateway
from inferx.exec.identity.principal import Principal
from inferx.load import load_bundle

LIMIT_S = 30.0
CALL = "/funccall/t/n/f"


def run(main):
    """Run a test's coroutine as the gateway is run."""

    async def bounded():
        async with asyncio.timeout(4 * LIMIT_S):
            return await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


async def until(what):
    """Wait until something holds."""
    async with asyncio.timeout(LIMIT_S):
        while not what():  # noqa: ASYNC110  # whatever a test can see, which tells nobody
            await asyncio.sleep(0.005)


class Pass:
    def __init__(self):
        self.tokens = []

    def ended(self, usage):
        self.tokens.append(usage.output_tokens)


class Bed:
    """What a test holds: the gateway, its router, and what went wrong."""

    def __init__(self, addresses, models, *, slots, queue_len, queue_timeout_s):
        self.spec = FunctionSpec(
            name="f",
            hbm_bytes=1,
            device_bytes=1,
            host_bytes=1,
            weight_bytes=1,
            slots=slots,
            queue_len=queue_len,
            queue_timeout_ns=int(queue_timeout_s * NS_PER_S),
        )
        choices = Choices()
        bundle = choices.watched(load_bundle("plain"))
        self.router = Router(RouterId(0), [self.spec], bundle, stream(1, "r"))
        self.clock = WallClock()
        self.driver = Driver("router", self.router, self.clock, self)
        self.addresses = dict(enumerate(addresses))
        self.free = list(self.addresses)
        self.granting = True
        self.leases = 0
        self.asked = []
        """The traces of questions for a pod, as the scheduler would be told them."""
        self.models = models
        self.faults = []
        self.finished = []
        self.passes = Pass()
        self.denied = None
        self.unknown = None
        self.dispatch = RouterDispatch(
            self.post,
            self.clock,
            function=self.function,
            address=self.addresses.get,
            among=choices.take,
        )

    # -- the router's world ---
    def post(self, event):
        if isinstance(event, RequestFinished):
            self.finished.append(event.output_tokens)
        self.driver.post(event)

    async def persist(self, records):
        raise AssertionError("a router persists nothing")

    def send(self, command):
        if self.dispatch.take(command) or not isinstance(command, AskLease):
            return
        self.asked.append(self.requests.trace_of(FunctionName("t", "n", "f")))
        if self.granting:
            self.grant()

    def grant(self):
        if self.free:
            self.leases += 1
            pod = PodId(self.free.pop(0))
            lease = LeaseId(self.leases)
            granted = LeaseGranted(lease, FunctionId(0), pod, self.spec.slots, cold=True)
            self.requests.records.granted(pod, self.clock.now_ns(), cold=True)
            self.dispatch.granted(granted)
            self.driver.post(granted)

    # -- what the gateway asks ---
    def function(self, name):
        known = name == FunctionName("t", "n", "f")
        return Target(FunctionId(0), self.spec.queue_timeout_ns) if known else None

    async def who(self, head):
        return self.unknown or Principal("key:test")

    def enter(self, who, head, function):
        return self.denied or self.passes

    def find(self, model):
        return FunctionName("t", "n", "f") if model in self.models else None

    async def visible(self, head):
        return self.models

    # -- clients ---
    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, method="GET", path=CALL + "/x", headers=(), body=b""):
        """Send one request on a connection of its own; return the whole answer."""
        reader, writer = await self.connect()
        try:
            writer.write(request(method, path, headers, body))
            return await answer(reader, head_only=method == "HEAD")
        finally:
            writer.close()


@asynccontextmanager
async def gateway(
    *addresses,
    models=("tiny",),
    slots=8,
    queue_len=100,
    queue_timeout_s=LIMIT_S,
    recorder=None,
    tls=None,
    **limits,
):
    """Serve `t/n/f` from pods at `addresses`; every request must have ended when it is left."""
    bed = Bed(addresses, models, slots=slots, queue_len=queue_len, queue_timeout_s=queue_timeout_s)
    limits = HttpLimits(**{"drain_s": 1.0, **limits})
    bed.requests = Requests(bed.clock, recorder=recorder)
    bed.gateway = Gateway(
        bed.dispatch,
        bed,
        bed,
        limits,
        bed.requests,
        fault=lambda error, record: bed.faults.append(error),
    )
    driving = asyncio.create_task(bed.driver.run())
    bed.port = await bed.gateway.listen("127.0.0.1", 0, tls=tls)
    try:
        yield bed
        assert bed.faults == []
    finally:
        await bed.gateway.drain()
        await asyncio.sleep(0.01)
        driving.cancel()
    r = bed.router
    assert r.waiting() == r.running() == bed.dispatch.waiting == bed.dispatch.running == 0
    assert r.arrived == r.finished + r.failed + r.refused + r.cancelled


class Answer:
    """A parsed answer; `raw` is its head as it came."""

    def __init__(self, raw, body, *, whole):
        self.raw = raw
        self.body = body
        self.whole = whole
        self.status = int(raw.split(b" ", 2)[1])
        lines = raw.split(b"\r\n")[1:]
        self.headers = [tuple(line.decode().split(": ", 1)) for line in lines if line]

    def __getitem__(self, name):
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[0] if found else None


def request(method, path, headers=(), body=b"", *, chunks=None):
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway.test", *headers]
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks if one) + b"0\r\n\r\n"
    elif body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def answer(reader, *, head_only=False):
    """Read one answer; `whole` is False where it was cut off."""
    async with asyncio.timeout(LIMIT_S):
        raw = await reader.readuntil(b"\r\n\r\n")
        while raw.startswith(b"HTTP/1.1 100"):
            raw = await reader.readuntil(b"\r\n\r\n")
        body, whole = bytearray(), True
        try:
            if head_only or raw.split(b" ", 2)[1] in {b"204", b"304"}:
                pass
            elif re.search(rb"(?i)transfer-encoding: chunked", raw):
                async for piece in chunks(reader):
                    body += piece
            elif length := re.search(rb"(?i)content-length: (\d+)", raw):
                body += await reader.readexactly(int(length[1]))
            else:
                body += await reader.read()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            whole = False
        return Answer(raw, bytes(body), whole=whole)


async def chunks(reader):
    """Yield the pieces of a chunked body."""
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        piece = await reader.readexactly(size + 2)
        if not size:
            return
        yield piece[:-2]


class Asked:
    """A request as a pod got it."""

    def __init__(self, raw, body):
        self.raw = raw
        self.body = body
        self.line = raw.split(b"\r\n")[0].decode("latin-1")
        self.headers = Answer(b"HTTP/1.1 200 OK\r\n" + raw.split(b"\r\n", 1)[1], b"", whole=True)


class Pod:
    """A scripted pod: `script(asked, reader, writer)` answers each request."""

    def __init__(self, script, *, read_body=True):
        self.script = script
        self.read_body = read_body
        self.asked = []
        self.connections = 0
        self.left = 0
        self.tasks = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        self.connections += 1
        try:
            while True:
                raw = await reader.readuntil(b"\r\n\r\n")
                body = b""
                if self.read_body:
                    if re.search(rb"(?i)transfer-encoding: chunked", raw):
                        body = b"".join([piece async for piece in chunks(reader)])
                    elif length := re.search(rb"(?i)content-length: (\d+)", raw):
                        body = await reader.readexactly(int(length[1]))
                asked = Asked(raw, body)
                self.asked.append(asked)
                await self.script(asked, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left += 1
        finally:
            self.tasks.discard(asyncio.current_task())
            writer.close()


def told(body=b"{}", status=b"200 OK", *headers):
    """Return a script that always answers the same."""
    head = b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n"

    async def script(asked, reader, writer):
        lines = b"".join(line + b"\r\n" for line in headers)
        writer.write(head % (status, lines, len(body)) + body)

    return script


async def echo(asked, reader, writer):
    """Answer with the body that came."""
    await told(asked.body)(asked, reader, writer)


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(piece):
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def dead_address():
    """Return where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"

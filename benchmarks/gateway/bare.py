"""The floor in Python: two asyncio protocols over httptools. python -m benchmarks.gateway.bare PORT

Right, but without a timeout or a limit, and with no task: callbacks alone.
"""

import asyncio
import os
import sys

import httptools
import uvloop

from benchmarks.gateway.hops import HOPS

UPSTREAM = os.environ["UPSTREAM"]
HOST, UPORT = UPSTREAM.split(":")
POOL = []


class Down(asyncio.Protocol):
    """A client's connection."""

    def connection_made(self, transport):
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.up = None
        self.waiting = bytearray()
        self.alive = True

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_message_begin(self):
        self.url = b""
        self.headers = []
        self.chunked = False

    def on_url(self, url):
        self.url += url

    def on_header(self, name, value):
        low = name.lower()
        if low == b"transfer-encoding":
            self.chunked = True
        if low not in HOPS:
            self.headers.append(name + b": " + value + b"\r\n")

    def on_headers_complete(self):
        head = self.parser.get_method() + b" " + self.url + b" HTTP/1.1\r\nHost: "
        head += UPSTREAM.encode() + b"\r\n" + b"".join(self.headers)
        if self.chunked:
            head += b"Transfer-Encoding: chunked\r\n"
        self.waiting += head + b"\r\n"
        while POOL:
            self.up = POOL.pop()
            if self.up.alive:
                break
            self.up = None
        if self.up is not None:
            self.up.down = self
        else:
            self.opening = asyncio.ensure_future(self.open())

    async def open(self):
        loop = asyncio.get_running_loop()
        _, self.up = await loop.create_connection(Up, HOST, int(UPORT))
        self.up.down = self
        self.up.transport.write(bytes(self.waiting))
        self.waiting.clear()

    def on_body(self, body):
        if self.chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        self.waiting += body

    def on_message_complete(self):
        if self.chunked:
            self.waiting += b"0\r\n\r\n"
        if self.up is not None:
            self.up.transport.write(bytes(self.waiting))
            self.waiting.clear()

    def pause_writing(self):
        self.up.transport.pause_reading()

    def resume_writing(self):
        if self.up is not None:
            self.up.transport.resume_reading()

    def connection_lost(self, error):
        self.alive = False
        if self.up is not None:
            self.up.transport.close()


class Up(asyncio.Protocol):
    """A connection to the upstream."""

    def connection_made(self, transport):
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        self.alive = True
        self.down = None
        self.out = []

    def data_received(self, data):
        self.parser.feed_data(data)
        if self.out:
            down.transport.write(b"".join(self.out)) if (down := self.to) else None
            self.out.clear()
        if self.ended:
            self.ended = False
            POOL.append(self)

    ended = False

    def on_message_begin(self):
        self.headers = []
        self.chunked = True
        self.to = self.down

    def on_header(self, name, value):
        low = name.lower()
        if low == b"content-length":
            self.chunked = False
        if low not in HOPS:
            self.headers.append(name + b": " + value + b"\r\n")

    def on_headers_complete(self):
        status = self.parser.get_status_code()
        if status in {204, 304}:
            self.chunked = False
        if self.chunked:
            self.headers.append(b"Transfer-Encoding: chunked\r\n")
        self.out.append(b"HTTP/1.1 %d OK\r\n%b\r\n" % (status, b"".join(self.headers)))

    def on_body(self, body):
        self.out.append(b"%x\r\n%b\r\n" % (len(body), body) if self.chunked else body)

    def on_message_complete(self):
        if self.chunked:
            self.out.append(b"0\r\n\r\n")
        self.ended = True
        self.down.up = None
        self.down = None

    def connection_lost(self, error):
        self.alive = False
        if self.down is not None:
            self.down.transport.close()


async def main():
    loop = asyncio.get_running_loop()
    await loop.create_server(Down, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await asyncio.Event().wait()


if "--asyncio" in sys.argv:
    asyncio.run(main())
else:
    uvloop.run(main())

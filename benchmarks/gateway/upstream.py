"""What is forwarded to: 200 tokens as events. python -m benchmarks.gateway.upstream PORT [HOST]

A token is a write of its own. `?pace_us=` is the time between two; 0 writes one a turn of the loop.
"""

import asyncio
import sys

import httptools
import uvloop

TOKENS = 200
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"token "}}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(TOKEN), TOKEN)
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class Peer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.loop = asyncio.get_running_loop()
        self.pace_s = 0.0

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_url(self, url):
        _, _, text = url.partition(b"pace_us=")
        self.pace_s = int(text or 0) / 1e6

    def on_message_complete(self):
        self.transport.write(HEAD)
        self.left = TOKENS
        self.due = self.loop.time()
        self.tell()

    def tell(self):
        if self.transport.is_closing():
            return
        self.transport.write(CHUNK)
        self.left -= 1
        if not self.left:
            self.transport.write(b"0\r\n\r\n")
        elif self.pace_s:
            self.due += self.pace_s
            self.loop.call_at(self.due, self.tell)
        else:
            self.loop.call_soon(self.tell)


async def main():
    loop = asyncio.get_running_loop()
    host = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
    await loop.create_server(Peer, host, int(sys.argv[1]), backlog=1024)
    await asyncio.Event().wait()


uvloop.run(main())

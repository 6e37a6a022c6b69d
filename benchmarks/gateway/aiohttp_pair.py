"""aiohttp's low-level server and its client. python -m benchmarks.gateway.aiohttp_pair PORT"""

import asyncio
import os
import sys

import aiohttp
import uvloop
from aiohttp import web
from yarl import URL

from benchmarks.gateway.hops import HOPS

UPSTREAM = os.environ["UPSTREAM"]
LEFT = {name.decode() for name in HOPS}


def kept(headers):
    return [(name, value) for name, value in headers.items() if name.lower() not in LEFT]


async def main():
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60),
    )

    async def forward(request):
        async with session.request(
            request.method,
            URL(f"http://{UPSTREAM}{request.raw_path}", encoded=True),
            headers=kept(request.headers),
            data=request.content.iter_any() if request.body_exists else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            response.headers.extend(kept(answer.headers))
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    runner = web.ServerRunner(web.Server(forward, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1]), backlog=1024).start()
    await asyncio.Event().wait()


uvloop.run(main())

"""Apps of ASGI that forward everything: `aiohttp_app`, `httpx_app`, `httpcore_app` by client.

The servers of ASGI run it: uvicorn, granian and hypercorn. UPSTREAM is host:port.
"""

import os

import aiohttp
import httpcore
import httpx
from yarl import URL

from benchmarks.gateway.hops import kept

UPSTREAM = os.environ["UPSTREAM"]
CLIENTS = {}


async def _body(receive):
    while True:
        message = await receive()
        if piece := message.get("body"):
            yield piece
        if not message.get("more_body"):
            return


def _target(scope):
    query = scope["query_string"]
    path = scope.get("raw_path") or scope["path"].encode()
    return path + b"?" + query if query else path


async def _begin(send, status, headers):
    await send({"type": "http.response.start", "status": status, "headers": kept(headers)})


async def _piece(send, piece):
    await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _end(send):
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _lifespan(receive, send):
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def aiohttp_app(scope, receive, send):
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    session = CLIENTS.get("aiohttp")
    if session is None:
        session = CLIENTS["aiohttp"] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60),
        )
    headers = [(name.decode(), value.decode("latin-1")) for name, value in kept(scope["headers"])]
    async with session.request(
        scope["method"],
        URL(f"http://{UPSTREAM}{_target(scope).decode()}", encoded=True),
        headers=headers,
        data=_body(receive),
        allow_redirects=False,
    ) as answer:
        await _begin(send, answer.status, answer.raw_headers)
        async for piece in answer.content.iter_any():
            await _piece(send, piece)
        await _end(send)


async def httpx_app(scope, receive, send):
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    client = CLIENTS.get("httpx")
    if client is None:
        client = CLIENTS["httpx"] = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            timeout=httpx.Timeout(60, connect=5),
            trust_env=False,
        )
    asked = client.build_request(
        scope["method"],
        f"http://{UPSTREAM}{_target(scope).decode()}",
        headers=kept(scope["headers"]),
        content=_body(receive),
    )
    answer = await client.send(asked, stream=True)
    try:
        await _begin(send, answer.status_code, answer.headers.raw)
        async for piece in answer.aiter_raw():
            await _piece(send, piece)
        await _end(send)
    finally:
        await answer.aclose()


async def httpcore_app(scope, receive, send):
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    pool = CLIENTS.get("httpcore")
    if pool is None:
        pool = CLIENTS["httpcore"] = httpcore.AsyncConnectionPool(
            max_connections=10_000, max_keepalive_connections=10_000
        )
    host, port = UPSTREAM.split(":")
    url = httpcore.URL(scheme=b"http", host=host.encode(), port=int(port), target=_target(scope))
    headers = [(b"Host", UPSTREAM.encode()), *kept(scope["headers"])]
    timeouts = {"connect": 5, "read": 60, "write": 60, "pool": 5}
    async with pool.stream(
        scope["method"].encode(),
        url,
        headers=headers,
        content=_body(receive),
        extensions={"timeout": timeouts},
    ) as answer:
        await _begin(send, answer.status, answer.headers)
        async for piece in answer.aiter_stream():
            await _piece(send, piece)
        await _end(send)

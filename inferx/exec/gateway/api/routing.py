"""A route as data: what is served, and what is said of it in the description."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from inferx.core.errors import UNDECODABLE, DescriptionError

__all__ = ["Parameter", "Route", "flag", "json_answer", "number", "read_struct"]

S = TypeVar("S", bound=msgspec.Struct)
Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Parameter(NamedTuple):
    """One of a query's."""

    name: str
    says: str
    schema: Mapping[str, Any]


class Route(NamedTuple):
    """One method of one path.

    Attributes:
        says: What it does, in a line.
        body: Name of the schema of its body; empty where it has none.
        answers: Name of the schema of what it answers, or a media type of something else.
        status: Of a good answer.
    """

    method: str
    path: str
    serve: Serve
    says: str
    query: tuple[Parameter, ...] = ()
    body: str = ""
    answers: str = "Any"
    status: int = 200
    is_open: bool = False


def json_answer(told: object, status: int = 200) -> web.Response:
    """Return an answer of JSON."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(told),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def flag(request: web.Request, name: str) -> bool:
    """Return whether a query's parameter is set.

    Raises:
        DescriptionError: It is neither 0 nor 1.
    """
    text = request.query.get(name, "0")
    if text not in {"0", "1"}:
        raise DescriptionError(f"?{name}={text[:40]!r}: expected 0 or 1")
    return text == "1"


def number(request: web.Request, name: str) -> int | None:
    """Return a query's parameter as a number from 0; None where there is none.

    Raises:
        DescriptionError: It is no such number.
    """
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise DescriptionError(f"?{name}={text[:40]!r}: expected a whole number from 0")
    return int(text)


async def read_struct(request: web.Request, kind: type[S]) -> S:
    """Return a request's body as a struct.

    Raises:
        DescriptionError: It is not one.
    """
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (*UNDECODABLE, RecursionError) as error:
        raise DescriptionError(f"the body: {error}") from error

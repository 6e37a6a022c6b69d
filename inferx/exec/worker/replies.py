"""How answers and errors go out as HTTP, and how numbers come in by the query."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from inferx.exec.worker.openai import ApiError, error_body
from inferx.exec.worker.slots import ClosedError, FullError

__all__ = ["errors", "reply", "seconds"]


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Tell errors in the API's shape; the one place where they get their status."""
    try:
        return await handler(request)
    except ApiError as error:
        told = error
    except FullError as error:
        told = ApiError(429, str(error), kind="rate_limit_error", code="queue_full")
    except ClosedError as error:
        told = ApiError(503, str(error), kind="service_unavailable", code="draining")
    except web.HTTPException as error:
        text = f"{request.method} {request.path}: {error.reason}"
        told = ApiError(error.status, text)
    return reply(error_body(told), told.status)


def reply(body: dict[str, Any], status: int = 200) -> web.Response:
    """Return JSON; who was turned away for now may ask again in a second."""
    headers = {"Retry-After": "1"} if status in {429, 503} else None
    encoded = msgspec.json.encode(body)
    return web.Response(
        body=encoded, status=status, headers=headers, content_type="application/json"
    )


def seconds(request: web.Request, key: str, default: float) -> float:
    """Return a time from the query, in seconds, up to an hour.

    Raises:
        ApiError: It is no such time.
    """
    text = request.query.get(key)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise ApiError(400, f"{key}={text[:40]}; expected seconds, from 0 to 3600", param=key)
    return value

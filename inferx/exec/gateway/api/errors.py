"""Every error of the API as an answer: the one place where classes become reasons."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from inferx.core.errors import DescriptionError
from inferx.exec.gateway.refusals import Refused, error_body, status_of
from inferx.exec.identity.audit import AuditUnavailableError
from inferx.exec.identity.key_desk import KeyRequestError
from inferx.exec.identity.role_desk import RoleRequestError
from inferx.exec.state.objects.errors import (
    AdmissionError,
    BusyError,
    ConflictError,
    ExistsError,
    ForbiddenError,
    LimitError,
    NotFoundError,
)
from inferx.exec.state.store import RefusedError, TooOldError, UnavailableError

__all__ = ["answer_errors", "refused_of", "told"]

_log = logging.getLogger(__name__)

_REASONS: Final[dict[type[BaseException], str]] = {
    DescriptionError: "bad request",
    KeyRequestError: "bad request",
    RoleRequestError: "bad request",
    RefusedError: "bad request",
    ForbiddenError: "forbidden",
    NotFoundError: "not found",
    ExistsError: "exists",
    ConflictError: "conflict",
    LimitError: "limit reached",
    AdmissionError: "not admitted",
    TooOldError: "too old",
    BusyError: "busy",
    UnavailableError: "store unavailable",
    AuditUnavailableError: "store unavailable",
}

_HTTP: Final = {
    404: "not found",
    405: "method not allowed",
    413: "body too large",
}


def refused_of(error: Exception) -> Refused:
    """Return how an error is told. A defect is logged, and told without what it says."""
    if isinstance(error, Refused):
        return error
    kind = next((kind for kind in type(error).__mro__ if kind in _REASONS), None)
    if kind is not None:
        return Refused(_REASONS[kind], str(error))
    _log.error("the API met a defect", exc_info=error)
    return Refused("internal error", "the gateway failed; it has been logged")


def told(why: Refused) -> web.Response:
    """Return the answer that tells a refusal, in OpenAI's shape."""
    headers: dict[str, str] = {}
    if why.retry_after_s is not None:
        headers["Retry-After"] = str(why.retry_after_s)
    if why.reason == "unauthenticated":
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        status=status_of(why.reason),
        body=error_body(why),
        content_type="application/json",
        headers=headers,
    )


@web.middleware
async def answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn what a route raises into its answer."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        why = Refused(
            _HTTP.get(error.status, "bad request"),
            f"{request.method} {request.path[:120]!r}: {error.reason}",
        )
        answer = told(why)
        if isinstance(error, web.HTTPMethodNotAllowed):
            answer.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return answer
    except Exception as error:  # noqa: BLE001  # one request's fault must not be another's
        return told(refused_of(error))

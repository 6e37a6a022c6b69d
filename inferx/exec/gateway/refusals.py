"""Why a request is not served, and how that is told: status, Retry-After, an OpenAI-shaped body."""

from typing import Final

import msgspec

from inferx.core.errors import InferXError

__all__ = ["REASONS", "Refused", "error_body", "status_of"]

REASONS: Final[dict[str, tuple[int, str]]] = {
    "bad request": (400, "invalid_request_error"),
    "unauthenticated": (401, "authentication_error"),
    "forbidden": (403, "permission_error"),
    "not found": (404, "not_found_error"),
    "model not found": (404, "not_found_error"),
    "function removed": (404, "not_found_error"),
    "method not allowed": (405, "invalid_request_error"),
    "request timeout": (408, "timeout_error"),
    "exists": (409, "conflict_error"),
    "conflict": (409, "conflict_error"),
    "not admitted": (409, "conflict_error"),
    "limit reached": (409, "conflict_error"),
    "too old": (410, "invalid_request_error"),
    "body too large": (413, "invalid_request_error"),
    "rate limited": (429, "rate_limit_error"),
    "quota exceeded": (429, "insufficient_quota"),
    "queue full": (429, "rate_limit_error"),
    "headers too large": (431, "invalid_request_error"),
    "internal error": (500, "server_error"),
    "pod failed": (502, "server_error"),
    "busy": (503, "service_unavailable"),
    "node unreachable": (503, "service_unavailable"),
    "no leader": (503, "service_unavailable"),
    "store unavailable": (503, "service_unavailable"),
    "draining": (503, "service_unavailable"),
    "too many connections": (503, "service_unavailable"),
    "queue timeout": (504, "timeout_error"),
    "pod timeout": (504, "timeout_error"),
}
"""Status and OpenAI's type of error, by reason. Others are the scheduler's: it has no room."""

_NO_ROOM = (503, "service_unavailable")
_RETRY_AFTER_S: Final = 1.0
"""Told with 429, 502 and 503 by those who know no better."""


class Refused(InferXError):  # noqa: N818 - an answer, which callers expect and act on.
    """A request is not served.

    Attributes:
        reason: From a small closed set; a label of metrics, and the error's code.
        retry_after_s: When to ask again; None leaves it to the reason.
    """

    def __init__(self, reason: str, message: str = "", retry_after_s: float | None = None) -> None:
        """Tell the reason, where there is no sentence."""
        super().__init__(message or reason)
        self.reason = reason
        self._retry_after_s = retry_after_s

    @property
    def retry_after_s(self) -> int | None:
        """Whole seconds, at least one; None where asking again does not help."""
        later = self._retry_after_s
        if later is None:
            if status_of(self.reason) not in {429, 502, 503}:
                return None
            later = _RETRY_AFTER_S
        return max(1, -int(-later // 1))


def status_of(reason: str) -> int:
    """Return the status that tells a reason: the one place where they are mapped."""
    return REASONS.get(reason, _NO_ROOM)[0]


def error_body(refused: Refused) -> bytes:
    """Return the error in OpenAI's shape."""
    kind = REASONS.get(refused.reason, _NO_ROOM)[1]
    error = {
        "message": str(refused),
        "type": kind,
        "param": None,
        "code": refused.reason.replace(" ", "_"),
    }
    return msgspec.json.encode({"error": error})

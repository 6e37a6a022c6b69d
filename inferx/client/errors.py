"""Why a client's call did not do what was asked."""

from inferx.core.errors import InferXError

__all__ = ["ClientError", "GoneError", "RefusedError", "UnreachableError", "WaitError"]


class ClientError(InferXError):
    """The base of all of them."""


class UnreachableError(ClientError):
    """The gateway did not answer, or with something that is no answer of a gateway."""


class RefusedError(ClientError):
    """The gateway answered that it does not do it.

    Attributes:
        status: Of the HTTP answer.
        code: The error's own, from a small closed set.
    """

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        """Keep what a caller can act on apart from the sentence."""
        super().__init__(message)
        self.status = status
        self.code = code


class GoneError(RefusedError):
    """There is no such thing."""


class WaitError(ClientError):
    """What was waited for did not come about in time."""

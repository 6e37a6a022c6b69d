"""What the SDK and the server say, as one line of ours: what is wrong, and what was expected.

Nothing of a request is in these lines but its bucket, key and operation: no header, no credential.
"""

from inferx.exec.agent.ports import AgentError

__all__ = ["GoneError", "NoAnswerError", "TakenError", "failure", "is_cut", "missing_sdk"]

_REFUSED = frozenset({
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId",
    "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired",
})  # fmt: skip
_DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "Forbidden", "403"})
_GONE = frozenset({"404", "NoSuchKey", "NoSuchUpload", "NotFound"})
_TAKEN = frozenset({"412", "PreconditionFailed", "ConditionalRequestConflict"})
_REGION = frozenset({
    "301", "400", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
    "PermanentRedirect",
})  # fmt: skip
_BUSY = frozenset({
    "500", "503", "InternalError", "RequestLimitExceeded", "ServiceUnavailable", "SlowDown",
})  # fmt: skip


class GoneError(AgentError):
    """There is no object of that key."""


class TakenError(AgentError):
    """There is an object of that key already."""


class NoAnswerError(AgentError):
    """The server was not reached, or not asked: it is not known what it would have said."""


def missing_sdk(title: str) -> NoAnswerError:
    """Return the error of a node without the SDK."""
    text = f"{title}: botocore is not installed; expected the extra s3: pip install 'inferx[s3]'"
    return NoAnswerError(text, phase="open")


def failure(error: Exception, what: str, *, bucket: str, region: str, phase: str) -> AgentError:
    """Return the error of ours for one of the SDK's.

    Args:
        error: A `BotoCoreError` or `ClientError`.
        what: What was tried, and where.
        bucket: Its name.
        region: As configured; empty is the SDK's choice.
        phase: Of the error.
    """
    from botocore.exceptions import ClientError

    if not isinstance(error, ClientError):
        return NoAnswerError(f"{what}: {_unanswered(error)}", phase=phase)
    told = error.response.get("Error", {})
    code, operation = str(told.get("Code", "")), error.operation_name
    if code == "NoSuchBucket":
        return AgentError(f"{what}: there is no bucket {bucket}", phase=phase)
    if code in _GONE:
        return GoneError(f"{what}: there is no such object", phase=phase)
    if code in _TAKEN:
        return TakenError(f"{what}: there is such an object already", phase=phase)
    if code in _REFUSED:
        return AgentError(f"{what}: the server refuses the credentials ({code})", phase=phase)
    if code in _DENIED:
        return AgentError(f"{what}: no permission for {operation}", phase=phase)
    if code in _REGION:
        meant = region or "the SDK's own"
        text = f"{what}: the bucket is in another region than {meant} ({code})"
        return AgentError(text, phase=phase)
    if code in _BUSY:
        return AgentError(f"{what}: the server is busy or broken ({code})", phase=phase)
    said = " ".join(str(told.get("Message", "")).split())[:200]
    return AgentError(f"{what}: {operation} failed: {code} {said}".rstrip(), phase=phase)


def _unanswered(error: Exception) -> str:
    from botocore import exceptions as sdk

    match error:
        case sdk.NoCredentialsError():
            return "no credentials; expected them in the environment, a file or the node's role"
        case sdk.PartialCredentialsError():
            return "half of the credentials are missing"
        case sdk.ProfileNotFound() | sdk.CredentialRetrievalError() | sdk.SSOError():
            return f"no credentials: {_line(error)}"
        case sdk.SSLError():
            return f"no secure connection: {_line(error)}"
        case sdk.ReadTimeoutError() | sdk.ConnectTimeoutError():
            return "the server did not answer in time"
        case sdk.EndpointConnectionError():
            return "the server cannot be reached"
        case sdk.HTTPClientError() | sdk.IncompleteReadError():
            return "the connection was cut"
        case _:
            return _line(error)


def is_cut(error: Exception) -> bool:
    """Whether an answer ended before its end, so that the rest can be asked for again."""
    from botocore import exceptions as sdk

    return isinstance(
        error, sdk.ReadTimeoutError | sdk.ResponseStreamingError | sdk.IncompleteReadError
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

"""The shapes of the OpenAI API: requests as they are read, answers and errors as they are written.

Fields that a request may have and that change nothing here (temperature, tools, user, ...) are
ignored; those that would promise something that is not done (`n` above 1, `logprobs`) are refused.
"""

import base64
import struct
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.worker.engine import Generation

__all__ = [
    "ApiError",
    "ChatRequest",
    "CompletionRequest",
    "EmbeddingRequest",
    "Usage",
    "embeddings",
    "error_body",
    "generation",
    "read",
]

COMPLETION_TOKENS = 16
"""What `/v1/completions` generates where `max_tokens` is absent, as the API has it."""
MAX_STOPS = 16
MAX_EMBEDDINGS = 2048

Positive = Annotated[int, msgspec.Meta(ge=1)]
Stops = str | Annotated[list[str], msgspec.Meta(max_length=MAX_STOPS)] | None
T = TypeVar("T", bound=msgspec.Struct)


class ApiError(Exception):
    """A request that is not served: told to the client in the API's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class _Common(msgspec.Struct, frozen=True, kw_only=True):
    """What both kinds of completion have."""

    model: str | None = None
    max_tokens: Positive | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    stop: Stops = None
    seed: int | None = None
    n: Positive | None = None
    logprobs: bool | int | None = None
    ignore_eos: bool = False
    """Of other servers of this API: generate all of `max_tokens`."""

    @property
    def stops(self) -> list[str]:
        """The stop texts, none or more."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def usage_in_stream(self) -> bool:
        """Whether the last chunk of a stream tells the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def check(self) -> None:
        """Refuse what would promise too much."""
        if self.n is not None and self.n > 1:
            raise ApiError(400, f"n is {self.n}; expected 1", param="n")
        if self.logprobs:
            raise ApiError(400, "logprobs are not computed here", param="logprobs")


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


class _Message(msgspec.Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None


class ChatRequest(_Common, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: Positive | None = None

    @property
    def prompt(self) -> str:
        """All messages as one text."""
        turns = [f"{message.role}: {_text(message)}\n" for message in self.messages]
        return "".join([*turns, "assistant:"])

    @property
    def tokens(self) -> int | None:
        """Tokens to generate at most; None is as many as the answer has."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Common, frozen=True, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=1)]
    echo: bool = False

    @property
    def text(self) -> str:
        """The one prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    @property
    def tokens(self) -> int:
        """Tokens to generate at most."""
        return self.max_tokens or COMPLETION_TOKENS


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/embeddings`."""

    input: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_EMBEDDINGS)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"

    @property
    def texts(self) -> list[str]:
        """One text or more."""
        return [self.input] if isinstance(self.input, str) else self.input


class Usage(msgspec.Struct, frozen=True):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int

    def body(self) -> dict[str, int]:
        """Return it as the API tells it."""
        total = self.prompt_tokens + self.completion_tokens
        return {**msgspec.structs.asdict(self), "total_tokens": total}


def read(kind: type[T], body: bytes) -> T:
    """Read a request's body; numbers and booleans may be texts, as engines take them.

    Raises:
        ApiError: Status 400, which says where in the body what was expected.
    """
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        param = where.strip("`").removeprefix("$").removeprefix(".") or None
        raise ApiError(400, f"{param}: {what}" if param else what, param=param) from error
    except (*UNDECODABLE, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error


def generation(
    request: ChatRequest | CompletionRequest, *, prompt: str, prompt_tokens: int, context: int
) -> Generation:
    """Return what to generate for a request.

    Raises:
        ApiError: Prompt and answer do not fit in the context.
    """
    room = context - prompt_tokens
    asked = request.tokens
    if room < (asked or 1):
        raise ApiError(
            400,
            f"this model's context is {context} tokens; the prompt has {prompt_tokens} and "
            f"{asked or 1} are to be generated",
            param="messages" if isinstance(request, ChatRequest) else "prompt",
            code="context_length_exceeded",
        )
    return Generation(
        prompt=prompt,
        seed=request.seed or 0,
        limit=asked or room,
        # Without a limit of its own, a request that ignores the end would fill the context.
        complete=request.ignore_eos and asked is not None,
    )


def embeddings(
    vectors: list[list[float]], *, tokens: int, model: str, encoding: str
) -> dict[str, Any]:
    """Return the answer to a request for embeddings."""
    rows = [
        {
            "object": "embedding",
            "index": index,
            "embedding": vector
            if encoding == "float"
            else base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode(),
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": model, "data": rows, "usage": usage}


def error_body(error: ApiError) -> dict[str, Any]:
    """Return an error as the API tells it."""
    told = {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}
    return {"error": told}


def _text(message: _Message) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    for part in message.content:
        if part.type != "text":
            raise ApiError(400, f"a message part of type {part.type!r}; expected text")
    return "".join(part.text for part in message.content)

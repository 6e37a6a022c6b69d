"""The gateway's URLs: what a path asks for."""

from functools import lru_cache
from typing import Final, NamedTuple

from inferx.exec.gateway.dispatch import FunctionName
from inferx.exec.gateway.refusals import Refused

__all__ = ["FUNCCALL", "ApiCall", "FunctionCall", "ModelCall", "Models", "nothing_here", "parse"]

FUNCCALL: Final = b"/funccall/"
_BY_MODEL: Final = frozenset((b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings"))
_ENGINE_CONTROL: Final = (
    *(b"sleep", b"wake_up"),  # vLLM
    *(b"release_memory_occupation", b"resume_memory_occupation"),  # SGLang
    *(b"inferx/quiesce", b"inferx/wake"),  # Our own worker, and what stands in.
)
"""What agents post to before and after they freeze a pod: it would hang for all of its callers."""


class FunctionCall(NamedTuple):
    """A call of a function by its name; `target` is path and query at the pod."""

    function: FunctionName
    target: bytes


class ModelCall(NamedTuple):
    """A call of a function by the model in the body."""

    target: bytes


class Models(NamedTuple):
    """A question for what may be called."""


class ApiCall(NamedTuple):
    """Anything else: the API's to answer, where there is one."""

    target: bytes


REMEMBERED: Final = 1024
"""Lines that are remembered: clients ask the same few over and over."""
REMEMBERED_BYTES: Final = 256
"""Of the longest of them."""


def parse(method: bytes, target: bytes) -> FunctionCall | ModelCall | Models | ApiCall:
    """Return what a request's line asks for.

    Raises:
        Refused: It calls a model or a function, and not as these are called.
    """
    return _parsed(method, target) if len(target) > REMEMBERED_BYTES else _known(method, target)


def _parsed(method: bytes, target: bytes) -> FunctionCall | ModelCall | Models | ApiCall:
    path, mark, query = target.partition(b"?")
    if path.startswith(FUNCCALL):
        parts = path[len(FUNCCALL) :].split(b"/", 3)
        if len(parts) < 3 or not all(parts[:3]):
            text = "expected /funccall/<tenant>/<namespace>/<function>/<path>"
            raise Refused("not found", f"{_shown(path)}: {text}")
        rest = parts[3] if len(parts) == 4 else b""
        if _plain(rest).startswith(_ENGINE_CONTROL):
            raise Refused("forbidden", f"{_shown(path)}: engines are put to sleep by the scheduler")
        try:
            tenant, namespace, function = (part.decode("ascii") for part in parts[:3])
        except UnicodeDecodeError:
            raise Refused("not found", f"{_shown(path)}: no such function") from None
        name = FunctionName(tenant, namespace, function)
        return FunctionCall(name, b"/" + rest + mark + query)
    if path == b"/v1/models":
        if method != b"GET":
            raise Refused("method not allowed", f"{_shown(path)}: expected GET")
        return Models()
    if path in _BY_MODEL:
        if method != b"POST":
            raise Refused("method not allowed", f"{_shown(path)}: expected POST")
        return ModelCall(target)
    return ApiCall(target)


_known = lru_cache(REMEMBERED)(_parsed)


def nothing_here(target: bytes) -> Refused:
    """Return the answer to a path that nobody serves."""
    return Refused("not found", f"{_shown(target.partition(b'?')[0])}: nothing is served here")


def _plain(rest: bytes) -> bytes:
    """Return a path as a lenient server would read it: decoded, without dots and slashes ahead."""
    decoded = rest
    for _ in range(2):
        decoded = _unquoted(decoded)
    kept: list[bytes] = []
    for part in decoded.lower().replace(b"\\", b"/").split(b"/"):
        if part == b"..":
            del kept[-1:]
        elif part not in {b"", b"."}:
            kept.append(part)
    return b"/".join(kept)


def _unquoted(text: bytes) -> bytes:
    first, *rest = text.split(b"%")
    out = [first]
    for piece in rest:
        try:
            out.append(bytes.fromhex(piece[:2].decode("ascii")) + piece[2:])
        except (ValueError, UnicodeDecodeError):
            out.append(b"%" + piece)
    return b"".join(out)


def _shown(path: bytes) -> str:
    return path[:120].decode("latin-1")

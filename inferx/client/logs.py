"""What pods wrote, as the gateway passes it on: whose there is, and the text as it comes."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from inferx.client.connection import Connection, read_line
from inferx.client.errors import RefusedError, UnreachableError

__all__ = ["ENDED", "Log", "read_log"]

ENDED: Final = "ended"
"""State of a pod that is gone, while its node keeps what it wrote."""
_LINES: Final = "application/x-ndjson"


class Log(NamedTuple):
    """A pod whose output its node keeps; the function as `tenant/namespace/name@version`."""

    pod: int
    function: str
    node: str
    state: str
    held_bytes: int


def read_log(
    connection: Connection, path: str, *, tail: int | None, follow: bool, stream: str
) -> Iterator[str]:
    """Return the text at a path, in pieces.

    Raises:
        RefusedError: It may not be read, or no longer.
        UnreachableError: It broke off.
    """
    query = {"follow": "1"} if follow else {}
    if tail is not None:
        query["tail"] = str(tail)
    if stream:
        query["stream"] = stream
    for line in connection.lines(path, query, accept=_LINES):
        told = read_line(path, line, of="it")
        match told.get("event"):
            case "text":
                if told.get("skipped_bytes"):
                    yield f"[{told['skipped_bytes']} bytes are no longer kept]\n"
                yield str(told["text"])
            case "error":
                error = told["error"]
                code = str(error.get("code", ""))
                raise RefusedError(str(error["message"]), status=200, code=code)
            case "end":
                return
            case _:
                continue  # A sign of life, or something newer.
    raise UnreachableError(f"{path}: it broke off")

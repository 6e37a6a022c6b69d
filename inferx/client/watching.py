"""Follows objects: what there is, then what changes, across gateways that come and go.

Laws:
1. Nothing is left out and nothing is told twice: a watch that breaks goes on after the last
   revision of which all was told.
2. A break is taken for the cluster's end when no gateway has answered `TRIES` times in a row.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from inferx.client.connection import Connection, read_line
from inferx.client.errors import RefusedError, UnreachableError
from inferx.client.names import Name

__all__ = ["Change", "follow"]

TRIES: Final = 30
PAUSE_S: Final = 1.0
_PASSING: Final = frozenset(("busy", "draining", "store_unavailable", "too_many_connections"))
"""Refusals of now, and not of the next try."""


class Change(NamedTuple):
    """What became of one object: `put`, with what it is now, or `delete`."""

    event: Literal["put", "delete"]
    name: Name
    object: Mapping[str, Any] | None = None


def follow(connection: Connection, path: str, query: Mapping[str, str]) -> Iterator[Change]:
    """Return changes as they come.

    Raises:
        RefusedError: Whoever asks may not, or no longer; or what came next is no longer kept.
        UnreachableError: No gateway answers.
    """
    after: dict[str, str] = {}
    failures = 0
    pending: list[Change] = []
    while True:
        pending.clear()
        try:
            for line in connection.lines(path, {**query, **after, "watch": "1"}):
                told = _read(path, line)
                match told.get("event"):
                    case "put" | "delete":
                        pending.append(_change(told))
                    case "bookmark":
                        failures = 0
                        after = {"after": str(told["revision"])}
                        yield from pending
                        pending.clear()
                    case "error":
                        raise _refused(told)
                    case _:
                        # A newer gateway may tell of more; what it is not told of is not missed.
                        continue
        except (UnreachableError, RefusedError) as error:
            failures += 1
            passes = isinstance(error, UnreachableError) or error.code in _PASSING
            if failures == TRIES or not after or not passes:
                raise
        else:
            failures += 1
            if failures == TRIES:
                raise UnreachableError(f"{path}: the watch ended {TRIES} times before it began")
        time.sleep(PAUSE_S)


def _read(path: str, line: str) -> Mapping[str, Any]:
    return read_line(path, line, of="the watch") if line else {}


def _change(told: Mapping[str, Any]) -> Change:
    if told["event"] == "put":
        one = told["object"]
        return Change("put", _name(one), one)
    return Change("delete", _name(told["key"]))


def _name(one: Mapping[str, str]) -> Name:
    return Name(one["type"], one["tenant"], one["namespace"], one["name"])


def _refused(told: Mapping[str, Any]) -> RefusedError:
    error = told["error"]
    return RefusedError(str(error["message"]), status=200, code=str(error.get("code", "")))

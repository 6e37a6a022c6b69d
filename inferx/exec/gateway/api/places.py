"""Where in the cluster a path is about, and what of a list lies there."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from aiohttp import web

from inferx.core.errors import DescriptionError
from inferx.exec.gateway.refusals import Refused
from inferx.spec.reference import is_name

__all__ = ["Named", "Row", "named", "only", "place_in", "within"]

Row = Mapping[str, Any]


class Named(NamedTuple):
    """A function's name, taken apart."""

    tenant: str
    namespace: str
    function: str
    version: str


def named(identity: str) -> Named:
    """Take `tenant/namespace/function@version` apart."""
    name, _, version = identity.rpartition("@")
    tenant, namespace, function = name.split("/")
    return Named(tenant, namespace, function, version)


def place_in(request: web.Request) -> Mapping[str, str]:
    """Return the names in a request's path.

    Raises:
        DescriptionError: One of them cannot be a name.
    """
    place = request.match_info
    for key in ("tenant", "namespace", "function"):
        if key in place and not is_name(place[key]):
            raise DescriptionError(f"{place[key][:40]!r}: no name of a {key}")
    return place


def within(request: web.Request, identity: str) -> bool:
    """Say whether a function lies where a path says."""
    place, of = request.match_info, named(identity)
    return all(
        place.get(key, getattr(of, key)) == getattr(of, key)
        for key in ("tenant", "namespace", "function")
    )


def only(found: Iterable[Row], what: str) -> Row:
    """Return the first.

    Raises:
        Refused: There is none.
    """
    for one in found:
        return one
    raise Refused("not found", f"{what}: not there")

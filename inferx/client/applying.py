"""Applies objects, and makes the tenants and namespaces first that they are to be in."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from inferx.client.cluster import Cluster
from inferx.client.errors import GoneError, RefusedError
from inferx.client.files import Stated
from inferx.client.names import SYSTEM, TYPES, Name

__all__ = ["NEW_TENANT_LIMITS", "Applied", "apply_all"]

NEW_TENANT_LIMITS: Final = {
    "max_funccount": 1_000,
    "max_replica": 64,
    "max_gpu": 1_000,
    "max_queue_len": 10_000,
    "min_replica_cap": 64,
    "max_standby": 64,
    "allow_mem_standby": True,
}
"""Of a tenant that is made because something is to be in it: room for many functions.

A tenant that is to have less is stated in a file of its own.
"""


class Applied(NamedTuple):
    """What became of one object. `note` says why it was there at all, if no file states it."""

    name: Name
    outcome: str
    note: str = ""


def apply_all(cluster: Cluster, objects: Sequence[Stated]) -> Iterator[Applied]:
    """Apply objects in order; each is told of when it is done.

    Raises:
        RefusedError: The first that is refused; those before it stay applied.
        UnreachableError: The gateway is not there, or no longer.
    """
    known: set[Name] = set()
    for one in objects:
        yield from _make_room(cluster, one.name, known)
        try:
            outcome = cluster.apply(one).outcome
        except RefusedError as error:
            message = f"{one.source}: {error}"
            raise type(error)(message, status=error.status, code=error.code) from error
        known.add(one.name)
        yield Applied(one.name, outcome)


def _make_room(cluster: Cluster, name: Name, known: set[Name]) -> Iterator[Applied]:
    """Make the tenant and the namespace of an object, where they are not there."""
    needed: list[tuple[Name, dict[str, object]]] = []
    if TYPES[name.type] > 1:
        tenant = Name("tenant", SYSTEM, SYSTEM, name.tenant)
        needed.append((tenant, {"spec": {"limit": NEW_TENANT_LIMITS}}))
    if TYPES[name.type] > 2 and name.namespace != SYSTEM:
        needed.append((Name("namespace", name.tenant, SYSTEM, name.namespace), {"status": {}}))
    for parent, body in needed:
        if parent in known:
            continue
        if not _is_there(cluster, parent):
            stated = parent._asdict() | {"object": body}
            yield Applied(parent, cluster.apply(stated).outcome, f"for {name}")
        known.add(parent)


def _is_there(cluster: Cluster, name: Name) -> bool:
    try:
        cluster.get(name)
    except GoneError:
        return False
    except RefusedError as error:
        # Who may not see it cannot make it either: what they apply says whether it is there.
        if error.status == 403:
            return True
        raise
    return True

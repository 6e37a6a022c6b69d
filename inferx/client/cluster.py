"""The cluster, as the gateway's object API and views have it."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import quote

from inferx.client.connection import Connection
from inferx.client.errors import GoneError
from inferx.client.logs import Log, read_log
from inferx.client.names import Name, Place
from inferx.client.watching import Change, follow

__all__ = ["AccessLevel", "Cluster", "Object", "Outcome"]

Object = Mapping[str, Any]
"""An object as its author wrote it, with its `revision`."""
AccessLevel = Literal["full", "read", "inference"]


class Outcome(NamedTuple):
    """What became of an object that was applied: created, updated or unchanged."""

    object: Object
    outcome: str


class Cluster:
    """Asks one gateway.

    Every call may raise `RefusedError`, `GoneError` or `UnreachableError`.
    """

    def __init__(self, connection: Connection) -> None:
        self._http = connection

    # -- objects ---
    def get(self, name: Name) -> Object:
        """Return an object."""
        return cast("Object", self._http.json("GET", _path("object", *name)))

    def list(self, kind: str, place: Place, labels: str = "") -> tuple[Object, ...]:
        """Return the objects of a type in a place, those alone that a label selector takes."""
        query = {"labels": labels} if labels else {}
        found = self._http.json("GET", _path("objects", kind, *filter(None, place)), query=query)
        return tuple(found["objects"])

    def apply(self, one: Object) -> Outcome:
        """Make an object what is stated; one that is so already stays as it is."""
        found = self._http.json("POST", "/apply/", one)
        return Outcome(found["object"], found["outcome"])

    def create(self, one: Object) -> Object:
        """Make an object that there is not yet."""
        return cast("Object", self._http.json("PUT", "/object/", one))

    def update(self, one: Object, *, force: bool = False) -> Object:
        """Change an object that is still at the revision which it states; or whatever it is now."""
        query = {"force": "1"} if force else {}
        return cast("Object", self._http.json("POST", "/object/", one, query))

    def delete(self, name: Name, *, cascade: bool = False) -> None:
        """Remove an object, and with `cascade` all that is in it."""
        query = {"cascade": "1"} if cascade else {}
        self._http.json("DELETE", _path("object", *name), query=query)

    def watch(self, kind: str, place: Place, labels: str = "") -> Iterator[Change]:
        """Return what changes, as it does, beginning with all that there is."""
        path = _path("objects", kind, *filter(None, place))
        return follow(self._http, path, {"labels": labels} if labels else {})

    # -- the cluster as it is now ---
    def nodes(self) -> tuple[Mapping[str, Any], ...]:
        """Return nodes with their GPUs."""
        return tuple(self._http.json("GET", "/nodes/"))

    def functions(self, place: Place) -> tuple[Mapping[str, Any], ...]:
        """Return how functions fare."""
        return tuple(self._http.json("GET", _path("functions", *filter(None, place))))

    def function(self, name: Name) -> Mapping[str, Any]:
        """Return how one function fares."""
        path = _path("function", name.tenant, name.namespace, name.name)
        return cast("Mapping[str, Any]", self._http.json("GET", path))

    def pods(self, *place: str) -> tuple[Mapping[str, Any], ...]:
        """Return pods: all, a tenant's, a namespace's or a function's."""
        return tuple(self._http.json("GET", _path("pods", *place)))

    def snapshots(self, *place: str) -> tuple[Mapping[str, Any], ...]:
        """Return what is on nodes' disks: all, a tenant's, a namespace's or a function's."""
        return tuple(self._http.json("GET", _path("snapshots", *place)))

    def request(self, request: str) -> Mapping[str, Any]:
        """Return what became of one request, and why."""
        return cast("Mapping[str, Any]", self._http.json("GET", _path("request", request)))

    def end_pod(self, pod: int, *, now: bool = False) -> None:
        """End a pod, once it has served whom it serves; with `now` these fail."""
        found = next((one for one in self.pods() if one["pod"] == pod), None)
        if found is None:
            raise GoneError(f"pod {pod}: not there", status=404)
        query = {"now": "1"} if now else {}
        self._http.json("DELETE", _path("pod", *_parts(found["function"]), str(pod)), query=query)

    # -- what pods wrote ---
    def logs(self, *place: str) -> tuple[tuple[Log, ...], bool]:
        """Return whose output nodes keep, the latest pods first; and whether all nodes answered."""
        told = self._http.json("GET", _path("podlogs", *place))
        logs = tuple(
            Log(one["pod"], one["function"], one["node"], one["state"], one["held_bytes"])
            for one in told["logs"]
        )
        return logs, bool(told["complete"])

    def log(
        self, log: Log, *, tail: int | None = None, follow: bool = False, stream: str = ""
    ) -> Iterator[str]:
        """Return what a pod wrote, in pieces; with `follow` as it writes, until it has ended."""
        path = _path("podlog", *_parts(log.function), str(log.pod))
        return read_log(self._http, path, tail=tail, follow=follow, stream=stream)

    # -- all of it ---
    def view(self) -> Mapping[str, Any]:
        """Return all that the key may see, at one moment."""
        return cast("Mapping[str, Any]", self._http.json("GET", "/view/"))

    # -- keys ---
    def issue_key(self, request: Mapping[str, object]) -> Mapping[str, Any]:
        """Make an API key. The answer is the only one that ever has it."""
        return cast("Mapping[str, Any]", self._http.json("PUT", "/apikey/", request))

    def keys(self, tenant: str, namespace: str = "") -> tuple[Mapping[str, Any], ...]:
        """Return what is kept of keys, which are not in it."""
        query = {"tenant": tenant} | ({"namespace": namespace} if namespace else {})
        return tuple(self._http.json("GET", "/apikey/", query=query))

    def revoke_key(self, key: str, tenant: str, namespace: str) -> None:
        """Make a key good for nothing, for ever."""
        self._http.json("DELETE", _path("apikey", tenant, namespace, key))

    # -- roles that are granted by name ---
    def grant_role(self, request: Mapping[str, object]) -> Mapping[str, Any]:
        """Grant a role; return what is kept of it."""
        return cast("Mapping[str, Any]", self._http.json("POST", "/rbac/", request))

    def revoke_role(self, request: Mapping[str, object]) -> None:
        """Revoke a role that was granted."""
        self._http.json("DELETE", "/rbac/", request)

    def role_holders(
        self, role: str, tenant: str, namespace: str = ""
    ) -> tuple[Mapping[str, Any], ...]:
        """Return who was granted a role in a whole tenant, or in one of its namespaces."""
        place = ("namespaceusers", role, tenant, namespace) if namespace else ()
        return tuple(
            self._http.json("GET", _path("rbac", *(place or ("tenantusers", role, tenant))))
        )

    def roles(self) -> tuple[Mapping[str, Any], ...]:
        """Return what who asks may do, and where."""
        return tuple(self._http.json("GET", "/rbac/roles/"))


def _path(*parts: str) -> str:
    return "/" + "".join(f"{quote(part, safe='')}/" for part in parts)


def _parts(identity: str) -> tuple[str, str, str, str]:
    """Take `tenant/namespace/function@version` apart."""
    name, _, version = identity.rpartition("@")
    tenant, namespace, function = name.split("/")
    return tenant, namespace, function, version

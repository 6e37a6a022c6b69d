"""The objects over HTTP: create, update, apply, get, list, delete and watch."""

import msgspec
from aiohttp import web

from inferx.core.errors import DescriptionError
from inferx.exec.gateway.api.access import Access, place_of
from inferx.exec.gateway.api.routing import Parameter, Route, flag, json_answer, number
from inferx.exec.gateway.api.watching import Watches
from inferx.exec.identity.audit import Target
from inferx.exec.identity.principal import Principal
from inferx.exec.state.objects.actor import Actor
from inferx.exec.state.objects.envelope import NEW, DataObject, Key, parse_object
from inferx.exec.state.objects.kinds import check_place
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.results import ANY_REVISION
from inferx.exec.state.objects.selector import Selection, parse_labels

__all__ = ["ObjectRoutes"]

_REVISION = Parameter(
    "revision", "The revision that the object was read at.", {"type": "integer", "minimum": 0}
)
_BIT = {"type": "integer", "enum": [0, 1], "default": 0}
_FORCE = Parameter("force", "1: write whatever the object is now.", _BIT)
_CASCADE = Parameter("cascade", "1: with what is in a tenant or a namespace.", _BIT)
_LABELS = Parameter("labels", "As kubectl writes them: a=b,c!=d,e,!f.", {"type": "string"})
_WATCH = Parameter("watch", "1: what there is, then what changes, for as long as asked.", _BIT)
_AFTER = Parameter(
    "after", "Watch what is committed after a revision.", {"type": "integer", "minimum": 0}
)


class ObjectRoutes:
    """Serves the objects."""

    def __init__(self, access: Access, objects: Objects, watches: Watches) -> None:
        self._access = access
        self._objects = objects
        self._watches = watches

    def routes(self) -> list[Route]:
        """Return what is served."""
        one = "/object/{type}/{tenant}/{namespace}/{name}/"
        lists = ("/objects/{type}/", "/objects/{type}/{tenant}/")
        query = (_LABELS, _WATCH, _AFTER)
        create = Route(
            "PUT",
            "/object/",
            self.create,
            "Create an object that is not there.",
            body="Object",
            answers="Object",
            status=201,
        )
        update = Route(
            "POST",
            "/object/",
            self.update,
            "Replace an object that is still as it was read.",
            (_REVISION, _FORCE),
            body="Object",
            answers="Object",
        )
        apply = Route(
            "POST",
            "/apply/",
            self.apply,
            "Make an object be what is said of it; twice is once.",
            body="Object",
            answers="Applied",
        )
        delete = Route(
            "DELETE", one, self.delete, "Remove an object.", (_REVISION, _CASCADE), answers="Object"
        )
        return [
            create,
            update,
            apply,
            Route("GET", one, self.get, "Return an object.", answers="Object"),
            delete,
            *(
                Route("GET", path, self.list, "Return the objects of a type.", query, "", "Listed")
                for path in (*lists, "/objects/{type}/{tenant}/{namespace}/")
            ),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """PUT /object/."""
        one, who, actor = await self._read(request)
        async with self._access.act(who, "create", _target(one.key)):
            written = await self._objects.create(one, who=actor)
        return json_answer(written, 201)

    async def update(self, request: web.Request) -> web.Response:
        """POST /object/."""
        one, who, actor = await self._read(request)
        expected = number(request, "revision")
        if flag(request, "force"):
            if expected is not None:
                raise DescriptionError("?revision and ?force=1: expected one of them")
            expected = ANY_REVISION
        elif expected is None:
            expected = one.revision
            if expected == NEW:
                raise DescriptionError(
                    f"{one.key}: expected the revision that it was read at, as the object's own "
                    "or as ?revision=, or ?force=1 to write whatever it is now"
                )
        async with self._access.act(who, "update", _target(one.key)):
            written = await self._objects.update(one, who=actor, expected=expected)
        return json_answer(written)

    async def apply(self, request: web.Request) -> web.Response:
        """POST /apply/."""
        one, who, actor = await self._read(request)
        async with self._access.act(who, "apply", _target(one.key)):
            applied = await self._objects.apply(one, who=actor)
        return json_answer(applied)

    async def get(self, request: web.Request) -> web.Response:
        """GET /object/TYPE/TENANT/NAMESPACE/NAME/."""
        who = await self._access.who(request)
        key = _key(request)
        self._access.check(who, "read", *place_of(key), key.type)
        return json_answer(await self._objects.get(key))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /object/TYPE/TENANT/NAMESPACE/NAME/."""
        who = await self._access.who(request)
        key = _key(request)
        actor = self._access.actor(who, key)
        expected = number(request, "revision")
        cascade = flag(request, "cascade")
        async with self._access.act(who, "delete", _target(key)):
            was = await self._objects.delete(
                key,
                who=actor,
                expected=ANY_REVISION if expected is None else expected,
                cascade=cascade,
            )
        return json_answer(was)

    async def list(self, request: web.Request) -> web.StreamResponse:
        """GET /objects/TYPE/[TENANT/[NAMESPACE/]]."""
        who = await self._access.who(request)
        place = request.match_info
        kind, tenant, namespace = (
            place["type"],
            place.get("tenant", ""),
            place.get("namespace", ""),
        )
        check_place(kind, *filter(None, (tenant, namespace)))
        self._access.check_list(who, kind, "" if kind == "tenant" else tenant)
        labels = parse_labels(request.query.get("labels", ""))
        selection = Selection(kind, tenant, namespace, labels)
        after = number(request, "after")
        if flag(request, "watch"):
            return await self._watches.serve(request, selection, after)
        if after is not None:
            raise DescriptionError("?after: expected ?watch=1 beside it")
        listed = await self._objects.list(selection)
        seen = tuple(one for one in listed.objects if self._sees(who, one.key))
        return json_answer(msgspec.structs.replace(listed, objects=seen))

    def _sees(self, who: Principal, key: Key) -> bool:
        return self._access.may(who, "read", *place_of(key), key.type)

    async def _read(self, request: web.Request) -> tuple[DataObject, Principal, Actor]:
        """Return an object that somebody may write, who, and on whose behalf."""
        who = await self._access.who(request)
        if not who.grants:
            # Nobody's bytes are not read.
            self._access.check_list(who, "function", "")
        try:
            text = (await request.read()).decode()
        except UnicodeDecodeError as error:
            raise DescriptionError("the body: expected UTF-8") from error
        one = parse_object(text, "the body")
        check_place(one.type, one.tenant, one.namespace, one.name)
        return one, who, self._access.actor(who, one.key)


def _key(request: web.Request) -> Key:
    place = request.match_info
    key = Key(place["type"], place["tenant"], place["namespace"], place["name"])
    check_place(key.type, key.tenant, key.namespace, key.name)
    return key


def _target(key: Key) -> Target:
    return Target(type=key.type, tenant=key.tenant, namespace=key.namespace, name=key.name)

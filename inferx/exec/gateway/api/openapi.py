"""The API's description, made from the routes that are served: it cannot say otherwise."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from inferx.exec.gateway.api.routing import Route
from inferx.exec.identity.key_desk import KeyRequest
from inferx.exec.identity.role_desk import RoleRequest
from inferx.exec.identity.roles import LEVELS
from inferx.exec.state.objects.kinds import KINDS
from inferx.spec.reference import NAME_LIMIT, NAME_PATTERN

__all__ = ["description"]

_NAME: Final = {"type": "string", "maxLength": NAME_LIMIT, "pattern": f"^{NAME_PATTERN}$"}
_TYPE: Final = {"type": "string", "enum": list(KINDS)}
_DIGITS: Final = {"type": "string", "pattern": "^[0-9]{1,18}$"}
_REQUEST: Final = {
    "type": "string",
    "maxLength": 128,
    "pattern": "^[A-Za-z0-9][A-Za-z0-9._:=@+-]*$",
}
_PATH: Final[dict[str, Any]] = {
    "type": _TYPE,
    "version": _DIGITS,
    "pod": _DIGITS,
    "request": _REQUEST,
    "role": {"type": "string", "enum": list(LEVELS)},
}
_TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_ERRORS: Final = {
    "400": "What was sent is not what it should be.",
    "401": "Who asks is not known, or showed no key.",
    "403": "Who asks may not.",
    "404": "There is no such thing.",
    "405": "That path has other methods.",
    "409": "The state of things is against it.",
    "410": "The history to go on from is not kept.",
    "413": "The body is too large.",
    "429": "Too much is asked for.",
    "431": "The headers are too large.",
    "502": "The API broke off.",
    "503": "Not now.",
}
_OBJECT: Final = {
    "type": "object",
    "required": ["type", "tenant", "namespace", "name", "object"],
    "properties": {
        "type": _TYPE,
        "tenant": _NAME,
        "namespace": _NAME,
        "name": _NAME,
        "labels": _TEXTS,
        "annotations": _TEXTS,
        "object": {"type": "object"},
        "revision": {"type": "integer", "minimum": 0},
    },
}
_SCHEMAS: Final[dict[str, Any]] = {
    "Any": {},
    "Object": _OBJECT,
    "Applied": {
        "type": "object",
        "required": ["object", "outcome"],
        "properties": {
            "object": {"$ref": "#/components/schemas/Object"},
            "outcome": {"type": "string", "enum": ["created", "updated", "unchanged"]},
        },
    },
    "Listed": {
        "type": "object",
        "required": ["objects", "revision"],
        "properties": {
            "objects": {"type": "array", "items": {"$ref": "#/components/schemas/Object"}},
            "revision": {"type": "integer"},
        },
    },
    "Issued": {
        "type": "object",
        "required": ["id", "key"],
        "properties": {"id": {"type": "string"}, "key": {"type": "string"}},
    },
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": "null"},
                    "code": {"type": "string"},
                },
            }
        },
    },
}


def description(routes: Iterable[Route], version: str) -> Mapping[str, Any]:
    """Return the description of some routes, in OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    made, parts = msgspec.json.schema_components(
        (KeyRequest, RoleRequest), ref_template="#/components/schemas/{name}"
    )
    assert len(made) == 2
    return {
        "openapi": "3.1.0",
        "info": {"title": "InferX", "version": version},
        "paths": paths,
        "components": {
            "schemas": {**_SCHEMAS, **parts},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    path = [
        {"name": name, "in": "path", "required": True, "schema": _PATH.get(name, _NAME)}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    query = [
        {"name": one.name, "in": "query", "description": one.says, "schema": one.schema}
        for one in route.query
    ]
    content: dict[str, Any] = (
        {route.answers: {}} if "/" in route.answers else _json(_ref(route.answers))
    )
    if any(one.name == "watch" for one in route.query):
        content |= {"application/x-ndjson": {}, "text/event-stream": {}}
    if any(one.name == "follow" for one in route.query):
        content |= {"application/x-ndjson": {}}
    answers: dict[str, Any] = {str(route.status): {"description": "Done.", "content": content}}
    for status, says in _ERRORS.items():
        answers[status] = {"description": says, "content": _json(_ref("Error"))}
    if route.path == "/readyz":
        answers["503"]["content"] = _json(_ref("Any"))
    told: dict[str, Any] = {"summary": route.says, "parameters": path + query, "responses": answers}
    if route.body:
        told["requestBody"] = {"required": True, "content": _json(_ref(route.body))}
    if route.is_open:
        told["security"] = []
    return told


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Mapping[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}

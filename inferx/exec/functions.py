"""The functions that can be called, as one process counts them: objects in, kernel events out.

A function object's version makes it another function to the kernel: what pods hold never changes.
How it is served may: a policy object or a tenant's limits change the same function.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar

import msgspec

from inferx.core.events import FunctionDefined, FunctionRetired
from inferx.core.types import FunctionId, FunctionSpec
from inferx.exec.state.objects.admission import version_of
from inferx.exec.state.objects.bodies import Limits, Tenant
from inferx.exec.state.objects.envelope import SYSTEM_NAME, DataObject, Key
from inferx.exec.state.objects.mirror import Changed
from inferx.exec.state.objects.policies import resolve
from inferx.exec.wire.names import FunctionNames

__all__ = ["KINDS", "Called", "FunctionBook", "identity"]

_K = TypeVar("_K")
_V = TypeVar("_V")

KINDS: Final = ("function", "funcpolicy", "tenant")
"""The types of objects that make functions."""


class Called(NamedTuple):
    """A function as it is called now."""

    id: FunctionId
    spec: FunctionSpec
    object: DataObject


def identity(function: DataObject) -> str:
    """Return what one version of a function is called everywhere."""
    return f"{function.tenant}/{function.namespace}/{function.name}@{version_of(function)}"


class FunctionBook:
    """Keeps count of functions for one process's machine."""

    def __init__(self) -> None:
        self.names = FunctionNames()
        self._called: dict[Key, Called] = {}
        self._by_id: dict[FunctionId, Called] = {}
        self._functions: dict[Key, DataObject] = {}
        self._policies: dict[Key, DataObject] = {}
        self._limits: dict[str, Limits] = {}

    def get(self, tenant: str, namespace: str, name: str) -> Called | None:
        """Return a function by what its callers call it."""
        return self._called.get(Key("function", tenant, namespace, name))

    def by_id(self, function: FunctionId) -> Called:
        """Return one version of a function, also of one that is no more."""
        return self._by_id[function]

    def all(self) -> Mapping[Key, Called]:
        """Return the functions that can be called."""
        return self._called

    def take(self, changed: Changed) -> list[FunctionDefined | FunctionRetired]:
        """Take note of an object's change; return what it means to a machine."""
        key, new = changed.key, changed.new
        if key.type == "function":
            _put(self._functions, key, new)
            return self._judge(key)
        if key.type == "funcpolicy":
            _put(self._policies, key, new)
            tenant = key.tenant
        else:
            tenant = key.name
            body = None if new is None else msgspec.convert(new.object, Tenant)
            _put(self._limits, tenant, None if body is None else body.spec.limit)
        of_whom = [one for one in self._functions if tenant in {one.tenant, SYSTEM_NAME}]
        return [event for one in of_whom for event in self._judge(one)]

    def _judge(self, key: Key) -> list[FunctionDefined | FunctionRetired]:
        """Compare a function's object with what the machine was told of it."""
        told, function = self._called.get(key), self._functions.get(key)
        if function is None:
            if told is None:
                return []
            del self._called[key]
            return [FunctionRetired(told.id)]
        spec = resolve(function, self._policies, self._limits.get(key.tenant, Limits()))
        if spec is None:
            # The policy that it links to is not there yet, or no more: nothing is known to change.
            return []
        known = len(self.names)
        now = Called(self.names.add(identity(function)), spec, function)
        self._called[key] = self._by_id[now.id] = now
        if told == now or (told is not None and told[:2] == now[:2]):
            return []
        events: list[FunctionDefined | FunctionRetired] = [FunctionDefined(now.id, spec)]
        if told is not None and told.id != now.id:
            events.append(FunctionRetired(told.id, now.id))
        assert now.id == known or (told is not None and told.id == now.id), "versions only rise"
        return events


def _put(into: dict[_K, _V], key: _K, value: _V | None) -> None:
    if value is None:
        into.pop(key, None)
    else:
        into[key] = value

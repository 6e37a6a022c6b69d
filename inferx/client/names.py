"""What objects are called on a command line: types with their short forms, and places.

A place is `TENANT/NAMESPACE/NAME`, in one word or in several. What belongs to no namespace or to no
tenant is named by what is left: a tenant `acme`, a namespace `acme/chat`.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from inferx.client.errors import ClientError
from inferx.spec.document import closest, shown
from inferx.spec.reference import NAME, is_name

__all__ = ["SYSTEM", "TYPES", "Name", "Place", "function_of", "name_of", "place_of", "type_of"]

SYSTEM: Final = "system"
TYPES: Final[dict[str, int]] = {
    "tenant": 1,
    "namespace": 2,
    "function": 3,
    "funcpolicy": 3,
    "funcstatus": 3,
    "node_info": 1,
    "scheduler": 1,
    "gateway": 1,
}
"""Type -> how many words its name has: the others of its place are `system`."""
_SHORT: Final = {
    "ns": "namespace",
    "fn": "function",
    "func": "function",
    "policy": "funcpolicy",
    "node": "node_info",
}


class Name(NamedTuple):
    """What one object is called."""

    type: str
    tenant: str
    namespace: str
    name: str

    def __str__(self) -> str:
        if TYPES.get(self.type) == 1:
            return f"{self.type}/{self.name}"
        if TYPES.get(self.type) == 2:
            return f"{self.type}/{self.tenant}/{self.name}"
        return f"{self.type}/{self.tenant}/{self.namespace}/{self.name}"


class Place(NamedTuple):
    """Where objects are looked for; an empty part is everywhere."""

    tenant: str = ""
    namespace: str = ""


def type_of(word: str) -> str:
    """Return the type that a word names: in full, short, or in the plural.

    Raises:
        ClientError: None is called so.
    """
    for one in (word, word.removesuffix("s"), word.removesuffix("ies") + "y"):
        found = _SHORT.get(one, one)
        if found in TYPES:
            return found
    expected = f"one of {', '.join(TYPES)}{closest(word, TYPES)}"
    raise ClientError(f"type: {shown(word)}; expected {expected}")


def name_of(kind: str, words: Sequence[str], *, tenant: str = "") -> Name:
    """Return the object of a type that some words name.

    Args:
        kind: The type.
        words: With slashes between its parts or apart.
        tenant: Whose it is where none is named.

    Raises:
        ClientError: They name none.
    """
    parts, wanted = _parts(kind, words), TYPES[kind]
    if len(parts) == 3 and wanted < 3:
        # In full, as some tools write it: system/system/acme, acme/system/chat.
        return Name(kind, *parts)
    if len(parts) == wanted - 1 and tenant and wanted > 1:
        parts = [tenant, *parts]
    if len(parts) != wanted:
        expected = "/".join(("TENANT", "NAMESPACE", "NAME")[:wanted] if wanted > 1 else ("NAME",))
        hint = "" if wanted == 1 or tenant else " (the context in use has no tenant of its own)"
        raise ClientError(f"{kind}: {'/'.join(words) or 'no name'}; expected {expected}{hint}")
    if wanted == 1:
        return Name(kind, SYSTEM, SYSTEM, parts[0])
    if wanted == 2:
        return Name(kind, parts[0], SYSTEM, parts[1])
    return Name(kind, *parts)


def function_of(word: str, *, tenant: str = "") -> Name:
    """Return the function that a word names."""
    return name_of("function", [word], tenant=tenant)


def place_of(kind: str, words: Sequence[str], *, tenant: str = "") -> Place:
    """Return where some words say that objects of a type are looked for.

    Raises:
        ClientError: They name no place.
    """
    parts = _parts(kind, words)
    if len(parts) > 2:
        raise ClientError(f"{kind}: {'/'.join(words)}; expected TENANT/NAMESPACE, or less")
    if TYPES[kind] == 1:
        return Place()
    if not parts:
        return Place(tenant)
    return Place(*parts)


def _parts(kind: str, words: Sequence[str]) -> list[str]:
    parts = [part for word in words for part in word.strip("/").split("/")]
    for part in parts:
        if not is_name(part):
            raise ClientError(f"{kind}: {shown(part)}; expected {NAME}")
    return parts

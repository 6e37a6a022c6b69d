"""How the writers of one tenant take turns, whichever process they are in.

Each tenant has a ledger: a key that every commit on the tenant, its namespaces, functions and
policies replaces, and expects to be as it was before anything else was read. What is read in a turn
is therefore still so when the turn's commit is made, and two writers cannot both pass one limit.
The ledger counts what the tenant has, so that a limit costs no listing.
"""

from collections.abc import Mapping

import msgspec

from inferx.exec.state.objects.envelope import REGISTRY, SYSTEM_NAME
from inferx.exec.state.store import ABSENT, Change, Delete, Expect, Put, Store

__all__ = ["Counts", "Ledger"]


class Counts(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many objects a namespace has."""

    functions: int = 0
    policies: int = 0

    def __str__(self) -> str:
        told = (
            (self.functions, "function" if self.functions == 1 else "functions"),
            (self.policies, "policy" if self.policies == 1 else "policies"),
        )
        return " and ".join(f"{count} {name}" for count, name in told if count)


class Ledger(msgspec.Struct, frozen=True):
    """A tenant's ledger as it was at the beginning of a turn: counts by namespace."""

    tenant: str
    modified: int = ABSENT
    namespaces: Mapping[str, Counts] = {}

    @staticmethod
    async def read(store: Store, tenant: str) -> "Ledger":
        """Begin a turn."""
        entry = await store.get(_path(tenant))
        if entry is None:
            return Ledger(tenant)
        return Ledger(tenant, entry.modified, _DECODER.decode(entry.value))

    @property
    def functions(self) -> int:
        """How many functions the tenant has."""
        return sum(counts.functions for counts in self.namespaces.values())

    def counts(self, namespace: str) -> Counts:
        """Return what a namespace has; nothing, if there is none."""
        return self.namespaces.get(namespace, Counts())

    def counting(self, namespace: str, *, functions: int = 0, policies: int = 0) -> "Ledger":
        """Return the ledger with a namespace in it that has so many more.

        Nothing is counted below zero: that is of a turn which has been overtaken, and comes to
        nothing.
        """
        had = self.counts(namespace)
        counts = Counts(max(had.functions + functions, 0), max(had.policies + policies, 0))
        if namespace == SYSTEM_NAME and counts == Counts():
            return self.without_namespace(namespace)
        return msgspec.structs.replace(self, namespaces={**self.namespaces, namespace: counts})

    def without_namespace(self, namespace: str) -> "Ledger":
        """Return the ledger without a namespace."""
        rest = {name: counts for name, counts in self.namespaces.items() if name != namespace}
        return msgspec.structs.replace(self, namespaces=rest)

    def expect(self) -> Expect:
        """Return the turn's condition: no other turn has ended since it began."""
        return Expect(_path(self.tenant), self.modified)

    def put(self) -> Change:
        """Return the change that ends a turn."""
        return Put(_path(self.tenant), msgspec.json.encode(self.namespaces, order="sorted"))

    def delete(self) -> Change:
        """Return the change that ends the last turn of a tenant."""
        return Delete(_path(self.tenant))


def _path(tenant: str) -> str:
    return f"{REGISTRY}ledger/{tenant}"


_DECODER = msgspec.json.Decoder(dict[str, Counts])

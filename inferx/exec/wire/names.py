"""Names of functions and numbers of GPUs: each service counts for itself, the wire does not.

Ids are rows of one process's tables. On the wire a function is named, and a GPU is the n-th of the
node at the stream's end.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from inferx.core.types import NO_FUNCTION, FunctionId

__all__ = ["FunctionNames", "Peer"]


class FunctionNames:
    """One process's functions: names to ids and back. Names are `tenant/namespace/name@version`."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names: list[str] = []
        self._ids: dict[str, FunctionId] = {}
        for name in names:
            self.add(name)

    def __len__(self) -> int:
        """Return how many are known."""
        return len(self._names)

    def __contains__(self, name: str) -> bool:
        """Tell whether a name is known."""
        return name in self._ids

    def add(self, name: str) -> FunctionId:
        """Return a name's id, the next one if it is new."""
        known = self._ids.get(name)
        if known is None:
            known = self._ids[name] = FunctionId(len(self._names))
            self._names.append(name)
        return known

    def id_of(self, name: str) -> FunctionId:
        """Return a name's id; `NO_FUNCTION` if this process does not know it."""
        return self._ids.get(name, NO_FUNCTION)

    def name_of(self, function: FunctionId) -> str:
        """Return a function's name; "" for none."""
        return "" if function == NO_FUNCTION else self._names[function]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at a stream's other end, as this process counts.

    Attributes:
        id: Its node's or its router's id.
        first_gpu: The id of its node's first GPU; 0 where GPUs are counted by node.
        gpus: How many GPUs its node has.
    """

    id: int
    first_gpu: int = 0
    gpus: int = 0

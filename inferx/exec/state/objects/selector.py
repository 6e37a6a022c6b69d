"""Which objects of a type are meant: a place, and labels as `kubectl` writes them."""

import re
from collections.abc import Mapping

import msgspec

from inferx.core.errors import DescriptionError
from inferx.exec.state.objects.envelope import REGISTRY, DataObject

__all__ = ["LabelTest", "Selection", "parse_labels"]

TESTS_LIMIT = 32

_TEST = re.compile(r"(?P<not>!?)(?P<key>[A-Za-z0-9_./-]+)(?:(?P<op>!=|==|=)(?P<value>[^,=!]*))?")


class LabelTest(msgspec.Struct, frozen=True):
    """One condition on a label; a value of None asks only whether it is there."""

    key: str
    value: str | None
    negated: bool = False

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Say whether labels meet it."""
        found = labels.get(self.key)
        return (found is not None if self.value is None else found == self.value) != self.negated

    def __str__(self) -> str:
        if self.value is None:
            return f"{'!' if self.negated else ''}{self.key}"
        return f"{self.key}{'!=' if self.negated else '='}{self.value}"


def parse_labels(text: str) -> tuple[LabelTest, ...]:
    """Read `a=b,c!=d,e,!f`: equal, not equal, there, not there; all must hold.

    Raises:
        DescriptionError: It is something else.
    """
    tests: list[LabelTest] = []
    for part in filter(None, map(str.strip, text.split(","))):
        match = _TEST.fullmatch(part)
        if match is None or (match["not"] and match["op"]) or len(tests) == TESTS_LIMIT:
            expected = f"at most {TESTS_LIMIT} of key=value, key!=value, key and !key"
            raise DescriptionError(f"label selector: {part!r}; expected {expected}")
        tests.append(
            LabelTest(match["key"], match["value"], bool(match["not"] or match["op"] == "!="))
        )
    return tuple(tests)


class Selection(msgspec.Struct, frozen=True):
    """The objects of one type in one tenant or namespace, or everywhere, that labels single out."""

    type: str
    tenant: str = ""
    namespace: str = ""
    labels: tuple[LabelTest, ...] = ()

    @property
    def prefix(self) -> str:
        """What their keys in the store begin with; it ends in `/`."""
        assert self.tenant or not self.namespace, "a namespace is one of a tenant's"
        parts = (part for part in (self.type, self.tenant, self.namespace) if part)
        return f"{REGISTRY}{'/'.join(parts)}/"

    def takes(self, one: DataObject) -> bool:
        """Say whether an object under the prefix is one of them."""
        return all(test.holds(one.labels) for test in self.labels)

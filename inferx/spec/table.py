"""Reads one table of a description key by key: kinds, ranges, units, and unknown keys."""

from collections.abc import Collection, Iterator, Mapping
from typing import TypeGuard

from inferx.core.errors import DescriptionError
from inferx.core.units import GIB, MIB, NS_PER_MS, NS_PER_S
from inferx.spec.document import Document, closest, is_list, is_table, shown
from inferx.spec.positions import KeyPath

__all__ = ["MAX_BYTES", "MAX_NS", "Table", "top_table"]

MAX_BYTES = 1 << 50
"""A size above this, 1 PiB, is a slip of the unit."""
MAX_NS = 366 * 86_400 * NS_PER_S
"""A time above this, one year, is a slip of the unit."""

_BYTE_UNITS = {"bytes": 1, "mib": MIB, "gib": GIB}
_TIME_UNITS = {"ns": 1, "ms": NS_PER_MS, "s": NS_PER_S}


class Table:
    """One table of a document, read key by key. `close` refuses the keys that nobody read."""

    def __init__(self, document: Document, path: KeyPath, values: Mapping[str, object]) -> None:
        self.document = document
        self.path = path
        self.values = values
        self._known: set[str] = set()

    def __contains__(self, key: str) -> bool:
        self._known.add(key)
        return key in self.values

    def error(self, key: str | None, found: str, expected: str) -> DescriptionError:
        """Return an error about `key`, or about the table itself when `key` is None."""
        return self.document.error(self.path if key is None else (*self.path, key), found, expected)

    def text(self, key: str, default: str | None = None, choices: Collection[str] = ()) -> str:
        """Return a text, which is one of `choices` when there are any."""
        expected = f"one of {', '.join(choices)}" if choices else "text"
        if key not in self:
            if default is None:
                raise self.error(key, "nothing", expected)
            return default
        value = self.values[key]
        if not isinstance(value, str) or not value:
            raise self.error(key, shown(value), expected)
        if choices and value not in choices:
            raise self.error(key, shown(value), expected + closest(value, choices))
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.values[key] if key in self else default
        if not isinstance(value, bool):
            raise self.error(key, shown(value), "true or false")
        return value

    def integer(
        self, key: str, default: int | None = None, *, minimum: int = 0, maximum: int = 1 << 31
    ) -> int:
        """Return a whole number in [minimum, maximum]."""
        expected = f"a whole number from {minimum} to {maximum}"
        if key not in self:
            if default is None:
                raise self.error(key, "nothing", expected)
            return default
        value = self.values[key]
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self.error(key, shown(value), expected)
        return value

    def number(
        self, key: str, default: float | None = None, *, minimum: float = 0.0, maximum: float = 1e12
    ) -> float:
        """Return a finite number in [minimum, maximum]."""
        expected = f"a number from {minimum:g} to {maximum:g}"
        if key not in self:
            if default is None:
                raise self.error(key, "nothing", expected)
            return default
        value = self.values[key]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not minimum <= value <= maximum
        ):
            raise self.error(key, shown(value), expected)
        return value

    def size(self, stem: str, default: int | None = None, *, minimum: int = 0) -> int:
        """Return bytes, from the one of `STEM_bytes`, `STEM_mib` and `STEM_gib` that is there."""
        return self._quantity(stem, _BYTE_UNITS, default, minimum, MAX_BYTES)

    def duration(self, stem: str, default: int | None = None) -> int:
        """Return nanoseconds, from the one of `STEM_ns`, `STEM_ms` and `STEM_s` that is there."""
        return self._quantity(stem, _TIME_UNITS, default, 0, MAX_NS)

    def _quantity(
        self, stem: str, units: Mapping[str, int], default: int | None, minimum: int, maximum: int
    ) -> int:
        keys = {f"{stem}_{unit}": scale for unit, scale in units.items()}
        given = [key for key in keys if key in self]
        if not given:
            if default is None:
                raise self.error(None, f"no {stem}", f"one of {', '.join(keys)}")
            return default
        if len(given) > 1:
            raise self.error(given[1], f"both {given[0]} and {given[1]}", "one of them")
        key = given[0]
        scale = keys[key]
        if scale == 1:
            return self.integer(key, minimum=minimum, maximum=maximum)
        # Whole units stay integers: a float has 53 bits, too few for nanoseconds of a year.
        value = self.number(key, minimum=minimum / scale, maximum=maximum // scale)
        return value * scale if isinstance(value, int) else round(value * scale)

    def table(self, key: str) -> "Table":
        """Return the table under `key`, empty when absent."""
        if key not in self:
            return Table(self.document, (*self.path, key), {})
        value = self.values[key]
        if not is_table(value):
            raise self.error(key, shown(value), "a table")
        return Table(self.document, (*self.path, key), value)

    def tables(self, key: str) -> list["Table"]:
        """Return the tables listed under `key`; none when absent."""
        if key not in self:
            return []
        value = self.values[key]
        if not is_list(value):
            raise self.error(key, shown(value), f"a list of tables, [[{key}]]")
        path = (*self.path, key)
        found: list[Table] = []
        for index, item in enumerate(value):
            if not is_table(item):
                raise self.document.error((*path, index), shown(item), "a table")
            found.append(Table(self.document, (*path, index), item))
        return found

    def texts(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return a list of texts."""
        if key not in self:
            return default
        value = self.values[key]
        if not _is_texts(value):
            raise self.error(key, shown(value), "a list of text")
        return tuple(value)

    def subtables(self) -> Iterator[tuple[str, "Table"]]:
        """Return every key with its table."""
        for key in self.values:
            yield key, self.table(key)

    def opaque(self, *keys: str) -> None:
        """Accept `keys`, whatever they hold: they say nothing about scheduling."""
        self._known.update(keys)

    def close(self) -> None:
        """Refuse the keys that nothing asked for: a slip there would silently mean a default."""
        for key in self.values:
            if key not in self._known:
                expected = f"one of {', '.join(sorted(self._known))}" if self._known else "no keys"
                raise self.error(key, "an unknown key", expected + closest(key, self._known))


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return is_list(value) and all(isinstance(text, str) and text for text in value)


def top_table(document: Document) -> Table:
    """Return the top of a document, which must be a table."""
    if not is_table(document.root):
        raise document.error((), shown(document.root), "a table")
    return Table(document, (), document.root)

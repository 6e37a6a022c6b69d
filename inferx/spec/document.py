"""Reads a description file, and tells what is wrong with it: file, line, key path, found, expected.

Every fault of a description, from a missing file to a negative size, is one `DescriptionError` of
the form `file:line: key path: what was found; what was expected`.
"""

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from inferx.core.errors import DescriptionError
from inferx.core.units import GIB, MIB, NS_PER_MS, NS_PER_S
from inferx.spec.positions import KeyPath, json_lines, toml_lines

__all__ = [
    "MAX_BYTES",
    "Document",
    "Table",
    "closest",
    "parse_json",
    "parse_toml",
    "read_document",
    "shown",
]

MAX_BYTES = 1 << 50
"""A size above this, 1 PiB, is a slip of the unit."""
MAX_NS = 366 * 86_400 * NS_PER_S
"""A time above this, one year, is a slip of the unit."""

_BYTE_UNITS = {"bytes": 1, "mib": MIB, "gib": GIB}
_TIME_UNITS = {"ns": 1, "ms": NS_PER_MS, "s": NS_PER_S}


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed text that remembers where it came from. `syntax` is `json` or `toml`."""

    source: str
    text: str
    syntax: str
    root: object

    def error(self, path: KeyPath, found: str, expected: str) -> DescriptionError:
        """Return the error that says `found` stands at `path`, or at its nearest ancestor."""
        try:
            lines = json_lines(self.text)[0] if self.syntax == "json" else toml_lines(self.text)
        except RecursionError:
            lines = {}
        at = path
        while at and at not in lines:
            at = at[:-1]
        return _error(self.source, lines.get(at, 1), _path_text(path), found, expected)

    def table(self) -> "Table":
        """Return the top of the document, which must be a table."""
        if not isinstance(self.root, dict):
            raise self.error((), shown(self.root), "a table")
        return Table(self, (), self.root)


def read_document(path: Path) -> Document:
    """Read one `.toml` or `.json` file."""
    if not path.exists():
        raise DescriptionError(f"{path}: no such file; expected a .toml or .json file")
    if not path.is_file():
        raise DescriptionError(f"{path}: not a file; expected a .toml or .json file")
    if path.suffix not in {".toml", ".json"}:
        raise DescriptionError(
            f"{path}: a {path.suffix or 'suffixless'} file; expected .toml or .json"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DescriptionError(f"{path}: {error.strerror}; expected a readable file") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DescriptionError(f"{path}:{line}: not UTF-8; expected text") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DescriptionError(f"{path}:{line}: a NUL byte; expected text")
    if not text.strip():
        raise DescriptionError(f"{path}:1: an empty file; expected a description")
    return (parse_json if path.suffix == ".json" else parse_toml)(text, str(path))


def parse_toml(text: str, source: str) -> Document:
    """Parse a TOML text; `source` names it in errors."""
    text = text.replace("\r\n", "\n")
    try:
        return Document(source, text, "toml", tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
        last = text.count("\n") + 1
        line = int(place[1]) if place and place[1] else last
        if place:
            message = message[: place.start()]
        raise _error(source, line, "", _lower(message), "TOML") from error
    except (ValueError, RecursionError) as error:
        raise _error(source, 1, "", _lower(str(error)), "TOML") from error


def parse_json(text: str, source: str) -> Document:
    """Parse a JSON text; `source` names it in errors."""
    twice: list[str] = []

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) < len(pairs):
            twice.append("")
        return table

    try:
        root = json.loads(text, object_pairs_hook=unique, parse_constant=_refuse_constant)
        if twice:
            lines, paths = json_lines(text)
            path = paths[0]
            raise _error(source, lines[path], _path_text(path), "a second value", "each key once")
        return Document(source, text, "json", root)
    except json.JSONDecodeError as error:
        raise _error(source, error.lineno, "", _lower(error.msg), "JSON") from error
    except (ValueError, RecursionError) as error:
        raise _error(source, 1, "", _lower(str(error)), "JSON") from error


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
        if not isinstance(value, dict):
            raise self.error(key, shown(value), "a table")
        return Table(self.document, (*self.path, key), value)

    def tables(self, key: str) -> list["Table"]:
        """Return the tables listed under `key`; none when absent."""
        value = self.values[key] if key in self else []
        if not isinstance(value, list):
            raise self.error(key, shown(value), f"a list of tables, [[{key}]]")
        path = (*self.path, key)
        for index, item in enumerate(value):
            if not isinstance(item, dict):
                raise self.document.error((*path, index), shown(item), "a table")
        return [Table(self.document, (*path, index), item) for index, item in enumerate(value)]

    def texts(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return a list of texts."""
        if key not in self:
            return default
        value = self.values[key]
        if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
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


def closest(word: str, words: Collection[str]) -> str:
    """Return `; did you mean X?` when a word is near, else nothing."""
    near = get_close_matches(word, sorted(words), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def shown(value: object) -> str:
    """Return a value as an error tells it: its kind, and a short form of what it holds."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f"the text {value[:60]!r}" + ("..." if len(value) > 60 else "")
        case int() | float():
            return f"the number {value:g}" if abs(value) >= 1e15 else f"the number {value}"
        case list():
            return "an empty list" if not value else "a list"
        case dict():
            return "a table"
        case None:
            return "null"
        case _:
            return f"the value {value}"


def _error(source: str, line: int, path: str, found: str, expected: str) -> DescriptionError:
    place = f"{path}: " if path else ""
    return DescriptionError(f"{source}:{line}: {place}{found}; expected {expected}")


def _path_text(path: KeyPath) -> str:
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", key)
            text += ("." if text else "") + (key if plain else json.dumps(key))
    return text


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")

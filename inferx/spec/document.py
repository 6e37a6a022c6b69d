"""Reads a description file, and tells what is wrong with it: file, line, key path, found, expected.

Every fault of a description, from a missing file to a negative size, is one `DescriptionError` of
the form `file:line: key path: what was found; what was expected`.
"""

import json
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeGuard

from inferx.core.errors import DescriptionError
from inferx.spec.positions import KeyPath, json_lines, toml_lines

__all__ = [
    "Document",
    "closest",
    "exists",
    "is_list",
    "is_table",
    "parse_json",
    "parse_toml",
    "read_document",
    "shown",
]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed text that remembers where it came from. `syntax` is `json` or `toml`.

    One whose text is empty was never a text: its faults have a path, and no line.
    """

    source: str
    text: str
    syntax: str
    root: object

    def error(self, path: KeyPath, found: str, expected: str) -> DescriptionError:
        """Return the error that says `found` stands at `path`, or at its nearest ancestor."""
        if not self.text:
            return DescriptionError(
                f"{self.source}: {_place(_path_text(path))}{found}; expected {expected}"
            )
        try:
            lines = json_lines(self.text)[0] if self.syntax == "json" else toml_lines(self.text)
        except RecursionError:
            lines = {}
        at = path
        while at and at not in lines:
            at = at[:-1]
        return _error(self.source, lines.get(at, 1), _path_text(path), found, expected)


def exists(path: Path) -> bool:
    """Say whether there is something at `path`; not where the system refuses to look."""
    try:
        return path.exists()
    except OSError:
        return False


def read_document(path: Path) -> Document:
    """Read one `.toml` or `.json` file."""
    if not exists(path):
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
    repeats = False

    def table(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal repeats
        repeats |= len(dict(pairs)) < len(pairs)
        return dict(pairs)

    try:
        root = json.loads(text, object_pairs_hook=table, parse_constant=_refuse_constant)
        if repeats:
            lines, paths = json_lines(text)
            path = paths[0]
            raise _error(source, lines[path], _path_text(path), "a second value", "each key once")
        return Document(source, text, "json", root)
    except json.JSONDecodeError as error:
        raise _error(source, error.lineno, "", _lower(error.msg), "JSON") from error
    except (ValueError, RecursionError) as error:
        raise _error(source, 1, "", str(error), "JSON") from error


def is_list(value: object) -> TypeGuard[list[object]]:
    """Tell whether a parsed value is a list."""
    return isinstance(value, list)


def is_table(value: object) -> TypeGuard[dict[str, object]]:
    """Tell whether a parsed value is a table; keys of both syntaxes are text."""
    return isinstance(value, dict)


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
            digits = str(value)
            return f"the number {digits[:40]}" + ("..." if len(digits) > 40 else "")
        case list():
            return "an empty list" if not value else "a list"
        case dict():
            return "a table"
        case None:
            return "null"
        case _:
            return f"the value {value}"


def _error(source: str, line: int, path: str, found: str, expected: str) -> DescriptionError:
    return DescriptionError(f"{source}:{line}: {_place(path)}{found}; expected {expected}")


def _place(path: str) -> str:
    return f"{path}: " if path else ""


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

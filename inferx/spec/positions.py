"""Finds the line of every key of a TOML or JSON text, for error messages.

The standard parsers give no positions. These two walk the tokens of a text that such a parser has
already accepted, so they check nothing themselves; they run only when an error is to be told.
"""

import json
import re
import tomllib
from collections.abc import Iterator

__all__ = ["KeyPath", "json_lines", "toml_lines"]

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the top of a document to a value."""

_JSON_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[][{}:,]|[^\s"\[\]{}:,]+', re.DOTALL)
_TOML_TOKEN = re.compile(
    r"""[ \t\r]+|\#[^\n]*
    | (?P<token>
        \n
      | \"{3}(?:\\.|[^\\])*?\"{3,5} | '{3}.*?'{3,5}
      | "(?:\\.|[^"\\\n])*" | '[^'\n]*'
      | [][{}=,.]
      | [^\s\[\]{}=,."'\#]+ )""",
    re.DOTALL | re.VERBOSE,
)


class _Tokens:
    """A cursor over tokens, each with its line; an empty token marks the end."""

    def __init__(self, tokens: Iterator[tuple[str, int]]) -> None:
        self._tokens = tokens
        self.word, self.line = "", 0
        self.advance()

    def advance(self) -> str:
        """Move on, and return the token that was passed."""
        passed = self.word
        self.word, self.line = next(self._tokens, ("", self.line))
        return passed

    def skip(self, *tokens: str) -> None:
        while self.word in tokens:
            self.advance()


def json_lines(text: str) -> tuple[dict[KeyPath, int], list[KeyPath]]:
    """Return the line of each key and element, and the keys that appear twice in one object."""
    lines: dict[KeyPath, int] = {}
    twice: list[KeyPath] = []

    def tokens() -> Iterator[tuple[str, int]]:
        line, seen = 1, 0
        for match in _JSON_TOKEN.finditer(text):
            line += text.count("\n", seen, match.start())
            seen = match.start()
            yield match.group(), line

    def value(path: KeyPath) -> None:
        lines.setdefault(path, cursor.line)
        opening = cursor.advance()
        if opening == "{":
            while cursor.word not in {"}", ""}:
                at = (*path, json.loads(cursor.word, strict=False))
                if at in lines:
                    twice.append(at)
                lines[at] = cursor.line
                cursor.advance()
                cursor.skip(":")
                value(at)
                cursor.skip(",")
        elif opening == "[":
            index = 0
            while cursor.word not in {"]", ""}:
                value((*path, index))
                cursor.skip(",")
                index += 1
        if opening in {"{", "["}:
            cursor.advance()

    cursor = _Tokens(tokens())
    value(())
    return lines, twice


def toml_lines(text: str) -> dict[KeyPath, int]:
    """Return the line of each key, table and list element."""
    return _TomlWalk(text).lines


class _TomlWalk:
    """One pass over a TOML text."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._last: dict[KeyPath, int] = {}
        """Index of the newest element of each array of tables."""
        self._cursor = _Tokens(_toml_tokens(text))
        table: KeyPath = ()
        while self._cursor.word:
            if self._cursor.word == "\n":
                self._cursor.advance()
            elif self._cursor.word == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> KeyPath:
        cursor, line = self._cursor, self._cursor.line
        cursor.advance()
        repeated = cursor.word == "["
        cursor.skip("[")
        path: KeyPath = ()
        keys = self._keys("]")
        for depth, key in enumerate(keys):
            path = (*path, key)
            self.lines.setdefault(path, line)
            if repeated and depth == len(keys) - 1:
                self._last[path] = self._last.get(path, -1) + 1
            if path in self._last:
                path = (*path, self._last[path])
        self.lines.setdefault(path, line)
        cursor.skip("]")
        return path

    def _keys(self, end: str) -> list[str]:
        keys: list[str] = []
        while self._cursor.word not in {end, ""}:
            word = self._cursor.advance()
            if word[0] in "\"'":
                keys.append(str(tomllib.loads(f"key = {word}")["key"]))
            elif word != ".":
                keys.append(word)
        return keys

    def _pair(self, table: KeyPath) -> None:
        line, path = self._cursor.line, table
        for key in self._keys("="):
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._cursor.skip("=")
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        cursor = self._cursor
        self.lines.setdefault(path, cursor.line)
        if cursor.word == "[":
            cursor.advance()
            cursor.skip("\n", ",")
            index = 0
            while cursor.word not in {"]", ""}:
                self._value((*path, index))
                cursor.skip("\n", ",")
                index += 1
            cursor.advance()
        elif cursor.word == "{":
            cursor.advance()
            cursor.skip("\n", ",")
            while cursor.word not in {"}", ""}:
                self._pair(path)
                cursor.skip("\n", ",")
            cursor.advance()
        else:
            while cursor.word not in {"\n", ",", "]", "}", ""}:
                cursor.advance()


def _toml_tokens(text: str) -> Iterator[tuple[str, int]]:
    line = 1
    for match in _TOML_TOKEN.finditer(text):
        token = match.group("token")
        if token is not None:
            yield token, line
        line += match.group().count("\n")

"""Lines of keys, against what a writer of known layout put where."""

import json
import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from inferx.spec.positions import KeyPath, json_lines, toml_lines

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


def _marked(value: object, path: KeyPath, lines: dict[KeyPath, int], text: list[str]) -> None:
    """Write JSON with every key and element on a line of its own, and note the lines."""
    lines.setdefault(path, text.count("\n") + 1)
    if isinstance(value, dict) and value:
        text.append("{")
        for index, (key, item) in enumerate(value.items()):
            text.append(",\n" if index else "\n")
            lines[(*path, key)] = text_lines(text)
            text.append(json.dumps(key) + " : ")
            _marked(item, (*path, key), lines, text)
        text.append("\n}")
    elif isinstance(value, list) and value:
        text.append("[")
        for index, item in enumerate(value):
            text.append(",\n" if index else "\n")
            lines[(*path, index)] = text_lines(text)
            _marked(item, (*path, index), lines, text)
        text.append("\n]")
    else:
        text.append(json.dumps(value))


def text_lines(text: list[str]) -> int:
    return "".join(text).count("\n") + 1


@settings(deadline=None, max_examples=60)
@given(_VALUES)
def test_every_json_key_is_found_on_its_line(value: object) -> None:
    lines: dict[KeyPath, int] = {}
    text: list[str] = []
    _marked(value, (), lines, text)
    found, twice = json_lines("".join(text))
    lines[()] = 1
    assert (found, twice) == (lines, [])


def test_a_json_key_that_appears_twice_is_told() -> None:
    lines, twice = json_lines('{"a": 1,\n "b": {"c": 2,\n "c": 3}}')
    assert twice == [("b", "c")]
    assert lines["b", "c"] == 3


_TOML = '''\
# top = "not a key"
title = "[[not.a.header]]"   # 2
text = """
inner = 1
"""
list = [                     # 6
  1, 2,                      # 7
  { deep = "}", other = 1 }, # 8
]
"quoted key".b = 1.5         # 10
when = 2026-07-20T10:00:00Z

[[group]]                    # 13
name = 'a # b'
[group.links]                # 15
pcie.gpu = 24                # 16
[[group.part]]               # 17
x = 1
[[group.part]]               # 19
x = 2
[[group]]                    # 21
[table."dotted.name"]        # 22
y = {}
'''


def test_toml_keys_are_found_in_every_construct() -> None:
    tomllib.loads(_TOML)
    lines = toml_lines(_TOML)
    expected: dict[KeyPath, int] = {
        ("title",): 2,
        ("text",): 3,
        ("list",): 6,
        ("list", 1): 7,
        ("list", 2, "deep"): 8,
        ("list", 2, "other"): 8,
        ("quoted key", "b"): 10,
        ("when",): 11,
        ("group",): 13,
        ("group", 0): 13,
        ("group", 0, "name"): 14,
        ("group", 0, "links"): 15,
        ("group", 0, "links", "pcie", "gpu"): 16,
        ("group", 0, "part", 0): 17,
        ("group", 0, "part", 1, "x"): 20,
        ("group", 1): 21,
        ("table", "dotted.name"): 22,
        ("table", "dotted.name", "y"): 23,
    }
    assert {path: lines.get(path) for path in expected} == expected
    assert ("inner",) not in lines


def _paths(value: object, path: KeyPath = ()) -> set[KeyPath]:
    paths = {path} if path else set()
    if isinstance(value, dict):
        for key, item in value.items():
            paths |= _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            paths |= _paths(item, (*path, index))
    return paths


def test_toml_walk_finds_the_paths_that_the_parser_finds() -> None:
    assert set(toml_lines(_TOML)) == _paths(tomllib.loads(_TOML))

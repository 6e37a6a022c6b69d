"""What the engine of a function calls its model: the name that OpenAI's clients send."""

from collections.abc import Mapping, Sequence
from typing import Final

from inferx.exec.state.objects.envelope import DataObject
from inferx.spec.document import is_list, is_table

__all__ = ["served_model"]

OPTIONS: Final = ("--served-model-name", "--model", "--model-path")
"""Of vLLM, SGLang and our own worker; the first that is given is what it answers to."""


def served_model(function: DataObject) -> str:
    """Return the name by its command, else by its sample query, else the function's own."""
    spec = _table(function.object.get("spec"))
    words = [str(word) for key in ("entrypoint", "commands") for word in _list(spec.get(key))]
    for option in OPTIONS:
        named = _value(words, option)
        if named:
            return named
    sample = _table(_table(spec.get("sample_query")).get("body")).get("model")
    return sample if isinstance(sample, str) and sample else function.name


def _value(words: Sequence[str], option: str) -> str:
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == option:
            if equals:
                return value
            return words[index + 1] if index + 1 < len(words) else ""
    return ""


def _table(value: object) -> Mapping[str, object]:
    return value if is_table(value) else {}


def _list(value: object) -> Sequence[object]:
    return value if is_list(value) else ()

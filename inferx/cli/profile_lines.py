"""A profile as it is written: TOML, without what is as it is by default."""

import json
from collections.abc import Iterator, Mapping

import msgspec

from inferx.core.units import NS_PER_S
from inferx.sim.profile import Stage
from inferx.spec.serving import ServingSpec

__all__ = ["interference_lines", "serving_lines", "stage_lines", "toml_text"]


def stage_lines(operation: str, stage: Stage) -> Iterator[str]:
    """Yield the lines of a stage."""
    yield from ("", f"[[{operation}]]")
    told = msgspec.to_builtins(stage)
    for field in msgspec.structs.fields(Stage):
        value = told[field.name]
        if value != field.default:
            yield f"{field.name} = {toml_text(value) if isinstance(value, str) else _number(value)}"


def interference_lines(
    per_neighbour: Mapping[str, float], *, source: str, date: str
) -> Iterator[str]:
    """Yield the rows of assumed interference."""
    for enforcement, factor in per_neighbour.items():
        yield from ("", f"[interference.{enforcement}]", f"per_neighbour = {_number(factor)}")
        yield from ('basis = "assumed"', f"source = {toml_text(source)}")
        yield from ('machine = "any"', f"date = {toml_text(date)}")


def serving_lines(
    function: str,
    speed: ServingSpec,
    *,
    source: str,
    date: str,
    machine: str = "any",
    basis: str = "assumed",
) -> Iterator[str]:
    """Yield the row of a function's speed."""
    yield from ("", f"[serving.{toml_text(function)}]")
    yield f"prefill_tokens_per_s = {speed.prefill_tokens_per_s}"
    yield f"decode_base_s = {_number(speed.decode_base_ns / NS_PER_S)}"
    yield f"decode_per_request_s = {_number(speed.decode_per_request_ns / NS_PER_S)}"
    yield from (f"basis = {toml_text(basis)}", f"source = {toml_text(source)}")
    yield from (f"machine = {toml_text(machine)}", f"date = {toml_text(date)}")


def toml_text(value: str) -> str:
    """Return a TOML string: JSON's escapes are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _number(value: bool | float) -> str:  # noqa: FBT001 - TOML has three kinds of values.
    return str(value).lower() if isinstance(value, bool) else repr(value)

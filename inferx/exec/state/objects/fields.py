"""Reads a table into a struct: the struct's fields, ranges and defaults are the table's keys."""

from typing import TypeVar, cast

import msgspec
from msgspec import inspect

from inferx.spec.table import Table

__all__ = ["read_struct"]

S = TypeVar("S", bound=msgspec.Struct)


def read_struct(table: Table, kind: type[S]) -> S:
    """Return a `kind` with what the table says, and its own defaults for the rest.

    Raises:
        DescriptionError: A value is none, or a key is unknown.
    """
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return cast("S", _struct(table, info))


def _struct(table: Table, info: inspect.StructType) -> object:
    given = {field.name: _field(table, field) for field in info.fields}
    table.close()
    return info.cls(**given)


def _field(table: Table, field: inspect.Field) -> object:
    key = field.encode_name
    default = None if field.default is msgspec.NODEFAULT else field.default
    match field.type:
        case inspect.StructType():
            return _struct(table.table(key), field.type)
        case inspect.BoolType():
            assert isinstance(default, bool)
            return table.flag(key, default=default)
        case inspect.IntType(ge=low, le=high):
            assert low is not None and high is not None, f"{key} has no range"  # noqa: PT018
            assert default is None or isinstance(default, int)
            return table.integer(key, default, minimum=low, maximum=high)
        case inspect.LiteralType(values=values):
            assert default is None or isinstance(default, str)
            return table.text(key, default, [str(value) for value in values])
        case inspect.StrType():
            # An empty text is what an absent one means; only a required one must be some.
            if default == "" and table.values.get(key) == "":
                table.opaque(key)
                return ""
            assert default is None or isinstance(default, str)
            return table.text(key, default)
        case inspect.DictType():
            return dict(table.table(key).values)
        case _:
            raise AssertionError(f"{key}: no reader for {field.type}")

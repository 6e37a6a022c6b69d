"""Functions made up for the names of a trace, when nobody described them.

A template mixes model classes by share. Each function's class is drawn from a stream of its own,
named after the function: it keeps its class when the trace is cut, sampled or extended.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec

from inferx.core.errors import DescriptionError
from inferx.core.rng import stream
from inferx.core.types import FunctionSpec
from inferx.spec.catalogue import shipped
from inferx.spec.document import closest, read_document
from inferx.spec.shape import (
    LABEL,
    Policy,
    build,
    is_label,
    read_policy,
    read_slice_shape,
)
from inferx.spec.table import Table, top_table

__all__ = ["Template", "auto_functions", "load_template", "template_names"]

_PREFIX = "auto"
_MODELS = "models"


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """Model classes with their shares, which sum to 1. A class is a function without a name."""

    name: str
    shares: tuple[float, ...]
    classes: tuple[FunctionSpec, ...]


def auto_functions(
    names: Sequence[str],
    *,
    seed: int,
    template: str = _PREFIX,
    tenants: Mapping[str, str] | None = None,
) -> tuple[FunctionSpec, ...]:
    """Return one function a name, in the order of `names`.

    Args:
        names: The functions of a trace; each once.
        seed: The run's seed.
        template: `auto`, `auto:NAME` of a shipped template, or `auto:PATH` of a TOML file.
        tenants: Tenant of each name; who is absent belongs to `default`.
    """
    chosen = load_template(template)
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise DescriptionError(f"function {twice}: named twice; expected each function once")
    functions: list[FunctionSpec] = []
    for name in names:
        if not is_label(name):
            raise DescriptionError(f"function {name[:60]!r}: a bad name; expected {LABEL}")
        draw = float(stream(seed, f"spec.template/{name}").random())
        tenant = tenants.get(name, "default") if tenants else "default"
        functions.append(msgspec.structs.replace(_pick(chosen, draw), name=name, tenant=tenant))
    return tuple(functions)


def _pick(template: Template, draw: float) -> FunctionSpec:
    for share, shape in zip(template.shares, template.classes, strict=True):
        draw -= share
        if draw < 0:
            return shape
    return template.classes[-1]


def template_names() -> tuple[str, ...]:
    """Return what `--functions` accepts beside a path: `auto`, `auto:7b`, ..."""
    stems = sorted(
        file.name.removesuffix(".toml")
        for file in files("inferx.spec").joinpath("templates").iterdir()
    )
    return (_PREFIX, *(f"{_PREFIX}:{stem}" for stem in stems if stem not in {_MODELS, "default"}))


def load_template(text: str) -> Template:
    """Return the template that `auto`, `auto:NAME` or `auto:PATH` selects."""
    if text.startswith(f"{_PREFIX}:") and text.endswith(".toml"):
        top = top_table(read_document(Path(text.removeprefix(f"{_PREFIX}:"))))
        return _read_template(text, top)
    known = template_names()
    if text not in known:
        raise DescriptionError(
            f"{text}: an unknown template; expected one of {', '.join(known)} or auto:FILE.toml"
            + closest(text, known)
        )
    stem = text.partition(":")[2] or "default"
    return _read_template(text, top_table(shipped(f"templates/{stem}.toml")))


def _read_template(name: str, top: Table) -> Template:
    shipped_defaults, shipped_classes = _shipped_models()
    classes = shipped_classes | _read_models(top, shipped_defaults)[1]
    shares = top.table("share")
    if not shares.values:
        raise top.error("share", "nothing", "the share of each class")
    chosen: dict[str, float] = {}
    for key in shares.values:
        if key not in classes:
            near = closest(key, classes)
            expected = f"one of {', '.join(classes)}{near}"
            raise shares.error(key, "an unknown class", expected)
        chosen[key] = shares.number(key, minimum=1e-9, maximum=1e9)
    top.close()
    total = sum(chosen.values())
    return Template(
        name=name,
        shares=tuple(share / total for share in chosen.values()),
        classes=tuple(classes[key] for key in chosen),
    )


@cache
def _shipped_models() -> tuple[Policy, dict[str, FunctionSpec]]:
    top = top_table(shipped(f"templates/{_MODELS}.toml"))
    models = _read_models(top, Policy())
    top.close()
    return models


def _read_models(top: Table, base: Policy) -> tuple[Policy, dict[str, FunctionSpec]]:
    defaults = top.table("defaults")
    base = read_policy(defaults, base)
    defaults.close()
    classes: dict[str, FunctionSpec] = {}
    for name, table in top.table("class").subtables():
        classes[name] = build(name, "default", read_slice_shape(table), read_policy(table, base))
        table.opaque("reference_h100")  # For the reader of the file; speeds are derived.
        table.close()
    return base, classes

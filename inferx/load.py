"""Finds policies by name: a shipped one, `module:attribute`, or `file.py:attribute`.

There is no registry. `default` is `inferx/policy/default.py`, `greedy-dual` is `greedy_dual.py` in
whatever slot's folder it lies there; an attribute is a function that returns a `PolicyBundle`,
called with the settings given.
"""

import importlib
import importlib.util
import inspect
import math
import pkgutil
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import cast
from zlib import crc32

from inferx import policy as shipped
from inferx.core.errors import InferXError
from inferx.core.protocols import PolicyBundle
from inferx.policy import packing
from inferx.policy.packing.case import PackingRule

__all__ = [
    "LoadError",
    "bundle_names",
    "load_bundle",
    "load_rule",
    "parse_setting",
    "shipped_module",
]

Setting = int | float | bool | str
_KINDS: dict[str, type] = {kind.__name__: kind for kind in (int, float, bool, str)}
_EXPECTED: dict[type, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
}


class LoadError(InferXError):
    """A policy that cannot be found or made."""


def bundle_names() -> list[str]:
    """Return the names of the shipped bundles."""
    return sorted(_shipped())


def shipped_module(name: str) -> str:
    """Return which module makes the shipped bundle of that name.

    Raises:
        LoadError: There is none.
    """
    known = _shipped()
    if name not in known:
        near = get_close_matches(name, known, cutoff=0.5) or ["default", "plain", "lru"]
        raise LoadError(
            f"policy {name}: unknown; expected one of {len(known)} names such as"
            f" {', '.join(near)} (docs/museum.md), FILE.py:NAME or MODULE:NAME"
        )
    return known[name].__name__


def _shipped() -> dict[str, ModuleType]:
    """Return every module of the policy package that makes a bundle, by what it is called.

    A name is that of the file alone, in whatever slot's folder it lies. Packing rules have names of
    their own, see `load_rule`.
    """
    found: dict[str, ModuleType] = {}
    for module in pkgutil.walk_packages(shipped.__path__, f"{shipped.__name__}."):
        if not module.name.startswith(packing.__name__):
            made = importlib.import_module(module.name)
            if hasattr(made, "bundle"):
                name = module.name.rpartition(".")[2].replace("_", "-")
                assert name not in found, f"two policies are called {name}"
                found[name] = made
    return found


def parse_setting(text: str) -> tuple[str, Setting]:
    """Parse `name=value`; a value is an integer, a float, true, false, or text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise LoadError(f"--set {text!r}: expected NAME=VALUE, as in hold_s=60")
    if value in ("true", "false"):
        return name, value == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def load_bundle(spec: str, settings: Mapping[str, Setting] | None = None) -> PolicyBundle:
    """Make the bundle that `spec` names.

    Raises:
        LoadError: There is none, it takes no such setting, or it is not a bundle.
    """
    settings = dict(settings or {})
    factory = _factory(spec)
    parameters = inspect.signature(factory).parameters
    try:
        inspect.signature(factory).bind(**settings)
    except TypeError as error:
        known = ", ".join(parameters) or "none"
        raise LoadError(f"policy {spec}: {error}; its settings are: {known}") from error
    for name, value in settings.items():
        wanted = parameters[name].annotation if name in parameters else inspect.Parameter.empty
        settings[name] = _as_annotated(spec, name, value, wanted)
    try:
        made = factory(**settings)
    except ValueError as error:
        # What a bundle says of its settings; an error of its own code tells where it is.
        if _raised_by(error, factory):
            raise LoadError(f"policy {spec}: {error}") from error
        raise LoadError(f"policy {spec}: it raised ValueError: {error}") from error
    except (Exception, SystemExit) as error:
        raise LoadError(f"policy {spec}: it raised {type(error).__name__}: {error}") from error
    if not isinstance(made, PolicyBundle):
        raise LoadError(f"policy {spec}: it made a {type(made).__name__}, expected a PolicyBundle")
    return made


def load_rule(spec: str) -> PackingRule:
    """Make the packing rule that `spec` names.

    Raises:
        LoadError: There is none, or what is there is not a rule.
    """
    known = packing.rules()
    if ":" not in spec:
        if spec not in known:
            raise LoadError(f"policy {spec!r}: unknown; expected one of {', '.join(known)}")
        return known[spec]()
    try:
        made = _factory(spec)()
    except (Exception, SystemExit) as error:
        if isinstance(error, LoadError):
            raise
        raise LoadError(f"policy {spec}: it raised {type(error).__name__}: {error}") from error
    for name in ("local", "score", "prefer"):
        if not hasattr(made, name):
            raise LoadError(f"policy {spec}: it made a {type(made).__name__} without {name!r}")
    return cast("PackingRule", made)


def _raised_by(error: ValueError, factory: Callable[..., object]) -> bool:
    """Tell whether it is a word on a setting: raised by the function itself, or by shipped code."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None:
        return False
    module = str(at.tb_frame.f_globals.get("__name__", ""))
    own = at.tb_frame.f_code is getattr(factory, "__code__", None)
    return own or module.startswith(f"{shipped.__name__}.")


def _as_annotated(spec: str, name: str, value: Setting, wanted: object) -> Setting:
    """Return a setting as the number, switch or text that the parameter is annotated as.

    An annotation that is none of them, or absent, takes what was given, if it is finite.
    """
    kind = _KINDS.get(wanted if isinstance(wanted, str) else getattr(wanted, "__name__", ""))
    expected = _EXPECTED.get(kind, "a finite number") if kind else "a finite number"
    finite = not isinstance(value, float) or math.isfinite(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is str:
        return value if isinstance(value, str) else _text(value)
    fits = {int: type(value) is int, float: number, bool: type(value) is bool}
    if not finite or (kind is not None and not fits[kind]):
        raise LoadError(f"policy {spec}: --set {name}={_text(value)}: expected {expected}")
    return float(value) if kind is float else value


def _text(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _factory(spec: str) -> Callable[..., object]:
    where, colon, attribute = spec.rpartition(":")
    if not colon:
        where, attribute = spec, "bundle"
    if where.endswith(".py"):
        module = _from_file(Path(where))
    elif colon:
        module = _from_module(spec, where)
    else:
        module = importlib.import_module(shipped_module(where))
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise LoadError(f"policy {spec}: {where} has no function {attribute!r}")
    made: Callable[..., object] = factory
    return made


def _from_module(spec: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise LoadError(f"policy {spec}: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise LoadError(f"policy {path}: no such file")
    # A name of its own: two files of one name must not be one module.
    digest = crc32(str(path.resolve()).encode())
    name = f"inferx_user_policy_{digest:08x}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    # A user's folder is not ours to leave a bytecode cache in.
    writes_not, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = getattr(error, "lineno", None)
        at = f":{line}" if line else ""
        raise LoadError(f"policy {path}{at}: {type(error).__name__}: {error}") from error
    finally:
        sys.dont_write_bytecode = writes_not
    return module

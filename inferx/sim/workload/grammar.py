"""How the command line writes a choice with parameters: `gamma:rate=5,cv=4`, or `gamma:5,4`.

Values without a key fill the fields in order; numbers of a list are joined by `/`.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, TypeVar

from inferx.core.errors import DescriptionError
from inferx.sim.workload.arrivals import Arrivals, Diurnal, Gamma, Mmpp, Poisson, Weibull
from inferx.sim.workload.generate import Fixed, LogNormal, Size
from inferx.sim.workload.popularity import Popularity

__all__ = ["parse_arrivals", "parse_popularity", "parse_size"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Zipf:
    alpha: float
    sticky: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Uniform:
    sticky: float = 0.0
    alpha: ClassVar[float] = 0.0


def parse_arrivals(text: str) -> Arrivals:
    """Parse an arrival process."""
    kinds: dict[str, type[Arrivals]] = {
        "poisson": Poisson,
        "gamma": Gamma,
        "weibull": Weibull,
        "diurnal": Diurnal,
        "mmpp": Mmpp,
    }
    return _parse("arrivals", text, kinds)


def parse_size(text: str) -> Size:
    """Parse a distribution of lengths or durations; a bare number is always that."""
    kinds: dict[str, type[Size]] = {"lognormal": LogNormal, "fixed": Fixed}
    if not text.replace(".", "", 1).isdecimal():
        return _parse("size", text, kinds)
    try:
        return Fixed(value=float(text))
    except DescriptionError as error:
        raise DescriptionError(f"size {text!r}: {error}") from error


def parse_popularity(text: str, functions: int) -> Popularity:
    """Parse a popularity over so many functions."""
    kinds: dict[str, type[_Zipf | _Uniform]] = {"zipf": _Zipf, "uniform": _Uniform}
    parsed = _parse("popularity", text, kinds)
    try:
        return Popularity(functions=functions, alpha=parsed.alpha, sticky=parsed.sticky)
    except DescriptionError as error:
        raise DescriptionError(f"popularity {text!r}: {error}") from error


def _parse(what: str, text: str, kinds: Mapping[str, type[T]]) -> T:
    """Build the dataclass that `text` names."""
    name, _, rest = text.partition(":")
    kind = kinds.get(name)
    if kind is None:
        usages = "; or ".join(_usage(known, kinds[known]) for known in kinds)
        raise DescriptionError(f"{what} {text!r}: unknown kind {name!r}; expected {usages}")
    known = fields(kind)  # type: ignore[arg-type]  # every kind is a dataclass
    values: dict[str, Any] = {}
    for position, item in enumerate(rest.split(",") if rest else ()):
        key, equals, value = item.partition("=")
        if not equals and position < len(known):
            key, value = known[position].name, item
        field = next((field for field in known if field.name == key.strip()), None)
        number = None if field is None else _value(value, listed=field.type is not float)
        if field is None or number is None or field.name in values:
            wanted = f"expected {_usage(name, kind)}"
            raise DescriptionError(f"{what} {text!r}: {item!r} does not fit; {wanted}")
        values[field.name] = number
    missing = [f.name for f in known if f.default is MISSING and f.name not in values]
    if missing:
        wanted = f"expected {_usage(name, kind)}"
        raise DescriptionError(f"{what} {text!r}: {', '.join(missing)} is missing; {wanted}")
    try:
        return kind(**values)
    except DescriptionError as error:
        raise DescriptionError(f"{what} {text!r}: {error}") from error


def _value(text: str, *, listed: bool) -> float | tuple[float, ...] | None:
    try:
        return tuple(map(float, text.split("/"))) if listed else float(text)
    except ValueError:
        return None


def _usage(name: str, kind: type[object]) -> str:
    """Return the form of a kind, such as `gamma:rate=R,cv=C`."""
    shown: list[str] = []
    for field in fields(kind):  # type: ignore[arg-type]  # every kind is a dataclass
        letter = field.name[0].upper()
        form = f"{field.name}={letter}" + ("" if field.type is float else f"1/{letter}2")
        shown.append(form if field.default is MISSING else f"[{form}]")
    return f"{name}:{','.join(shown)}"

"""What the commands' options say: seeds, policies with their settings, seconds, profiles."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import click
from click.core import ParameterSource

from inferx.core.errors import DescriptionError
from inferx.core.protocols import PolicyBundle
from inferx.core.units import FOREVER_NS, NS_PER_S
from inferx.load import LoadError, Setting, load_bundle, parse_setting

__all__ = [
    "Chosen",
    "OrderedCommand",
    "canonical_words",
    "chosen_policies",
    "parse_seeds",
    "seconds_ns",
    "share",
]

MAX_SEEDS: Final = 10_000
_SEEDS: Final = re.compile(r"([0-9]{1,9})(?:\.\.([0-9]{1,9}))?")


class OrderedCommand(click.Command):
    """Remembers in which order its options came, in `ctx.meta["order"]`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as usual; note the name of each option and argument as it comes."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta["order"] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A policy as the command line asks for it."""

    spec: str
    settings: tuple[tuple[str, Setting], ...]

    @property
    def words(self) -> str:
        """What was asked for: `default gaps=4`."""
        return " ".join([self.spec, *(f"{name}={_shown(value)}" for name, value in self.settings)])

    @property
    def make(self) -> "partial[PolicyBundle]":
        """Makes a fresh bundle, here or in another process."""
        return partial(load_bundle, self.spec, dict(self.settings))

    def label(self, bundle: PolicyBundle) -> str:
        """Return what tables call it: the bundle's name, and what was set."""
        told = (f"{name}={_shown(value)}" for name, value in self.settings)
        return " ".join([bundle.name, *told])


def _shown(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def chosen_policies(
    order: Sequence[str], policies: Sequence[str], settings: Sequence[str]
) -> list[Chosen]:
    """Give each `--set` to the `--policy` before it.

    Args:
        order: Names of all options, as they came; `policies` and `settings` among them.
        policies: Values of `--policy`, in order.
        settings: Values of `--set`, in order.
    """
    specs, values = iter(policies), iter(settings)
    chosen: list[Chosen] = []
    for name in order:
        if name == "policies":
            chosen.append(Chosen(next(specs), ()))
        elif name == "settings":
            text = next(values)
            setting = parse_setting(text)
            if not chosen:
                raise LoadError(f"--set {text}: no --policy before it; expected one to set it for")
            last = chosen[-1]
            if any(setting[0] == known for known, _ in last.settings):
                raise LoadError(f"--set {text}: {setting[0]} a second time for {last.spec}")
            chosen[-1] = Chosen(last.spec, (*last.settings, setting))
    return chosen


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse `3`, `1..5`, `1,4,7` or a mixture; each seed once, in the order given."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        found = _SEEDS.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last or last - first >= MAX_SEEDS:
            raise DescriptionError(f"seed {text!r}: {part!r}; expected such as 3, 1..5 or 1,4,7")
        for seed in range(first, last + 1):
            if seed in seeds:
                raise DescriptionError(f"seed {text!r}: {seed} twice; expected each seed once")
            seeds[seed] = None
    return tuple(seeds)


def seconds_ns(what: str, value: float, *, unit_ns: int = NS_PER_S) -> int:
    """Return a time in nanoseconds; `value` counts units of `unit_ns`."""
    if not 0 <= value < FOREVER_NS / unit_ns:  # Also refuses NaN.
        raise DescriptionError(f"{what} {value:g}: expected a time, at least 0")
    return round(value * unit_ns)


def share(what: str, value: float) -> float:
    """Return a share that is below one."""
    if not (math.isfinite(value) and 0 <= value < 1):
        raise DescriptionError(f"{what} {value:g}: expected a share, at least 0 and below 1")
    return value


def canonical_words(ctx: click.Context, *, without: frozenset[str]) -> Iterator[str]:
    """Yield the command as words that do the same: defaults left out, options in one order.

    Args:
        ctx: The command's context, parsed.
        without: Parameters that do not shape the result.
    """
    policies: Sequence[Chosen] = ctx.meta.get("chosen", ())
    yield from ("inferx", str(ctx.info_name))
    for parameter in ctx.command.params:
        value = ctx.params.get(str(parameter.name))
        if parameter.name == "policies":
            for policy in policies:
                yield from ("--policy", policy.spec)
                for name, setting in policy.settings:
                    yield from ("--set", f"{name}={_shown(setting)}")
        elif (
            parameter.name not in without | {"settings"}
            and ctx.get_parameter_source(str(parameter.name)) is not ParameterSource.DEFAULT
        ):
            yield from _words(parameter, value)


def _words(parameter: click.Parameter, value: Any) -> Iterator[str]:
    if isinstance(parameter, click.Argument):
        yield str(value)
    elif isinstance(parameter, click.Option) and parameter.is_flag:
        yield (parameter.opts if value else parameter.secondary_opts)[-1]
    else:
        for item in cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,):
            yield from (parameter.opts[-1], str(item))

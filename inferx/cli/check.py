"""`inferx check`: hold a policy to the kernel's rules before it meets a cluster."""

import contextlib
import importlib.util
import inspect
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferx.cli.experiment import PROFILE_OF
from inferx.cli.options import Chosen, OrderedCommand, chosen_policies
from inferx.core.errors import DescriptionError, PolicyError
from inferx.core.watched import filled
from inferx.load import shipped_module
from inferx.sim.conformance import LIMIT_S, Finding, compare_digests, conform, digests
from inferx.sim.contained import without_exit
from inferx.sim.profile import Profile, load_profile

__all__ = ["check"]

_HASH_SEEDS = ("1", "2")
_STYLE = {"pass": "green", "warn": "yellow", "fail": "bold red"}
_TOTAL = {"pass": "passed", "warn": "warned of", "fail": "failed"}
_MOST_S = 86_400.0


@click.command(
    cls=OrderedCommand,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  inferx check --policy my_policy.py:bundle --set hold_s=60",
)
@click.option("--policy", "policies", multiple=True, required=True, metavar="NAME|FILE.py:BUNDLE")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of it.")
@click.option(
    "--limit",
    default=LIMIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long one small world may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--digests", "only_digests", is_flag=True, hidden=True)
@click.pass_context
def check(
    ctx: click.Context,
    /,
    *,
    policies: tuple[str, ...],
    settings: tuple[str, ...],
    limit: float,
    as_json: bool,
    only_digests: bool,
) -> None:
    """Hold a policy to the kernel's rules.

    Runs it in small worlds: crowded, mixed, failing, empty. Says which slot breaks which rule.
    Exits with 0 only when it passes all; slow ones, and slots that were never asked, are warned of.
    """
    if not 0.001 <= limit <= _MOST_S:  # Also refuses NaN.
        raise DescriptionError(f"limit {limit:g}: expected seconds, 0.001 to {_MOST_S:,.0f}")
    if only_digests:
        _die_with_whom_asked()
    chosen = chosen_policies(ctx.meta["order"], policies, settings)
    if len(chosen) != 1:
        raise click.UsageError("expected one --policy")
    policy = chosen[0]
    # What a policy prints is not our output, and it does not end us.
    with contextlib.redirect_stdout(sys.stderr), without_exit():
        mechanism = policy.make().mechanism
        profile = load_profile(PROFILE_OF.get(mechanism, PROFILE_OF["none"]))
        if only_digests:
            found = digests(policy.make, profile, limit_s=limit)
            sys.__stdout__.write(msgspec.json.encode(found).decode())  # type: ignore[union-attr]  # a command has a stdout
            return
        findings = list(_shown_as_found(policy, profile, limit))
    failed = sum(finding.verdict == "fail" for finding in findings)
    if as_json:
        facts = {"policy": policy.words, "passed": not failed, "findings": findings}
        click.echo(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode())
    else:
        _print(policy, findings)
    sys.exit(1 if failed else 0)


def _findings(policy: Chosen, profile: Profile, limit_s: float) -> Iterator[Finding]:
    if not (yield from conform(policy.make, profile, _sources(policy), limit_s=limit_s)):
        return
    with ExitStack() as stack:
        # Both begin before either is waited for.
        asked = [stack.enter_context(_Elsewhere(policy, seed, limit_s)) for seed in _HASH_SEEDS]
        try:
            one, two = [other.digests() for other in asked]
        except PolicyError as error:
            yield Finding(check="deterministic", verdict="fail", told=str(error))
            return
    yield compare_digests("deterministic", one, two, "runs under two values of PYTHONHASHSEED")


def _shown_as_found(policy: Chosen, profile: Profile, limit_s: float) -> Iterator[Finding]:
    """Yield the findings; tell on stderr how far they are, where that is a terminal."""
    if not sys.stderr.isatty():
        yield from _findings(policy, profile, limit_s)
        return
    with Console(stderr=True).status("checking") as status:
        for finding in _findings(policy, profile, limit_s):
            status.update(f"checked: {finding.check}")
            yield finding


class _Elsewhere:
    """What happens in an interpreter of its own, under another hash seed; it ends with the block.

    Its standard input is a pipe from here: it dies when that closes, however we end.
    """

    def __init__(self, policy: Chosen, hash_seed: str, limit_s: float) -> None:
        words = ["check", "--policy", policy.spec, "--digests", "--limit", str(limit_s)]
        for name, value in policy.settings:
            words += ["--set", f"{name}={value}"]
        program = "import sys; from inferx.cli import main; sys.argv[0] = 'inferx'; main()"
        self._hash_seed = hash_seed
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process.
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, no shell.
            [sys.executable, "-c", program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )

    def digests(self) -> dict[str, str]:
        """Wait for the hash of each scenario.

        Raises:
            PolicyError: The policy cannot be made or run there, as it can here.
        """
        assert self._process.stdout is not None
        out = self._process.stdout.read()
        if self._process.wait():
            self._errors.seek(0)
            told = (self._errors.read().strip().splitlines() or ["no message"])[-1]
            raise PolicyError("whole", f"under PYTHONHASHSEED={self._hash_seed}: {told}", None)
        found: dict[str, str] = msgspec.json.decode(out, type=dict[str, str])
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:  # Closes the pipes, and waits.
            self._errors.close()


def _die_with_whom_asked() -> None:
    """End this process when its standard input closes: whoever started it has ended."""

    def watch() -> None:
        # Not through `sys.stdin`: Python would wait for its lock when it ends.
        while os.read(0, 1):
            pass
        leave(1)

    leave = os._exit  # No exit but this ends a thread's process at once.
    threading.Thread(target=watch, daemon=True).start()


def _sources(policy: Chosen) -> list[Path]:
    """Return the policy's own files: where it is made, and where its slots' classes are."""
    where, colon, _ = policy.spec.rpartition(":")
    where = where if colon else policy.spec
    if where.endswith(".py"):
        files = {where: None}
    else:
        found = importlib.util.find_spec(where if colon else shipped_module(where))
        files = {found.origin: None} if found is not None and found.origin else {}
    bundle = policy.make()
    for slot in filled(bundle):
        made: object = getattr(bundle, slot)
        kind = type(made)
        file = inspect.getsourcefile(kind) if not kind.__module__.startswith("inferx.") else None
        if file is not None and not any(Path(file).samefile(known) for known in files):
            files[file] = None
    return [Path(file) for file in files]


def _print(policy: Chosen, findings: list[Finding]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(min_width=20)
    table.add_column(overflow="fold")
    for finding in findings:
        verdict = Text(finding.verdict, style=_STYLE[finding.verdict])
        table.add_row(verdict, Text(finding.check), Text(finding.told))
    console = Console()
    console.print(table)
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in _STYLE}
    told = ", ".join(f"{count} {_TOTAL[verdict]}" for verdict, count in counts.items() if count)
    console.print(Text(f"\n{policy.words}: {told}"))

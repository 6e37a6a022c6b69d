"""`inferx replay-journal`: whether machines decide again as they did, byte for byte."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from inferx.core.journal import Divergence
from inferx.exec.journal import replayed
from inferx.exec.journal_check import Checked, check_journals
from inferx.load import load_bundle

__all__ = ["replay_journal"]

SUFFIX = ".journal"


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  inferx replay-journal cluster/journals\n"
    "  inferx replay-journal scheduler-1.journal --json",
)
@click.argument("journals", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--check", is_flag=True, help="Also hold the journals of a cluster against each other."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a journal.")
def replay_journal(*, journals: Sequence[Path], check: bool, as_json: bool) -> None:
    """Replay journals, or folders of them, and tell the first step that comes out otherwise.

    With --check, journals of all schedulers, gateways and agents of a cluster are held against
    each other, too: no GPU is promised twice (INV-1), nothing of an older leader is carried out
    (INV-8), no slot is given twice (INV-10). Exits 0 only if every journal replays to its end, and
    nothing is found.
    """
    same = True
    every: list[Path] = []
    for path in journals:
        files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not files:
            raise click.UsageError(f"{path}: no {SUFFIX} in it")
        every += files
        for file in files:
            kind, steps, truncated, divergence = replayed(file, load_bundle)
            same = same and divergence is None
            told: dict[str, Any] = {
                "journal": str(file),
                "machine": kind,
                "steps": steps,
                "truncated": truncated,
                "divergence": None if divergence is None else _told(divergence),
            }
            click.echo(json.dumps(told) if as_json else _line(told))
    if check:
        checked = check_journals(every, load_bundle)
        same = same and not checked.findings
        if as_json:
            click.echo(msgspec.json.encode(checked).decode())
        else:
            _tell_checked(checked)
    if not same:
        sys.exit(1)


def _told(divergence: Divergence) -> dict[str, Any]:
    return {
        "entry": divergence.entry,
        "now_ns": divergence.now_ns,
        "events": msgspec.to_builtins(divergence.events),
        "expected": msgspec.to_builtins(divergence.expected),
        "got": msgspec.to_builtins(divergence.got),
        "error": divergence.error,
    }


def _tell_checked(checked: Checked) -> None:
    for one in checked.findings:
        click.echo(f"{one.journal}: {one.invariant} at {one.at_ns}: {one.what}")
    epochs = len(checked.epochs)
    click.echo(
        f"{len(checked.steps)} journals together, {epochs} epochs: {checked.starts} starts on"
        f" GPUs, {checked.dispatches} requests sent, {len(checked.findings)} breaches"
    )


def _line(told: dict[str, Any]) -> str:
    cut = ", the last one cut off" if told["truncated"] else ""
    head = f"{told['journal']}: {told['machine']}, {told['steps']} steps{cut}"
    found = told["divergence"]
    if found is None:
        return f"{head}: each as it was"
    return f"{head}: step {found['entry']} differs: {found['error'] or found['got']}"

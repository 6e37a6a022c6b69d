"""The page: template, style, scripts and data in one file that opens without a network."""

import os
import tempfile
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from inferx.sim.report.payload import PAGE, payload

__all__ = ["write_report"]

_STYLES: Final = ("report.css",)
_SCRIPTS: Final = ("plot.js", "tables.js", "charts.js", "strips.js", "page.js")


def _part(name: str) -> str:
    return (files("inferx.sim.report") / name).read_text(encoding="utf-8")


def write_report(run: Path, *, title: str = "InferX replay", to: Path | None = None) -> Path:
    """Write the report of the run directory `run` and return its path, `run/report.html`.

    Reads the run's files only, so an old run can be drawn again; the same run gives the same
    bytes. An existing report is replaced in one step.
    """
    to = run / PAGE if to is None else to
    # In a script element, only "<" can end the data.
    encoded = msgspec.json.encode(payload(run), order="sorted").decode().replace("<", "\\u003c")
    page = _part("report.html")
    for mark, text in (
        ("{{title}}", escape(title)),
        ("{{style}}", "\n".join(_part(name) for name in _STYLES)),
        ("{{script}}", "\n".join(_part(name) for name in _SCRIPTS)),
        ("{{data}}", encoded),
    ):
        assert page.count(mark) == 1, f"the template has one {mark}"
        page = page.replace(mark, text)
    handle, name = tempfile.mkstemp(prefix=".report.", dir=to.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(page)
    unfinished = Path(name)
    unfinished.chmod(0o644)
    unfinished.replace(to)
    return to

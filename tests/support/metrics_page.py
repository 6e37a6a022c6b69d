"""The second part of docs/metrics.md, read as data."""

import re
from typing import NamedTuple

from system_parts import ROOT

__all__ = ["Told", "documented", "questions"]

PAGE = ROOT / "docs" / "metrics.md"
SECTIONS = {
    "Every service": "",
    "Gateway and scheduler": "audit",
    "Gateway": "gateway",
    "Scheduler": "scheduler",
    "Agent": "agent",
    "State service": "state",
}


class Told(NamedTuple):
    """One metric, as it is documented or told."""

    name: str
    kind: str
    labels: tuple[str, ...]


def documented() -> dict[str, list[Told]]:
    """Return the metrics of each service, in the page's order.

    "" stands for every one, "audit" for those that keep an audit log.
    """
    _, _, part = PAGE.read_text().partition("\n# What a running cluster tells\n")
    found: dict[str, list[Told]] = {}
    for section in part.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|[^|]*\|[^|]*\|$", body, re.MULTILINE)
        lines = [line for line in body.splitlines() if line.startswith("| `")]
        assert len(rows) == len(lines), f"{title}: a row that is none"
        found[SECTIONS[title]] = [
            Told(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows
        ]
    assert set(found) == set(SECTIONS.values())
    return found


def questions() -> list[str]:
    """Return the page's examples of PromQL."""
    [block] = re.findall(r"^```promql$(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for line in block.splitlines() if line and not line.startswith("#")]

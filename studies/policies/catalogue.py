"""Lists the shipped policies from what their files say of themselves: writes docs/museum.md.

python -m studies.policies.catalogue
"""

import importlib
import inspect
import re
from dataclasses import fields
from pathlib import Path

from benchmarks.about import program
from inferx.load import bundle_names, load_bundle, shipped_module

__all__ = ["PAGE", "WHOLE", "catalogue", "replaced_by", "slot_of", "source_of"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "museum.md"
WHOLE = "whole bundles"
_SLOTS = (
    WHOLE,
    "keep-alive",
    "prewarm",
    "scaling",
    "routing",
    "queueing",
    "eviction",
    "placement",
)
_DEPTH = 3
"""Parts of the name of a module that lies in no slot's folder: `inferx.policy.NAME`."""

HEAD = """# The museum of serving policies

Written by `python -m studies.policies.catalogue` from the files themselves. Each is one file, named as the policy is;
`inferx replay ... --policy NAME` finds it. A policy of one slot is [`plain`](../inferx/policy/plain.py) with what the
table says replaced, and nothing else, so that policies are compared all else being equal. A file cites its source, gives the published defaults as its settings,
and lists under `Differs:` where it departs; `tests/policy` holds it to a published example, figure or theorem, and what it
computes over arrays to a plain loop. How they compare: [the museum's table](results/policies.md); how long they take:
[decisions](results/decisions.md). Rules that only pack: [packing.md](packing.md).

Admission has one policy alone, which lets everybody in; a function's queue bounds what waits. Not here, because what they need cannot be had from the kernel, or could not be proved: AlpaServe and MuxServe (model
parallelism and throughput profiles), slack-aware eviction (an idle pod has no waiting requests), ARIMA in the hybrid
histogram, live migration of a running request, shedding by deadline (admission sees neither slots nor service times).
"""


def slot_of(policy: str) -> str:
    """Return the slot whose folder a policy's file lies in, or that it is a whole bundle."""
    parts = shipped_module(policy).split(".")
    return parts[-2].replace("_", "-") if len(parts) > _DEPTH else WHOLE


def replaced_by(policy: str, slot: str) -> str:
    """Return what of `plain` a policy of one slot replaces; nothing of a whole bundle."""
    if slot == WHOLE:
        return "all"
    made, plain = load_bundle(policy), load_bundle("plain")
    names = [
        field.name.removesuffix("_ns").replace("_", "-")
        for field in fields(plain)
        if field.name not in ("name", "observers")
        and getattr(made, field.name) != getattr(plain, field.name)
    ]
    return ", ".join(names)


def source_of(policy: str) -> str:
    """Return what a policy's file cites, in one line; `ours` where it does."""
    text = inspect.getdoc(importlib.import_module(shipped_module(policy))) or ""
    found = re.search(r"^Source: (.+?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        return "ours"
    cited = " ".join(found.group(1).split())
    return _work(cited).rstrip(".")


def _work(cited: str) -> str:
    """Return a citation without what its rule is: up to a stop outside quotes and brackets."""
    quoted = depth = 0
    for at, letter in enumerate(cited):
        quoted ^= letter in '"`'
        depth += (letter == "(") - (letter == ")")
        initial = letter == "." and at > 1 and cited[at - 1].isupper() and cited[at - 2] in " ("
        short = initial or cited[:at].endswith((" p", " pp", "(p", "vol"))
        stops = letter in ";:" or (letter == "." and not short)
        if stops and not quoted and not depth and cited[at + 1 : at + 2] in (" ", ""):
            return cited[:at]
    return cited


def catalogue() -> str:
    """Return the page."""
    names = bundle_names()
    lines = [HEAD]
    for slot in _SLOTS:
        lines += [
            f"## {slot.capitalize()}",
            "",
            "| policy | what it does | replaces | source |",
            "|---|---|---|---|",
        ]
        for name in names:
            if slot_of(name) == slot:
                module = shipped_module(name)
                said = inspect.getdoc(importlib.import_module(module)) or ""
                file = module.replace(".", "/") + ".py"
                first = said.splitlines()[0].removesuffix(" Ours.").removeprefix("Ours: ")
                first = first[0].upper() + first[1:]
                cells = [f"[`{name}`](../{file})", first, replaced_by(name, slot), source_of(name)]
                lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    program("studies.policies.catalogue", __doc__).parse_args()
    PAGE.write_text(catalogue())

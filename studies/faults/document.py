"""Writes docs/results/faults.md and its data."""

import json
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.about import processor

__all__ = ["about", "document", "page"]

HEAD = """# Nothing lost under load

Written by `python -m studies.faults` at commit `{commit}`, {date}: {machine}, Linux {kernel}, seed {seed}.
The measurements: [`data/faults.json`](data/faults.json).

Each row is a cluster of its own (`inferx up`, stand-in workers, one declared GPU of 80 GiB; two such nodes for the cut;
three members of etcd for theirs, SQLite else). Eight clients ask two functions all the time and two others now and then, half
of it as streams. Every request is new, and its right answer is known: a function of its own text. Then the fault; after it, a
function that nobody has asked is asked, too.

"""
COLUMNS = (
    "fault", "sent", "right", "ask again", "broken", "no connection", "wrong", "twice",
    "gap", "back", "ordered", "new function", "starts", "epochs", "breaches", "load",
)  # fmt: skip
TAIL = """
- **ask again**: 429, 502 or 503 with `Retry-After`, or an error event in a stream. **broken**: the connection ended before the
  answer did. **no connection**: the gateway was away; nothing was accepted. **wrong**: any other status, another answer than this
  request's, a part that looks like a whole, or no end. **twice**: requests that workers began more than once, by their logs.
- **gap**: the longest time without any right answer. **back**: from the return of what was hurt until both functions had
  answered requests sent after it. **ordered**: how long the first request for a function without a pod, sent at the same moment, waited until
  a leader had ordered a pod for it. **new function**: until that function answered, its pod's start included. Seconds.
  A return is: the service serves again; the process goes on; the packets pass; for a worker, the moment of its death.
- **starts** on GPUs and **epochs** of leaders are those of the whole run. **breaches** are what `inferx replay-journal --check`
  finds in the journals of all schedulers, gateways and agents held against each other: GPUs promised twice (INV-1), orders of
  older leaders carried out (INV-8), slots given twice (INV-10), steps that do not replay (INV-7).
- **load**: the machine's load average as the row began. Other programs ran beside it: times are what they were, not what they
  are on an idle machine. Every start on a GPU is a Python process that is started, about a second on an idle core.
- The cut drops all packets between an agent and its scheduler for {cut_s:.0f} s, with nftables in a network namespace; what the
  node had is started on the other one meanwhile, and the node's own pods are ended when it is back.
"""
COUNTS = ("sent", "right", "again", "broken", "unheard", "wrong", "twice")


def about() -> dict[str, Any]:
    """Return where and of what a fault is measured, as it begins."""
    return {
        "commit": _said("git", "rev-parse", "--short=12", "HEAD"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{processor()}, {_said('nproc')} cores",
        "kernel": platform.release(),
        "load": float(Path("/proc/loadavg").read_text().split()[0]),
        "seed": 1,
    }


def document(found: Mapping[str, Mapping[str, Any]], results: Path, order: Sequence[str]) -> None:
    """Write data and page; faults that were measured before and not now stay."""
    data = results / "data" / "faults.json"
    known = json.loads(data.read_text()) if data.exists() else {}
    every = known | dict(found)
    told = {name: every[name] for name in order if name in every}
    data.write_text(json.dumps(told, indent=1) + "\n")
    (results / "faults.md").write_text(page(told))


def page(told: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page of what was measured."""
    places = [one["about"] for one in told.values()]

    def each(key: str) -> str:
        return ", ".join(dict.fromkeys(str(one[key]) for one in places))

    head = HEAD.format(
        **{key: each(key) for key in ("commit", "date", "machine", "kernel", "seed")}
    )
    rows = [
        (
            name,
            *(f"{one[column]:,}" for column in COUNTS),
            *(f"{one[column]:.1f}" for column in ("gap_s", "back_s", "ordered_s", "fresh_s")),
            *(str(one[column]) for column in ("starts", "epochs", "breaches")),
            f"{one['about']['load']:.0f}",
        )
        for name, one in told.items()
    ]
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, ("---",) * len(COLUMNS), *rows)]
    cut_s = max((one.get("cut_s", 0.0) for one in told.values()), default=0.0)
    return head + "\n".join(lines) + "\n" + TAIL.format(cut_s=cut_s)


def _said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

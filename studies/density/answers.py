"""What the rows say: verdicts, computed and not written by hand."""

from collections.abc import Iterable
from dataclasses import dataclass

from inferx.policy.parts.host_market import RESERVE
from studies.density.points import MECHANISMS, MODELS, NODES, TARGET_S

BUSY_PCT = 80.0
"""Where the claim begins."""
REFUSED_PCT = 1.0
"""A point that refuses more than this answers nobody's question."""
FEW = 30
"""A p99 over fewer cold requests is not one."""
KEPT = 1.0 - RESERVE
"""Share of host memory that `default` gives to suspended pods."""


@dataclass(frozen=True)
class Verdict:
    """What one node, model and mechanism reach, over loads."""

    node: str
    model: str
    profile: str
    dram_s: float
    """Least cold TTFT: a lone start from host memory on idle links, and a prefill."""
    nvme_s: float
    """The same from disk; a cold start where the mechanism knows no restore."""
    alone_pct: float
    """Busy share with a GPU for each function."""
    met: dict | None
    """The busiest point whose p99 cold TTFT is under the bound."""
    at_busy: dict | None
    """Of the points that are busy enough for the claim, the one with the lowest p99."""
    fit: float
    """Functions that fit suspended in the node's host memory."""

    @property
    def possible(self) -> bool:
        """Whether even a lone start on an idle node is under the bound."""
        return self.dram_s < TARGET_S

    @property
    def holds(self) -> bool:
        """Whether the claim holds here."""
        return self.met is not None and self.met["busy_pct"] >= BUSY_PCT


def usable(row: dict) -> bool:
    """Tell whether a row's numbers may be quoted."""
    return row["refused_pct"] < REFUSED_PCT and row["cold"] >= FEW


def verdicts(found: dict) -> list[Verdict]:
    """Return one verdict for each mechanism, model and node, in that order."""
    floors = {(f["node"], f["model"], f["profile"]): f for f in found["floors"]}
    rows = [row for row in found["rows"] if row["sweep"] in ("pack", "alone")]
    out = []
    for profile in MECHANISMS:
        for model in MODELS:
            for node in NODES:
                of = [r for r in rows if (r["node"], r["model"]) == (node, model)]
                packed = [r for r in of if r["sweep"] == "pack" and r["profile"] == profile]
                good = [r for r in packed if usable(r)]
                met = [r for r in good if r["cold_ttft_p99_s"] < TARGET_S]
                busy = [r for r in good if r["busy_pct"] >= BUSY_PCT]
                floor = floors[node, model, profile]
                out.append(
                    Verdict(
                        node,
                        model,
                        profile,
                        floor["dram_s"],
                        floor["nvme_s"],
                        next(r["busy_pct"] for r in of if r["sweep"] == "alone"),
                        max(met, key=lambda r: r["busy_pct"], default=None),
                        min(busy, key=lambda r: r["cold_ttft_p99_s"], default=None),
                        packed[0]["fit_in_dram"],
                    )
                )
    return out


def sweep(found: dict, **wanted: object) -> list[dict]:
    """Return the rows whose fields have the wanted values."""
    return [
        row for row in found["rows"] if all(row.get(key) == value for key, value in wanted.items())
    ]


def span(values: Iterable[float], digits: int = 0) -> str:
    """Return `low to high`, or one number where they print alike."""
    ordered = sorted(values)
    low, high = f"{ordered[0]:.{digits}f}", f"{ordered[-1]:.{digits}f}"
    return low if low == high else f"{low} to {high}"

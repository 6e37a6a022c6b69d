"""Writes docs/results/speed.md from a measurement."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["write_document"]

DOCUMENT = Path(__file__).parents[1] / "docs" / "results" / "speed.md"

PEERS = (
    ("Dynamo mocker 1.6.1", "Rust", "engine iteration", "3,366 to 20,777", "37 to 616"),
    ("SplitwiseSim 8f99e7d", "Python", "engine iteration", "1,795", "283"),
    ("BLIS f90a1e3a", "Go", "engine iteration", "180 to 1,042", "67 to 276"),
    ("Vidur 7d47513", "Python", "engine iteration", "117 to 514", "488 to 693"),
    ("faas-sim", "Python", "request", "59,800", "213"),
    ("SimFaaS 0.2.2", "Python", "request", "58,600", "174"),
    ("bare SimPy 4.1.1, M/M/8", "Python", "kernel", "142,000", "24"),
)
"""Name, language, what is modelled, requests/s, peak MiB: measured once, on 2 cores."""


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [_row(*head), _row(*("---" for _ in head)), *(_row(*row) for row in rows), ""]


def _spent(shares: Mapping[str, float], total: float, unit: str) -> list[tuple[str, ...]]:
    return [
        (room, f"{100 * share:.0f} %", f"{share * total:.1f} {unit}")
        for room, share in shares.items()
        if share >= 0.005
    ]


def write_document(m: Mapping[str, Any]) -> None:
    """Write the document of one measurement, see `benchmarks.speed`."""
    warm, floor = m["warm_request_us"]["min"], m["floor_two_timeouts_us"]["min"]
    place, one_pass = m["placement_4096_gpus_us"], m["floor_one_numpy_pass_us"]
    big = m["million_requests_5000_functions_4096_gpus"]
    wall = big["wall_s"]
    million = f"{big['finished']:,} requests, 5,000 functions, 4,096 GPUs, {big['starts']:,} starts"
    lines = [
        "# Speed of the simulator",
        "",
        f"Written by `{m['command']}` at commit `{m['commit'][:12]}`, {m['date']}:",
        f"{m['machine']}, Python {m['python']}, SimPy {m['simpy']}, numpy {m['numpy']}, seed",
        f"{m['seed']}; the least of {m['rounds']} rounds. The measurements:",
        "`benchmarks/results/speed.json`.",
        "",
        "## Beside the floors",
        "",
        *_table(
            ("What", "Cost", "Floor, in the same run", "Ratio", "Target"),
            [
                (
                    "A warm request of tokens at 64 GPUs: arrival, router, scheduler, serving, end",
                    f"{warm:.2f} µs ({1e6 / warm:,.0f} requests/s)",
                    f"two bare SimPy timeouts: {floor:.2f} µs",
                    f"{warm / floor:.1f}",
                    "≤ 10 µs",
                ),
                (
                    "One placement by `default` over 4,096 GPUs",
                    f"{place:.0f} µs",
                    f"one numpy pass over two columns: {one_pass:.1f} µs",
                    f"{place / one_pass:.1f}",
                    "≤ 100 µs",
                ),
                (
                    million,
                    f"{wall:.1f} s, {big['peak_rss_mib']:.0f} MiB",
                    f"two bare timeouts a request: {floor:.2f} s",
                    f"{wall / floor:.0f}",
                    "≤ 60 s, ≤ 500 MiB",
                ),
            ],
        ),
        "## What the rest is spent on",
        "",
        "By sampling, in runs of their own. A library's time counts for the module that calls it.",
        "",
        "A warm request:",
        "",
        *_table(("Where", "Share", "Time"), _spent(m["warm_request_spent"], warm, "µs")),
        "The large run, where the many functions are rarely warm, so that most requests cost a",
        "lease, and every report of load names hundreds of functions:",
        "",
        *_table(("Where", "Share", "Time"), _spent(m["large_run_spent"], wall, "s")),
        "## Peers",
        "",
        "Other simulators, measured once on a machine of two cores; ratios matter, not absolutes.",
        "Those that model every iteration of an engine do more work a request than this one, which",
        "models a pod's tokens by processor sharing in virtual time.",
        "",
        *_table(("Simulator", "Language", "Models", "Requests/s", "Peak MiB"), list(PEERS)),
    ]
    DOCUMENT.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")

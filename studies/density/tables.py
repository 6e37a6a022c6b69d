"""The document's tables, in Markdown."""

from collections.abc import Iterable, Sequence

from studies.density.answers import FEW, Verdict, sweep, usable
from studies.density.causes import PART_MEANS, PARTS
from studies.density.points import SPELLS, TARGET_S


def number(value: float | None, digits: int = 1) -> str:
    """Return a number as text; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], text: int = 1) -> str:
    """Return a Markdown table; the first `text` columns are words, the others numbers."""
    marks = ["---"] * text + ["---:"] * (len(headings) - text)
    lines = ["| " + " | ".join(headings) + " |", "|" + "|".join(marks) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def reached(verdicts: Sequence[Verdict]) -> str:
    """Return what each combination reaches whose lone start is fast enough."""
    rows = []
    for v in verdicts:
        if not v.possible:
            continue
        met, busy = v.met, v.at_busy
        rows.append(
            [
                v.profile,
                v.model,
                v.node,
                number(v.dram_s, 2),
                number(v.nvme_s, 1),
                number(v.alone_pct, 0),
                f"**{met['busy_pct']:.0f}**"
                if v.holds and met
                else number(met and met["busy_pct"], 0),
                number(met and met["per_gpu"], 1),
                number(met and met["cold_ttft_p99_s"], 2),
                number(busy and busy["cold_ttft_p99_s"], 1),
                number(busy and 100 * busy["functions"] / v.fit, 0),
            ]
        )
    return table(
        (
            "mechanism",
            "model",
            "node",
            "floor DRAM, s",
            "floor disk, s",
            "busy % alone",
            "busy % at p99 < 2 s",
            "functions a GPU there",
            "p99 there, s",
            "p99 at 80 % busy, s",
            "of host RAM then, %",
        ),
        rows,
        text=3,
    )


def hopeless(verdicts: Sequence[Verdict], found: dict) -> str:
    """Return the combinations whose lone start is too slow, and what a moderate load makes of it."""
    rows = []
    for v in verdicts:
        if v.possible:
            continue
        (low, *_) = sweep(found, sweep="pack", node=v.node, model=v.model, profile=v.profile)
        rows.append(
            [
                v.profile,
                v.model,
                v.node,
                number(v.dram_s, 2),
                number(v.nvme_s, 1),
                number(low["busy_pct"], 0),
                number(low["cold_ttft_p50_s"], 1) if usable(low) else "-",
                number(low["cold_ttft_p99_s"], 1) if usable(low) else "-",
            ]
        )
    return table(
        (
            "mechanism",
            "model",
            "node",
            "floor DRAM, s",
            "floor disk, s",
            "busy %",
            "cold TTFT p50, s",
            "p99, s",
        ),
        rows,
        text=3,
    )


def where_it_goes(found: dict) -> str:
    """Return the mean cold TTFT by part, and the main causes of those over the bound."""
    rows = []
    for node, model, profile in (
        ("p5.48xlarge", "0.5b", "criu-pinned"),
        ("p5.48xlarge", "3b", "criu-pinned"),
        ("p5.48xlarge", "3b", "sleep"),
        ("p5en.48xlarge", "8b", "criu-pinned"),
        ("g6e.12xlarge", "3b", "criu-pinned"),
        ("p5.48xlarge", "3b", "criu-memfd"),
    ):
        of = sweep(found, sweep="pack", node=node, model=model, profile=profile)
        of = [r for r in of if r["cold"] >= FEW]
        near = [r for r in of if 0.7 < r["load"] < 1.3]
        for row in (near[0], near[-1]) if len(near) > 1 else near:
            slow = sum(row["slow"].values())
            causes = sorted(row["slow"].items(), key=lambda item: -item[1])
            rows.append(
                [
                    f"{model} {profile}, {node}",
                    number(row["busy_pct"], 0),
                    *(number(row["parts_s"][part], 2) for part in PARTS),
                    number(row["cold_ttft_p99_s"], 1),
                    number(100 * slow / row["cold"], 1),
                    ", ".join(f"{part} {100 * n / slow:.0f} %" for part, n in causes[:3]) or "-",
                ]
            )
    headings = (
        "run",
        "busy %",
        *PARTS,
        "p99, s",
        f"over {TARGET_S:g} s, %",
        "because of",
    )
    return table(headings, rows)


def parts() -> str:
    """Return what the names of the parts mean."""
    return "\n".join(f"- *{part}*: {PART_MEANS[part]}." for part in PARTS)


def crowds(found: dict) -> str:
    """Return host memory running out: one load from more and more functions."""
    rows = []
    for row in sweep(found, sweep="crowd"):
        cold = max(1, row["cold"])
        away = cold - row["cold_from"]["resume"]
        rows.append(
            [
                row["profile"],
                str(row["functions"]),
                number(100 * row["functions"] / row["fit_in_dram"], 0),
                number(row["busy_pct"], 0),
                number(row["cold_pct"], 1),
                number(100 * away / cold, 0),
                number(row["cold_ttft_p50_s"] if row["cold"] >= FEW else None, 1),
                number(row["cold_ttft_p99_s"] if row["cold"] >= FEW else None, 1),
                number(row["refused_pct"], 1),
            ]
        )
    headings = (
        "mechanism",
        "functions",
        "of host RAM, %",
        "busy %",
        "cold %",
        "of these from disk, %",
        "cold TTFT p50, s",
        "p99, s",
        "refused %",
    )
    return table(headings, rows)


def bursts(found: dict) -> str:
    """Return the time to the first token of the last of a burst, by size."""
    rows = sweep(found, sweep="burst")
    sizes = [b["burst"] for b in rows[0]["bursts"]]
    return table(
        ("TTFT of the last, s; functions asked for at once:", *map(str, sizes)),
        (
            [
                f"{r['model']} {r['profile']}, {r['node']}",
                *(number(b["last_s"], 1) for b in r["bursts"]),
            ]
            for r in rows
        ),
    )


def spells(found: dict) -> str:
    """Return cold starts by the length of a visit."""
    rows = []
    for profile in dict.fromkeys(r["profile"] for r in sweep(found, sweep="spell")):
        of = {r["spell"]: r for r in sweep(found, sweep="spell", profile=profile)}
        cells = [
            (number(of[s]["cold_pct"], 0), number(of[s]["cold_ttft_p99_s"], 1)) for s in SPELLS
        ]
        rows.append([profile, *(f"{cold} % / {p99} s" for cold, p99 in cells)])
    return table(("cold requests / their p99; requests a visit:", *map(str, SPELLS)), rows)

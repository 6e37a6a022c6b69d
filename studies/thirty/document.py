"""Writes docs/results/thirty.md."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.about import origin, prose

__all__ = ["document"]


def document(found: Mapping[str, Any]) -> str:
    """Return the page of one run."""
    rows = []
    for one in found["rounds"]:
        first = sorted(answer["first_s"] for answer in one["answers"])
        whole = max(answer["whole_s"] for answer in one["answers"])
        told = (statistics.median(first), first[-1], whole)
        cells = (one["round"], *(f"{value:.2f}" for value in told), str(len(one["wrong"])))
        rows.append("| " + " | ".join(cells) + " |")
    states = ", ".join(f"{count} {state}" for state, count in sorted(found["pods"].items()))
    starts = {
        name.removeprefix("starts_"): count
        for name, count in sorted(found["counters"].items())
        if name.startswith("starts_")
    }
    return "\n".join(
        (
            "# Thirty functions on two GPUs, tried",
            "",
            origin(found, "thirty.json"),
            "",
            prose(
                f"""**The GPUs are declared, and the workers stand in**: {found["functions"]}
                function objects that ask for {found["wanted_mb"] / 1000:,.0f} GB of GPU memory in
                all, on {found["gpus"]}, with `inferx up --stand-in-workers`. Each pod is a real
                process with a 1024th of its weights; it is started, suspended, snapshotted by CRIU
                and restored as one on a GPU is, but nothing here was measured on a GPU. What is
                shown: all of them answer through one gateway, streamed, and rightly."""
            ),
            "",
            prose(
                """An answer is right if it is, to the letter, what a worker says that was never
                suspended. Times are in seconds, from the request to the first token, and to the
                last token of the slowest."""
            ),
            "",
            "| round | first token, median | first token, last | all answered | wrong |",
            "|---|---|---|---|---|",
            *rows,
            "",
            prose(
                f"""Pods at the end: {states}. Starts: {
                    ", ".join(f"{count} {name}" for name, count in starts.items())
                }; evictions: {found["counters"].get("evictions", 0)}; suspends:
                {found["counters"].get("suspends", 0)}."""
            ),
            "",
            "## The page meanwhile",
            "",
            "While the first round waits for its pods, and after it:",
            "",
            "![The live page while pods are woken](../pictures/page-waking.png)",
            "",
            "![The live page after the first round, dark](../pictures/page-served.png)",
            "",
        )
    )

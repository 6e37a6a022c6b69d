"""The study's picture: how long requests took, live and as predicted."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

CAUSES = {
    "warm": ("tab:green", "o"),
    "resume": ("tab:blue", "s"),
    "restore-nvme": ("tab:purple", "^"),
    "restore-remote": ("tab:pink", "v"),
    "cold": ("tab:red", "D"),
}
STYLES = (("black", "-"), ("tab:orange", "--"), ("tab:blue", "-"), ("tab:green", ":"))
SHOWN = "predicted (calibrated)"
"""Whose requests are laid beside the live ones, one by one."""


def draw(found: dict, folder: Path) -> None:
    """Draw into a folder."""
    mpl.rcParams.update({"svg.hashsalt": "inferx", "font.size": 9, "axes.axisbelow": True})
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2))
    runs = found["requests"]
    for ax, column, title in (
        (axes[0], "ttft_s", "time to first token, s"),
        (axes[1], "e2e_s", "end to end, s"),
    ):
        for (who, columns), (colour, dashes) in zip(runs.items(), STYLES, strict=False):
            times = np.sort([value for value in columns[column] if value is not None])
            share = np.arange(1, len(times) + 1) / len(columns[column])
            ax.step(times, share, where="post", color=colour, linestyle=dashes, lw=1.4, label=who)
        ax.set_xscale("log")
        ax.set_ylim(0, 1.01)
        ax.set_xlabel(title)
        ax.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("share of requests")
    axes[1].legend(loc="lower right")
    live, best = runs["live"], runs[SHOWN]
    ax = axes[2]
    for cause, (colour, marker) in CAUSES.items():
        rows = [
            (two, one)
            for one, two, what in zip(live["ttft_s"], best["ttft_s"], live["cause"], strict=True)
            if what == cause and one is not None and two is not None
        ]
        if rows:
            ax.plot(*zip(*rows, strict=True), marker, color=colour, ms=4, alpha=0.7, label=cause)
    low, high = ax.get_xlim()
    low, high = min(low, ax.get_ylim()[0], 0.02), max(high, ax.get_ylim()[1])
    low = max(low, 0.02)
    ax.plot([low, high], [low, high], color="grey", lw=1)
    ax.plot([low, high], [2 * low, 2 * high], color="grey", lw=0.7, ls=":")
    ax.plot([low, high], [low / 2, high / 2], color="grey", lw=0.7, ls=":")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(f"time to first token, {SHOWN}, s")
    ax.set_ylabel("live, s")
    ax.grid(alpha=0.3)
    ax.legend(loc="best", title="what it waited for, live")
    figure.suptitle(
        "One trace on a real cluster and in the simulator; dotted: twice and half as long"
    )
    figure.tight_layout()
    figure.savefig(folder / "prediction.svg", metadata={"Date": None})
    plt.close(figure)

"""The study's picture: how long requests took, live and as predicted."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from studies.prediction.compare import KINDS

STYLES = (("black", "-"), ("tab:orange", "--"), ("tab:blue", "-"), ("tab:green", ":"))
"""Of the live runs and of each prediction, in their order."""
NAMES = {
    "warm": "nothing",
    "restore-nvme": "restore from disk",
    "restore-remote": "restore from store",
}


def draw(found: dict, folder: Path) -> None:
    """Draw into a folder."""
    mpl.rcParams.update({"svg.hashsalt": "inferx", "font.size": 9, "axes.axisbelow": True})
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4))
    for ax, column, title in (
        (axes[0], "ttft_s", "time to first token, s"),
        (axes[1], "e2e_s", "end to end, s"),
    ):
        for (who, runs), (colour, dashes) in zip(found["requests"].items(), STYLES, strict=True):
            for number, columns in enumerate(runs):
                _steps(ax, columns[column], colour, dashes, None if number else who)
        ax.set_xscale("log")
        ax.set_ylim(0, 1.01)
        ax.set_xlabel(title)
        ax.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("share of requests")
    axes[1].legend(loc="lower right")
    _kinds(axes[2], found["kinds"])
    runs = len(found["requests"]["live"])
    figure.suptitle(
        f"One trace, {runs} times on a real cluster and, by each profile, {found['draws']} times in the"
        " simulator (of which one is drawn at the left)"
    )
    figure.tight_layout()
    figure.savefig(folder / "prediction.svg", metadata={"Date": None})
    plt.close(figure)


def _steps(ax: Axes, values: list, colour: str, dashes: str, label: str | None) -> None:
    """Draw the share of a run's requests that took at most so long."""
    times = np.sort([value for value in values if value is not None])
    share = np.arange(1, len(times) + 1) / len(values)
    ax.step(times, share, where="post", color=colour, linestyle=dashes, lw=1.2, label=label)


def _kinds(ax: Axes, kinds: dict[str, dict[str, list[float]]]) -> None:
    """Draw for each kind of start the median TTFT, and between which a tenth and nine tenths lie."""
    shown = [kind for kind in KINDS if any(kind in told for told in kinds.values())]
    for place, (told, (colour, _)) in enumerate(zip(kinds.values(), STYLES, strict=True)):
        for row, kind in enumerate(shown):
            if kind in told:
                count, low, mid, high = told[kind]
                y = row + (place - (len(kinds) - 1) / 2) * 0.19
                ax.plot([low, high], [y, y], color=colour, lw=2, alpha=0.6, solid_capstyle="butt")
                ax.plot(mid, y, "o", color=colour, ms=5)
                ax.annotate(
                    f"{count:.0f}", (high, y), xytext=(5, 0), textcoords="offset points",
                    va="center", fontsize=7, color=colour,
                )  # fmt: skip
    ax.set_xscale("log")
    # Where it spans less than a decade or two, numbers between would stand on each other.
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.12)
    ax.set_yticks(range(len(shown)), [NAMES.get(kind, kind) for kind in shown])
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xlabel("time to first token, s: median, p10 to p90")
    ax.set_title("by what requests waited for, and how many in a run", fontsize=9)
    ax.grid(alpha=0.3, axis="x", which="both")

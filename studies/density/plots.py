"""The study's pictures."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from studies.density.answers import BUSY_PCT, FEW, KEPT, sweep, usable
from studies.density.causes import PARTS
from studies.density.points import BURSTY, CROWD, MECHANISMS, MODELS, NODES, TARGET_S

COLOURS = dict(zip(MODELS, plt.get_cmap("viridis")([0.0, 0.2, 0.4, 0.6, 0.75, 0.9]), strict=True))
MARKERS = dict(zip(MODELS, "os^DvX", strict=True))
MECHANISM_COLOURS = dict(zip(MECHANISMS, ("tab:blue", "tab:orange", "tab:purple"), strict=True))
"""None is green: that is the bound."""
BURST_COLOURS = ("tab:pink", "tab:orange", "tab:purple", "tab:red", "tab:brown", "tab:grey")
HIGHEST_S = 8.0
"""Where the picture of causes is cut; what is above is written there."""
PART_COLOURS = dict(
    zip(
        PARTS,
        ("#b8c4ce", "#7a5195", "#003f5c", "#ef5675", "#ffa600", "#d0b48c"),
        strict=True,
    )
)


def draw(found: dict, folder: Path) -> None:
    """Draw every picture into a folder."""
    mpl.rcParams.update(
        {
            "svg.hashsalt": "inferx",
            "font.size": 9,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.3,
        }
    )
    for name, figure in (
        ("density", _claim(found)),
        ("density-causes", _causes(found)),
        ("density-breaks", _breaks(found)),
    ):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


def _claim(found: dict) -> Figure:
    """Draw busy share against cold TTFT: mechanisms by rows, nodes by columns."""
    figure, axes = plt.subplots(
        len(MECHANISMS), len(NODES), figsize=(12, 8.4), sharex=True, sharey=True
    )
    for line, profile in enumerate(MECHANISMS):
        for column, node in enumerate(NODES):
            ax: Axes = axes[line][column]
            ax.fill_between([BUSY_PCT, 100], 0.3, TARGET_S, color="tab:green", alpha=0.2, lw=0)
            ax.axhline(TARGET_S, color="tab:green", lw=1)
            for model in MODELS:
                rows = sweep(found, sweep="pack", node=node, model=model, profile=profile)
                path = [r for r in rows if usable(r)]
                ax.plot(
                    [r["busy_pct"] for r in path],
                    [r["cold_ttft_p99_s"] for r in path],
                    marker=MARKERS[model],
                    markersize=4,
                    lw=1.2,
                    color=COLOURS[model],
                    label=model,
                )
            ax.set_yscale("log")
            ax.set_ylim(0.6, 150)
            ax.xaxis.set_major_locator(MultipleLocator(20))
            ax.set_yticks([1, 2, 5, 10, 30, 100], ["1", "2", "5", "10", "30", "100"])
            ax.minorticks_off()
            ax.set_title(f"{profile} on {node}", fontsize=9)
        axes[line][0].set_ylabel("cold TTFT p99, s")
    for ax in axes[-1]:
        ax.set_xlabel("busy GPU time, %")
    axes[0][0].set_xlim(right=100)
    figure.suptitle(
        "The claim is the green corner: GPUs busy 80 % of the time, p99 cold TTFT under 2 s"
    )
    lines, names = axes[0][0].get_legend_handles_labels()
    figure.legend(lines, names, ncols=len(MODELS), loc="upper center", bbox_to_anchor=(0.5, 0.965))
    figure.tight_layout(rect=(0, 0, 1, 0.955))
    return figure


def _causes(found: dict) -> Figure:
    """Draw what cold requests waited for, as the load rises."""
    shown = (
        ("p5.48xlarge", "3b", "criu-pinned"),
        ("p5.48xlarge", "3b", "sleep"),
        ("p5en.48xlarge", "8b", "criu-pinned"),
        ("g6e.12xlarge", "3b", "criu-pinned"),
    )
    figure, axes = plt.subplots(1, len(shown), figsize=(12, 3.6), sharey=True)
    for ax, (node, model, profile) in zip(axes, shown, strict=True):
        rows = sweep(found, sweep="pack", node=node, model=model, profile=profile)
        rows = [r for r in rows if r["cold"] >= FEW]
        at = range(len(rows))
        base = [0.0] * len(rows)
        for part in PARTS:
            height = [r["parts_s"][part] for r in rows]
            ax.bar(at, height, bottom=base, color=PART_COLOURS[part], label=part, width=0.7)
            base = [b + h for b, h in zip(base, height, strict=True)]
        p99 = [r["cold_ttft_p99_s"] for r in rows]
        ax.plot(at, p99, "k_", ms=14, label="p99")
        for x, value in enumerate(p99):
            if value > HIGHEST_S:
                ax.annotate(
                    f"p99\n{value:.0f} s ↑", (x, HIGHEST_S - 0.1), ha="center", va="top", fontsize=7
                )
        ax.set_xticks(at, [f"{r['busy_pct']:.0f} %" for r in rows])
        ax.set_xlabel("busy GPU time")
        ax.set_title(f"{model}, {profile}\n{node}", fontsize=9)
        ax.set_ylim(0, HIGHEST_S)
    axes[0].set_ylabel("cold TTFT, s: mean by part, and p99")
    axes[0].legend(fontsize=7, loc="upper left")
    figure.tight_layout()
    return figure


def _breaks(found: dict) -> Figure:
    """Draw host memory, bursts and spells: three ways to leave the green corner."""
    figure, (memory, burst, spells) = plt.subplots(1, 3, figsize=(12, 3.8))
    for profile in MECHANISMS:
        rows = sweep(found, sweep="crowd", profile=profile)
        memory.plot(
            [100 * r["functions"] / r["fit_in_dram"] for r in rows if r["cold"] >= FEW],
            [r["cold_ttft_p99_s"] for r in rows if r["cold"] >= FEW],
            marker="o",
            ms=3.5,
            color=MECHANISM_COLOURS[profile],
            label=profile,
        )
    memory.axvline(100 * KEPT, color="grey", ls=":", lw=1, label="live pods get the rest")
    memory.set_xlabel("functions, % of what fits in host memory")
    memory.set_title(f"Host memory: {CROWD[1]} on {CROWD[0]}, load {CROWD[2]:g}", fontsize=9)
    for colour, (node, model, profile) in zip(BURST_COLOURS, BURSTY, strict=True):
        (row,) = sweep(found, sweep="burst", node=node, model=model, profile=profile)
        burst.plot(
            [b["burst"] for b in row["bursts"]],
            [b["last_s"] for b in row["bursts"]],
            marker="o",
            ms=3.5,
            color=colour,
            label=f"{model} {profile}, {node.partition('.')[0]}",
        )
    burst.set_xscale("log", base=2)
    burst.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    burst.set_xlabel("functions asked for at the same instant")
    burst.set_title("Bursts on an idle node: the last one's TTFT", fontsize=9)
    for profile in MECHANISMS:
        rows = sweep(found, sweep="spell", profile=profile)
        spells.plot(
            [r["spell"] for r in rows],
            [r["cold_ttft_p99_s"] for r in rows],
            marker="o",
            ms=3.5,
            color=MECHANISM_COLOURS[profile],
            label=profile,
        )
    spells.set_xscale("log", base=4)
    spells.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
    spells.set_xlabel("requests a visit")
    spells.set_title("Short visits: 3b on p5.48xlarge, load 0.75", fontsize=9)
    for ax, columns in ((memory, 2), (burst, 1), (spells, 1)):
        ax.axhline(TARGET_S, color="tab:green", lw=1)
        ax.set_yscale("log")
        ax.set_yticks([1, 2, 5, 10, 30, 100], ["1", "2", "5", "10", "30", "100"])
        ax.set_ylim(0.6, 150)
        ax.legend(fontsize=7, ncols=columns)
        ax.minorticks_off()
    memory.set_ylabel("cold TTFT p99, s")
    burst.set_ylabel("TTFT of the last, s (median)")
    spells.set_ylabel("cold TTFT p99, s")
    figure.tight_layout()
    return figure

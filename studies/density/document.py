"""The document: its sentences, with every number computed from the rows."""

from studies.density import tables
from studies.density.answers import KEPT, Verdict, span, sweep, usable, verdicts
from studies.density.points import (
    CROWD,
    LOADS,
    MODELS,
    NODES,
    PAUSE_S,
    SPELL,
    TOKENS_IN,
    TOKENS_OUT,
    VISITORS,
)

CLOSE_S = 3.0
"""A p99 that misses the bound by a second at most."""
CALM = 0.6
"""A load at which a node has time for everybody."""


def document(found: dict) -> str:
    """Return the document."""
    of = verdicts(found)
    return TEXT.format(
        answer=_answer(of),
        sizes=_sizes(of),
        reached=tables.reached(of),
        hopeless=tables.hopeless(of, found),
        parts=tables.parts(),
        where=tables.where_it_goes(found),
        crowds=tables.crowds(found),
        crowd=f"{CROWD[1]} on one {CROWD[0]} at a load of {CROWD[2]:g}",
        bursts=tables.bursts(found),
        spells=tables.spells(found),
        memory=_memory(found),
        loads=", ".join(f"{load:g}" for load in LOADS),
        left=f"{100 * (1.0 - KEPT):.0f}",
        room=_room(found),
        spell=SPELL,
        pause=PAUSE_S,
        tokens_in=TOKENS_IN,
        tokens_out=TOKENS_OUT,
        visitors=VISITORS,
        nodes=", ".join(NODES),
        commit=found["commit"][:12],
        machine=found["machine"],
    )


def _answer(of: list[Verdict]) -> str:
    possible = [v for v in of if v.possible]
    met = [v.met["busy_pct"] for v in possible if v.met]
    full = [f"{v.model} on {v.node} with `{v.profile}`" for v in possible if v.holds]
    rest = [v for v in possible if not v.at_busy and not v.holds]
    near = [(v.at_busy, v.fit) for v in possible if v.at_busy and not v.holds]
    p99 = [row["cold_ttft_p99_s"] for row, _ in near]
    close = sum(value < CLOSE_S for value in p99)
    slow = [(row, fit) for row, fit in near if row["cold_ttft_p99_s"] >= CLOSE_S]
    short = sum(row["functions"] > fit * KEPT for row, fit in slow)
    count = len(of)
    return "\n".join(
        (
            (
                f"- **Packing works; the bound caps it.** A GPU for each model is {span(v.alone_pct for v in of)} % busy under"
                f" this traffic. Packed, it is {span(met)} % busy at a p99 cold TTFT under 2 s, in {len(met)} of the"
                f" {len(possible)} combinations of model, node and mechanism whose lone start is that fast at all."
            ),
            (
                f"- **The claim as it stands, 80 % busy under 2 s, holds in {len(full)} of {count} combinations:**"
                f" {', '.join(full) or 'none'}."
            ),
            (
                f"- **{len(near)} more get GPUs 80 % busy, above 2 s**: {close} with a p99 under {CLOSE_S:g} s, for a start"
                f" then waits for room or for another start on its GPU. Of the other {len(slow)}, {short} want more host memory"
                " than the node has for suspended pods: starts come from disk, or are cold."
            ),
            (
                f"- {len(rest)} are never 80 % busy without refusing more than 1 %:"
                f" {', '.join(f'{v.model} on {v.node} with `{v.profile}`' for v in rest) or 'none'}."
            ),
            (
                f"- **{count - len(possible)} of {count} cannot**: their lone start from host memory, on an idle node, takes"
                " 2 s or longer. That is the mechanism's and the PCIe link's doing, not the scheduler's."
            ),
        )
    )


def _sizes(of: list[Verdict]) -> str:
    lines = []
    for profile in dict.fromkeys(v.profile for v in of):
        parts = []
        for node in NODES:
            fast = [v.model for v in of if (v.profile, v.node) == (profile, node) and v.possible]
            assert fast == list(MODELS[: len(fast)]), "what is smaller starts sooner"
            parts.append(f"{node} {'none' if not fast else 'up to ' + fast[-1]}")
        lines.append(f"- `{profile}`: {', '.join(parts)}.")
    return "\n".join(lines)


def _memory(found: dict) -> str:
    node, model, _ = CROWD
    parts = []
    for profile in ("criu-pinned", "sleep"):
        rows = sweep(found, sweep="crowd", node=node, model=model, profile=profile)
        fits = [r for r in rows if r["functions"] <= KEPT * r["fit_in_dram"]]
        beyond = [r for r in rows if r["functions"] > 1.2 * r["fit_in_dram"]]
        if fits and beyond:
            parts.append(
                f"`{profile}` goes from {fits[-1]['cold_ttft_p99_s']:.1f} s while all fit"
                f" to {beyond[0]['cold_ttft_p99_s']:.1f} s at"
                f" {100 * beyond[0]['functions'] / beyond[0]['fit_in_dram']:.0f} %"
            )
    return "; ".join(parts)


def _room(found: dict) -> str:
    """Say how long a start waits for room while the node is far from full."""
    rows = [row for row in sweep(found, sweep="pack") if row["load"] < CALM and usable(row)]
    return f"{span((row['parts_s']['room'] for row in rows), 1)} s at a load under {CALM:g}"


TEXT = """# Does packing plus snapshots fill GPUs?

The claim: on a workload of many models, each asked for now and then, packing models on GPUs and suspending idle ones
lifts the busy share of GPUs from the 10 to 20 % of a GPU for each model to 80 to 90 %, at a p99 time to first token of
cold requests under 2 s.

## The answer
{answer}

![Busy share against cold TTFT](density.svg)

Along a line more functions are packed on the node; the policy is `default` as it ships. Above the green line the bound
is missed; models whose lone start is over it have two points. A line ends where more than 1 % is refused: there host
memory is so short that the node starts pods cold without end. All of it is simulated, not measured, from the shipped
[profiles](../profiles.md), whose constants are published by others and in part assumed: read the differences, and
calibrate on your own nodes before you buy.

## For which models and nodes
A lone start from host memory on an idle node, with its prefill, is under 2 s for:

{sizes}

The tables show that floor beside each result: *floor DRAM* is a resume from host memory, *floor disk* a restore from
the local disk, or a cold start for `sleep`, which knows no restore. *Busy % alone* is a GPU for each model under the
same traffic. *Busy % at p99 < 2 s* is that of the busiest run under the bound. *P99 at 80 % busy* is the lowest p99 of
the runs that are that busy; a dash says that no run with at most 1 % refused is. *Of host RAM then* is what its functions need, suspended, of the node's host memory.

{reached}

These cannot, whatever schedules them; busy share and cold TTFT are at a load of 0.75:

{hopeless}

## Where the time of a cold start goes
{parts}

Mean seconds, over the cold requests of a run. Some arrive while the start is already under way, so the mean of *start*
is below its floor. The last columns say what the requests over 2 s waited for most.

{where}

![Cold TTFT by part](density-causes.svg)

`default` leaves idle pods on their GPUs and makes room ahead for the next start where that saves more waiting than the
pod that must go is worth. A start that finds no such place waits for a victim to leave first, on a calm node too: *room*
is {room} on average. A victim whose state lies in host memory is killed, which
takes half a second; others are copied out. As the node fills, *room* grows, for nobody is idle, and so does *turn*,
because starts on one GPU go one after another. Small nodes suffer most: g6e has
four GPUs of three slices of a 3b model, and one visitor more than usual fills them.

## Where it breaks
![Host memory, bursts, short visits](density-breaks.svg)

- **Host memory is the cliff.** {memory}. `default` leaves {left} % of host memory to live pods; what does
  not fit is restored from disk, or started cold. Nodes with little host memory for their GPUs hit it first. So do
  small models on large GPUs: it takes hundreds of functions to fill such a node.
- **Bursts.** Starts on one GPU are serial: the last of a burst waits for as many starts as its GPU gets. Where the
  lone start is short enough, the bound holds up to one start a GPU; with two it is missed. GPUs of one node share its PCIe root and DRAM, which slows large
  models before that.
- **Link contention is small** in the runs above: a resume of a small model holds its link for a fraction of a second,
  and most of a start is fixed time. It shows in bursts of large models, and on disk, whose bandwidth restores share with
  the copies that are made in the background.
- **Short visits.** With one request a visit about half of all requests are cold; with 64, one in a hundred. GPUs
  are as busy: a busy GPU alone says nothing about how many people wait.
- **A full GPU.** Past 90 % busy the queue rules: the p99 is several times the floor, and rises with each function.

Host memory, {crowd}, from more and more functions, each visited less:

{crowds}

Bursts: functions on an idle node, all suspended in host memory, asked for at the same instant. Here alone pods are
suspended a second after they fall idle; `default` would leave them on the empty GPUs:

{bursts}

Visits of so many requests, 3b on one p5.48xlarge at a load of 0.75:

{spells}

## The workload
One node: {nodes}. Functions of one model, equally popular, with {visitors:g}
visitors each at a time on average; a visitor sends {spell} requests of {tokens_in} input and about {tokens_out} output
tokens, each {pause:g} s after the last answer on average. Functions are added until the *load* is {loads}: the GPU time
that the requests need one at a time, over the GPU time there is. A slice's share of compute is its share of GPU memory;
co-located slices take equal turns (time slicing). Before the visitors come every function was asked for once, so
nothing measured is a first start; the first quarter of the visitors' time is not measured. A GPU is *busy* while a request is in service on it. A request is *cold* if it
arrived before its pod was ready. One seed; a p99 is given over at least 30 cold requests.

Written by `python -m studies.density` at commit {commit} on {machine}; rows are in [data/density.json](data/density.json).
"""

"""The study's page, from its data."""

from collections.abc import Iterator

from studies.prediction.compare import COUNTS, KINDS, TIMES

__all__ = ["document"]

BUSY = 2
"""Load average for each processor from which on others have been at work: the study's own is less."""


def document(found: dict) -> str:
    """Return the page."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: dict) -> Iterator[str]:
    case, rows = found["case"], found["rows"]
    live, *predictions = rows
    requests = found["requests"]
    yield "# The simulator's prediction of a real cluster"
    yield ""
    runs = len(requests[live])
    yield (
        f"Written by `{found['command']}` at commit `{found['commit'][:12]}`, {found['date']}:"
        f" {found['machine']}; seed {case['seed']}; {found['seconds']} s, load average"
        f" {found['load']:.1f}{_nice(found)}. The measurements:"
        " [`data/prediction.json`](data/prediction.json)."
    )
    yield ""
    if found["load"] > BUSY * found["cpus"]:
        yield _BUSY
        yield ""
    yield _ABOUT.format(
        functions=case["functions"],
        sizes=", ".join(map(str, case["sizes_mib"])),
        gpus=case["gpus"],
        host=case["host"],
        rate=case["rate_per_s"],
        span=case["span_s"],
        zipf=case["zipf"],
        policy=case["policy"],
        requests=len(requests[live][0]["cause"]),
        runs=runs,
        draws=found["draws"],
        calibrated=2,
    )
    yield ""
    yield "![Time to first token and end to end, live and predicted](prediction.svg)"
    yield ""
    yield "## How good it was"
    yield ""
    for who in predictions:
        times = [_ratio(rows[live][key], rows[who][key]) for key in ("ttft_s.p50", "e2e_s.p50")]
        gpu = _error(rows[live]["gpu_seconds"], rows[who]["gpu_seconds"])
        waited = _error(rows[live]["cold_starts"], rows[who]["cold_starts"])
        yield (
            f"- **{who}**: median TTFT {times[0]}, median end to end {times[1]} of the live one;"
            f" requests that waited for a start {waited}, GPU-seconds charged {gpu};"
            f" {found['same'][who][1]:.0%} of the requests waited for the same kind of start, or for"
            " none, as live."
        )
    least, usual, most = found["same"][live]
    yield (
        f"- **live, once more**: {usual:.0%} ({least:.0%} to {most:.0%}) of the requests waited for"
        " the same in two live runs. No prediction can be expected to do better."
    )
    yield ""
    yield from _kinds(found)
    yield "## Times"
    yield ""
    yield (
        f"Seconds: the median of {runs} live runs, and of {found['draws']} simulated ones; in brackets"
        " the least and the largest."
    )
    yield ""
    yield from _table(found, TIMES, "{:.3f}")
    yield ""
    yield "## Counts"
    yield ""
    yield from _table(found, COUNTS, "{:.0f}")
    yield ""
    yield "## Start-up times that went in"
    yield ""
    yield (
        "Seconds = fixed + bytes / rate; the spread is relative. In brackets what it takes to order"
        " one: it is no phase that a node tells of, and the scheduler does not learn from it."
    )
    yield ""
    yield "| operation | from | " + " | ".join(found["profiles"]) + " |"
    yield "|---|---|" + "---|" * len(found["profiles"])
    yield from _stages(found["profiles"])
    yield ""
    yield "## Journals"
    yield ""
    steps = sum(one["steps"] for one in found["journals"])
    same = sum(one["same"] for one in found["journals"])
    yield (
        f"After the {runs + 1} live runs `inferx replay-journal` held {len(found['journals'])} journals,"
        f" of schedulers, gateways and agents, {steps:,} steps, to their machines: {same} came out the"
        " same, byte for byte."
    )
    yield ""
    yield _LIMITS


def _nice(found: dict) -> str:
    """Say if the study had the processors before others: a machine that is not its own."""
    return f", at nice {found['nice']}" if found["nice"] else ""


def _kinds(found: dict) -> Iterator[str]:
    """Yield the table of what each kind of start made its requests wait."""
    kinds = found["kinds"]
    live, *predictions = kinds
    yield "## By kind of start"
    yield ""
    yield _MIXED.format(
        resumes=", ".join(f"{_share(kinds[who]):.0%} {who}" for who in kinds),
    )
    yield ""
    yield (
        "Median TTFT in seconds, over the requests of all runs; in brackets a tenth and nine tenths,"
        " and how many waited so in one run."
    )
    yield ""
    yield f"| waited for | {live} | " + " | ".join(f"{who} | error" for who in predictions) + " |"
    yield "|---|---|" + "---|---|" * len(predictions)
    for kind in KINDS:
        if not any(kind in told for told in kinds.values()):
            continue
        cells = [_kind(kinds[live].get(kind))]
        for who in predictions:
            cells.append(_kind(kinds[who].get(kind)))
            both = kind in kinds[live] and kind in kinds[who]
            cells.append(_error(kinds[live][kind][2], kinds[who][kind][2]) if both else "-")
        yield f"| {'nothing' if kind == 'warm' else kind} | " + " | ".join(cells) + " |"
    yield ""


def _kind(told: list[float] | None) -> str:
    if told is None:
        return "-"
    count, low, mid, high = told
    return f"{mid:.3f} ({low:.3f} to {high:.3f}; {count:.0f})"


def _share(kinds: dict[str, list[float]]) -> float:
    """Return how many of those that waited for a start waited for a resume."""
    waited = {kind: told[0] for kind, told in kinds.items() if kind != "warm"}
    return waited.get("resume", 0.0) / max(sum(waited.values()), 1e-9)


def _table(found: dict, keys: dict[str, str], form: str) -> Iterator[str]:
    rows, spread = found["rows"], found["spread"]
    live, *predictions = rows
    yield f"| | {live} | " + " | ".join(f"{who} | error" for who in predictions) + " |"
    yield "|---|---|" + "---|---|" * len(predictions)
    for key, title in keys.items():
        if not any(rows[who][key] for who in rows):
            continue
        cells = [_ranged(rows[live][key], spread[live][key], form)]
        for who in predictions:
            cells.append(_ranged(rows[who][key], spread[who][key], form))
            cells.append(_error(rows[live][key], rows[who][key]))
        yield f"| {title} | " + " | ".join(cells) + " |"


def _ranged(value: float | None, ends: list[float | None], form: str) -> str:
    if value is None:
        return "-"
    return f"{form.format(value)} ({form.format(ends[0])} to {form.format(ends[1])})"


def _error(live: float | None, predicted: float | None) -> str:
    if live is None or predicted is None:
        return "-"
    return f"{100 * (predicted / live - 1):+.0f} %" if live else f"{predicted - live:+.0f}"


def _ratio(live: float, predicted: float) -> str:
    return f"{predicted / live:.2f} times" if live else "-"


def _stages(profiles: dict) -> Iterator[str]:
    first = next(iter(profiles.values()))
    for operation in first:
        if operation.startswith("copy"):
            continue
        for source in dict.fromkeys(one["from"] for one in first[operation]):
            cells = [_law(profile[operation], source) for profile in profiles.values()]
            yield f"| {operation} | {source.lower()} | " + " | ".join(cells) + " |"


def _law(stages: list[dict], source: str) -> str:
    """Return an operation's time from one tier: its order, its own; "-" if it is not known."""
    return " + ".join(_stage(one) for one in stages if one["from"] == source) or "-"


def _stage(one: dict) -> str:
    rate = f" + {one['bytes_of']} / {one['bytes_per_s'] / 1e6:.0f} MB/s"
    moves = rate if one["bytes_per_s"] else ""
    if not one["told"]:
        return f"[{one['fixed_s']:.3f}]"
    assumed = ", assumed" if one["basis"] == "assumed" else ""
    return f"{one['fixed_s']:.3f}{moves}, {100 * one['cv']:.0f} %{assumed}"


_BUSY = """\
**The machine was busy with other work meanwhile.** The bench and the runs met different loads, so errors below are the machine's
before they are the model's; only *hindsight*, which has the times of one of the runs itself, is about the model alone."""

_ABOUT = """\
The same policy runs in the simulator and in production; this page says how far the one predicts the other. A trace is
driven through a real cluster on this machine by `inferx drive`, in real time, and simulated on the same cluster as the
scheduler knew it, with the same policy, settings and seed.

**What is real**: `inferx up` over etcd: state service, scheduler, gateway and a node agent, each a process; requests over
HTTP, streamed; pods that are processes of their own, started, frozen, dumped by CRIU to a disk and restored from it.
**What is not**: no GPU. {gpus} are declared, and the pods are `inferx worker`, which holds memory of the declared size and
paces its tokens. So this validates the control plane, process starts, CRIU and queueing, and says nothing of CUDA
checkpoints, PCIe or an engine's speed.

{functions} functions of {sizes} MiB of weights by turns, three pods of any to a GPU; host memory for pods is {host}, so idle
pods are frozen in memory, then dumped to disk. {requests} requests in {span:.0f} s: Poisson, {rate} a second, Zipf {zipf}. Policy:
`{policy}`. The cluster begins empty, as the simulated one does.

Three predictions, which differ in where the start-up times come from:

- **bench**: starts by `inferx agent bench` on this machine, one pod at a time and nothing else running. What a cluster adds, the
  order of an operation and the way of a request through a gateway, is the next profile's.
- **calibrated**: what another live run on the same cluster took, of another trace (seed {calibrated}), as `inferx drive
  --calibrate` writes it: starts beside other starts are in it.
- **hindsight**: what the first of these very runs took. It foretells nothing; what is wrong with it is not the times that went in,
  but what the simulator makes of them.

**Live, the trace is driven {runs} times**, each time on a new cluster; each prediction is of {draws} simulated runs, with other
draws of device times, the first request at another instant of the scheduler's control period. Who is evicted depends on
milliseconds and decides much of what comes after, so two live runs differ as well: one run against one tells little."""

_MIXED = """\
A median over all requests that waited for a start is the worst number to judge by. A resume takes tens of milliseconds, a restore
or a cold start ten times that, and the share of resumes is about a half ({resumes}): a few requests more or fewer on either
side, and the median is the one kind's or the other's. Each kind for itself, and the mean over all, have no such step."""

_LIMITS = """\
## How to read the errors

- This machine has two cores, on which services, client and pods run together. A start is a Python interpreter's, bound by
  the processor: several at once slow each other. The simulator shares disks and links between starts, not processors. The
  bench starts one pod at a time and so predicts less than starts take when functions are asked for first, one after
  another; the calibrated profile has the average of those in its run, which is too much for a start alone.
- A profile's times spread by chance, as if each operation drew its own. Live, the slow ones come together, when much is under
  way; a calibrated profile hands that slowness to any operation.
- One different eviction makes all later ones differ: counts are compared as counts, and the share of requests with the same
  cause says how long both runs went the same way.
- Snapshots are restored from the page cache, as they were just written; the profiles have those times.

The test of this page's claim, on every run of `make test`, is `tests/differential/test_loopback.py`: a small trace on a
cluster with etcd, journals replayed, answers checked word by word, counts and ratios within stated bounds."""

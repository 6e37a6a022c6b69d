"""Writes the document from the data that the runs left."""

import json
import math
from pathlib import Path

from scipy.stats import t as student

from studies.policies.cases import CASES, PROFILE, Case
from studies.policies.catalogue import slot_of

__all__ = ["DATA", "SCORE", "document", "mean_of", "ranked"]

DATA = Path(__file__).resolve().parents[2] / "docs" / "results" / "data"
SCORE = ("cold_weighted_ttft_s", "p99")
"""What policies are ranked by; refused requests count in it, at their time-out."""
TTFT = ("ttft_s", "p99")
_COLUMNS = (
    "cold-weighted p99 s",
    "times `default`'s",
    "TTFT p99 s",
    "times `default`'s",
    "wait mean s",
    "response mean s",
    "regret %",
    "on-demand regret %",
    "unforeseen regret %",
    "cold %",
    "refused %",
)


def value(row: dict, path: tuple[str, ...]) -> float | None:
    """Return one number of a row; None where it has none."""
    found: object = row
    for key in path:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return float(found) if isinstance(found, int | float) else None


def of(rows: list[dict], policy: str, path: tuple[str, ...]) -> dict[int, float]:
    """Return a number of a policy by seed."""
    by_seed = {row["seed"]: value(row, path) for row in rows if row["policy"] == policy}
    return {seed: number for seed, number in by_seed.items() if number is not None}


def mean_of(rows: list[dict], policy: str, path: tuple[str, ...]) -> float:
    """Return the mean over seeds; infinite where no seed has the number."""
    numbers = list(of(rows, policy, path).values())
    return math.fsum(numbers) / len(numbers) if numbers else math.inf


def times(rows: list[dict], policy: str, path: tuple[str, ...]) -> tuple[float, float, float]:
    """Return how many times `default`'s a policy's number is, with its 95 % interval.

    Paired by seed, on logarithms: the geometric mean of the ratios and Student's t.
    """
    theirs, ours = of(rows, policy, path), of(rows, "default", path)
    logs = [math.log(theirs[seed] / ours[seed]) for seed in ours if seed in theirs]
    n = len(logs)
    if n < 2:
        return math.nan, math.nan, math.nan
    mean = math.fsum(logs) / n
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (n - 1) / n)
    half = float(student.ppf(0.975, n - 1)) * spread
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def _times(rows: list[dict], policy: str, path: tuple[str, ...]) -> str:
    if policy == "default":
        return "1"
    mean, low, high = times(rows, policy, path)
    told = f"{mean:.2f} ({low:.2f} to {high:.2f})"
    return f"**{told}**" if low > 1 or high < 1 else told


def _pct(number: float) -> str:
    return "-" if math.isinf(number) else f"{number:,.0f}"


def ranked(rows: list[dict]) -> list[str]:
    """Return the policies, the best first; equals by name."""
    return sorted({row["policy"] for row in rows}, key=lambda p: (mean_of(rows, p, SCORE), p))


def table(rows: list[dict]) -> list[str]:
    """Return the lines of one case's table, the best first."""
    lines = ["| policy | slot | " + " | ".join(_COLUMNS) + " |"]
    lines.append("|---|---|" + "---:|" * len(_COLUMNS))
    for policy in ranked(rows):
        refused = mean_of(rows, policy, ("refused",)) / mean_of(rows, policy, ("arrived",))
        cells = [
            f"`{policy}`",
            slot_of(policy),
            f"{mean_of(rows, policy, SCORE):.1f}",
            _times(rows, policy, SCORE),
            f"{mean_of(rows, policy, TTFT):.1f}",
            _times(rows, policy, TTFT),
            f"{mean_of(rows, policy, ('regret', 'mean_wait_s')):.2f}",
            f"{mean_of(rows, policy, ('regret', 'mean_response_s')):.2f}",
            _pct(mean_of(rows, policy, ("regret", "regret_pct"))),
            _pct(mean_of(rows, policy, ("regret", "on_demand_regret_pct"))),
            _pct(mean_of(rows, policy, ("regret", "unforeseen_regret_pct"))),
            f"{100 * mean_of(rows, policy, ('cold_start_ratio',)):.1f}",
            f"{100 * refused:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _named(policies: list[str]) -> str:
    return ", ".join(f"`{policy}`" for policy in policies) or "none"


def verdict(rows: list[dict], needed: dict) -> list[str]:
    """Return what the case says of `default`, in words."""
    others = sorted({row["policy"] for row in rows} - {"default"})
    lines = []
    for path, name in ((SCORE, "cold-weighted p99"), (TTFT, "p99 TTFT")):
        intervals = {policy: times(rows, policy, path) for policy in others}
        loses = [p for p, (_, _, high) in intervals.items() if high < 1]
        ties = [p for p, (_, low, high) in intervals.items() if low <= 1 <= high]
        wins = len(others) - len(loses) - len(ties)
        lines.append(
            f"- **{name}:** `default` is outside the interval better than {wins} of {len(others)};"
            f" no difference: {_named(ties)}; worse than: {_named(loses)}."
        )
    gpus = {p: n for p, n in needed.items() if p not in ("target_s", "default")}
    told = ", ".join(
        f"`{policy}` {count}" if count else f"`{policy}` over 48" for policy, count in gpus.items()
    )
    lines.append(
        f"- **GPUs for its cold-weighted p99 of {needed['target_s']:.1f} s:** `default`"
        f" {needed['default']}; the nearest: {told}."
    )
    return lines


def least_regret_pct(rows: list[dict]) -> float:
    """Return the least mean regret of any policy without foresight; 0 where no bound tells."""
    regrets = [row["regret"] for row in rows if row["policy"] == "default"]
    floors = []
    for regret in regrets:
        waits = regret.get("unforeseen_wait_s") or regret["bound_wait_s"]
        more = max(0.0, waits - regret["bound_wait_s"])
        floors.append(100.0 * more / regret["bound_response_s"])
    return math.fsum(floors) / len(floors)


def price_of_not_knowing(rows: list[dict]) -> list[str]:
    """Return a line on it; none where no bound tells."""
    least, regret = least_regret_pct(rows), mean_of(rows, "default", ("regret", "regret_pct"))
    if not least:
        return []
    told = f"on average over draws, out of reach without foresight; `default`'s is {regret:,.0f} %."
    return [f"- **The price of not knowing the future:** a regret below {least:.0f} % is, {told}"]


def made_at(rows: list[dict]) -> str:
    """Return which commits made the rows: one, or the one of most and those of the others."""
    by_commit: dict[str, list[str]] = {}
    for row in rows:
        made = by_commit.setdefault(row["commit"][:12], [])
        if row["policy"] not in made:
            made.append(row["policy"])
    commits = sorted(by_commit, key=lambda commit: -len(by_commit[commit]))
    others = [f"{_named(by_commit[commit])} at {commit}" for commit in commits[1:]]
    return "; ".join([f"Made at commit {commits[0]}", *others]) + "."


def section(case: Case, data: dict) -> list[str]:
    """Return one case's part of the document."""
    weaker = {row["policy"] for row in data["rows"] if row["regret"]["bound"] != "prewarm"}
    return [
        f"## {case.title}",
        "",
        *verdict(data["rows"], data["gpus_needed"]),
        *(
            [f"- Of a weaker bound, for the program was not solved: {_named(sorted(weaker))}."]
            * bool(weaker)
        ),
        *price_of_not_knowing(data["rows"]),
        f"- {made_at(data['rows'])}",
        "",
        *table(data["rows"]),
        "",
        "```sh",
        data["command"],
        "```",
        "",
    ]


def document() -> str:
    """Return the page."""
    kept = [
        (case, json.loads(file.read_text()))
        for case in CASES
        if (file := DATA / f"policies-{case.name}.json").exists()
    ]
    regrets = [mean_of(data["rows"], "default", ("regret", "regret_pct")) for _, data in kept]
    demand = [
        mean_of(data["rows"], "default", ("regret", "on_demand_regret_pct")) for _, data in kept
    ]
    told = "; ".join(
        f"{case.name} {regret:,.0f} % ({other:,.0f} %)"
        for (case, _), regret, other in zip(kept, regrets, demand, strict=True)
    )
    floors = [least_regret_pct(data["rows"]) for _, data in kept]
    floor = math.fsum(floors) / len(floors)
    mean = math.fsum(regrets) / len(regrets)
    missing = [case.name for case in CASES if case not in [one for one, _ in kept]]
    if missing:
        told += f". Not run yet: {', '.join(missing)} (`--only`)"
    head = f"""# The museum: every serving policy on every public trace

Written by `python -m studies.policies`; simulated, not measured. Five seeds, which draw the
functions' sizes, their popularity and the devices' times; all policies of a seed meet the same
requests for the same functions. All start pods the same way, by the profile `{PROFILE}`, so that
policies are compared and not mechanisms. Commits, versions, machine and date are in
[data](data), one file a trace. Larger clusters are made of nodes of four GPUs. Intervals are of one
comparison each, not corrected for their number.

- *Cold-weighted p99:* the 99th percentile of TTFT with each request weighed by how long its function
  had been silent, up to ten minutes: a busy stream's warm requests hardly count. Refused requests
  count, at their time-out. Policies are sorted by it. [Definitions](../metrics.md).
- *TTFT p99* is over finished requests: a policy that refuses most looks quick (see its last column).
- *Times `default`'s:* geometric mean over seeds of the ratio to `default`, paired by seed, with its
  95 % interval; **bold** where the interval leaves out 1.
- *Regret:* mean response time over a lower bound that no policy could beat, even one that knows the
  future; *on demand*, over the tighter bound that holds for policies that start pods only for
  requests; *unforeseen*, over the one that holds for policies that do not know which function is
  asked for next, where requests were spread over functions one by one. The bounds relax much
  ([which](../metrics.md#regret-regret-of-a-row)), so what is above them is a distance to the bound,
  not all of it to be had.
- *Slot:* policies of one slot are [`plain`](../../inferx/policy/plain.py) with that slot replaced.

**`default`'s regret, prewarm bound (on-demand bound):** {told}; the mean of all is {mean:,.0f} %.
A mean below {floor:.0f} % is out of reach for any policy without foresight: on three of these traces
which function is asked for next is drawn by chance, and missing the unlikely ones costs at least
that ([bound](../../inferx/sim/oracle/unforeseen.py)).

## Where `default` does not win, and what it is not told

- *The bound is far where services are short.* Regret is of response times: where a request takes half
  a minute on average, `default` comes within a few percent of what no policy could beat; where it
  takes half a second, one start of six seconds in three requests is several times the bound. Much of
  that distance is not to be had: the bounds know the future, let fractions of pods stay, give every
  start the links to itself and the fastest jitter, and forget which GPU is whose. They also serve
  each request alone: that those who share a pod slow each other is most of the regret on ServeGen and
  Mooncake, where `default`'s mean wait is a small part of its response time.
- *A policy that turns requests away* can have a lower p99 over those that it serves: `dedicated`.
- *Overload.* Where more is asked for at once than fits, `default` serves those asked for most first:
  more good requests an hour than `plain`, and a longer tail.
- *Queueing and routing policies equal `plain`* wherever a function has one pod and seldom a queue, as
  here: their rows say that the trace has no contention of that kind, not that they do nothing.
- *GPUs for an equal p99:* what is left at 48 GPUs, where all functions fit, is each one's first start,
  which is heavy in the cold-weighted p99; `default` has copied its state to host memory before.
"""
    lines = [head]
    for case, data in kept:
        lines += section(case, data)
    return "\n".join(lines)

"""What `inferx agent bench` has found, as tables: medians, and how many times the floor."""

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from inferx.exec.agent.bench import About, Results, Round, Subject, medians
from inferx.exec.agent.bench.results import FloorName, StepName

__all__ = ["about_lines", "bench_tables", "by_case"]

_STEPS: tuple[tuple[StepName, str, FloorName | None], ...] = (
    ("cold", "cold start", None),
    ("dump", "dump", "write"),
    ("restore", "restore, cache warm", "read"),
    ("restore_cold", "restore, cache cold", "read_cold"),
    ("restore_lazy", "restore, lazily", None),
)
"""Step, what it is called, and the floor that it is compared with."""


def about_lines(about: About) -> Sequence[str]:
    """Return where the numbers come from, a line each."""
    by = f"snapshots by {about.snapshotter} (CRIU {about.criu or 'none'})"
    return [
        f"sandbox {about.sandbox}, {by}, network {about.network}",
        f"{about.machine}, Linux {about.kernel}; GPUs: {about.gpus}",
        "" if about.finished else "interrupted: what has been measured until then",
    ]


def by_case(rounds: Sequence[Round]) -> Iterator[tuple[Round, Sequence[Round]]]:
    """Yield the rounds of each worker and tier together, with the first of them."""
    cases: dict[tuple[str, int, str], list[Round]] = {}
    for one in rounds:
        cases.setdefault((one.engine, one.weight_bytes, one.tier), []).append(one)
    for found in cases.values():
        yield found[0], found


def bench_tables(results: Results) -> Iterator[Table]:
    """Yield times in seconds beside dd's, then the phases of restores, then clones."""
    times = Table("pod", "tier", "step", "seconds", "dd", "times", title="To the first answer")
    for one, rounds in by_case(results.rounds):
        for row in _rows(one, medians(rounds), rounds[-1].skipped):
            times.add_row(*row)
        times.add_section()
    yield times
    phases = Table("pod", "tier", "step", "phases, ms", title="Where the last round spent it")
    for one, rounds in by_case(results.rounds):
        for step in rounds[-1].steps:
            if step.name in {"dump", "restore"}:
                told = ", ".join(f"{p.phase} {p.duration_ns / 1e6:.0f}" for p in step.phases)
                title = Subject(one.engine, one.weight_bytes).title
                phases.add_row(title, one.tier, step.name, told)
    yield phases
    if results.clones:
        clones = Table("pod", "tier", "clones", "all answer after", "each", title="At once")
        for found in results.clones:
            title = Subject(found.engine, found.weight_bytes).title
            each = ", ".join(f"{seconds:.2f}" for seconds in sorted(found.each_s))
            clones.add_row(title, found.tier, str(len(found.each_s)), f"{found.seconds:.2f}", each)
        yield clones


def _rows(
    one: Round, median: Mapping[str, float], skipped: Mapping[str, str]
) -> Iterator[tuple[str, ...]]:
    pod = Subject(one.engine, one.weight_bytes).title
    for step, title, floor in _STEPS:
        if step not in median:
            if step == "restore_lazy" and step in skipped:
                yield pod, one.tier, f"{title}: {skipped[step]}", "-", "", ""
            continue
        took, least = median[step], median.get(f"floor/{floor}")
        times = f"{took / least:.1f}" if least else ""
        yield pod, one.tier, title, f"{took:.3f}", f"{least:.3f}" if least else "", times

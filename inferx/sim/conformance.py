"""Holds a policy to the kernel's rules, and says in words which it breaks.

Every check is a sentence with a verdict. What is slow is a warning; all else that is wrong fails.
Some checks cannot be made from within a process: `digests` is for comparing several.
"""

import contextlib
import dataclasses
import inspect
import re
import signal
import statistics
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np

from inferx.core.errors import InferXError, PolicyError
from inferx.core.protocols import PolicyBundle
from inferx.core.units import NS_PER_S
from inferx.core.view import ClusterView
from inferx.core.watched import bundle_faults, filled
from inferx.sim.driver import simulate
from inferx.sim.metrics import result_sha256, summarise
from inferx.sim.profile import Profile
from inferx.sim.purity import impurities
from inferx.sim.record import RunRecord
from inferx.sim.scenarios import LARGE, SCENARIOS, Scenario, hungry, large

__all__ = ["LIMIT_S", "Finding", "compare_digests", "conform", "digests"]

Verdict = Literal["pass", "warn", "fail"]

_ARGUMENTS: Final = {
    "admit": ("request", "queued", "view"),
    "route": ("request", "candidates", "view", "rng"),
    "place": ("want", "view", "rng"),
    "evict": ("want", "view", "rng"),
    "retain": ("function", "at", "view"),
    "promote": ("view", "rng"),
    "target": ("function", "view"),
    "targets": ("view",),
    "explain": ("want", "view"),
    "next_request": ("waiting", "view"),
    "next_want": ("wants", "view"),
    "arrived": ("request", "waiting", "view"),
    "started": ("request", "view"),
    "ended": ("request", "output_tokens", "view"),
    "observe": ("now_ns", "event"),
}
"""What each method is called with, by position."""
_ACCOUNTS: Final = ("arrived", "started", "ended")
_OPTIONAL: Final = {"placement": ("explain",), "queueing": _ACCOUNTS}
"""Slot -> the methods that its policy may have."""
_BUDGET_S: Final = {64: 0.001, 1_024: 0.010}
"""Median decision time above which a policy is called slow, by GPUs."""
_TIMING_S: Final = 5.0
"""Real time after which a run is left: its medians are known."""
_SEED: Final = 1
_KERNEL: Final = re.compile("/inferx/(?:core|sim)/")
LIMIT_S: Final = 60.0
"""Real time that one scenario may take; each takes a second or less."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one check."""

    check: str
    verdict: Verdict
    told: str


def conform(
    make: Callable[[], PolicyBundle],
    profile: Profile,
    sources: Sequence[Path] = (),
    *,
    limit_s: float = LIMIT_S,
) -> Generator[Finding, None, bool]:
    """Yield the outcome of each check, in order, as it is known.

    Args:
        make: Makes a fresh bundle, as often as it is called.
        profile: Start-up times that suit the bundle's mechanism.
        sources: The policy's own files, to look at their imports.
        limit_s: Real time that one scenario may take; the first that takes longer is the last.

    Returns:
        Whether it can be run at all, within the limit.
    """
    shape = _shape(make())
    yield shape
    if sources:
        yield _sources(sources)
    if shape.verdict == "fail":
        yield Finding(check="runs", verdict="fail", told="not run: the slots must be right first")
        return False
    asked: set[str] = set()
    happened: dict[str, str] = {}
    checks: list[tuple[str, Callable[[], Finding]]] = [
        (f"runs: {scenario.name}", partial(_run, scenario, make, profile, asked, happened))
        for scenario in SCENARIOS
    ]
    checks += [
        ("asked", partial(_asked, asked, tuple(filled(make())))),
        ("deterministic", partial(_twice, make, profile, happened)),
        ("no starvation", partial(_starvation, make, profile)),
    ]
    checks += [
        (f"decision time, {gpus:,} GPUs", partial(_time, gpus, make, profile)) for gpus in LARGE
    ]
    for check, carry_out in checks:
        try:
            with _limited(limit_s):
                found = carry_out()
        except _TooLongError as late:
            told = f"{_late(late, limit_s)}; what comes after it was not run"
            yield Finding(check=check, verdict="fail", told=told)
            return False
        yield found
    return True


# -- what it looks like ---
def _shape(bundle: PolicyBundle) -> Finding:
    """Check slots, methods, arguments and the bundle's own fields."""
    wrong = [*_missing(bundle), *bundle_faults(bundle)]
    told = "; ".join(wrong) or "every slot has its methods"
    return Finding(check="slots", verdict="fail" if wrong else "pass", told=told)


def _missing(bundle: PolicyBundle) -> Iterator[str]:
    slots = [(slot, getattr(bundle, slot), methods) for slot, methods in filled(bundle).items()]
    if type(bundle.observers) is tuple:
        slots += [("observers", observer, ("observe",)) for observer in bundle.observers]
    for slot, policy, methods in slots:
        optional = [name for name in _OPTIONAL.get(slot, ()) if hasattr(policy, name)]
        for name in (*methods, *optional):
            method = getattr(policy, name, None)
            wanted = f"{name}({', '.join(_ARGUMENTS[name])})"
            if not callable(method):
                yield f"{slot}: {type(policy).__name__} has no {wanted}"
                continue
            try:
                inspect.signature(method).bind(*_ARGUMENTS[name])
            except TypeError as error:
                yield f"{slot}: {type(policy).__name__}.{name} is not {wanted}: {error}"


def _sources(sources: Sequence[Path]) -> Finding:
    """Check that the policy's files use nothing that makes a run differ from the next."""
    wrong = [f"{path.name}:{line}: {what}" for path in sources for line, what in impurities(path)]
    told = "; ".join(wrong) or "no clock, chance, file, process or network of its own"
    return Finding(check="imports", verdict="fail" if wrong else "pass", told=told)


class _EnoughError(BaseException):
    """Ends a run whose decisions have been timed for long enough; no handler may take it."""


class _TooLongError(BaseException):
    """Ends what takes too long; no handler may take it, a policy's least of all."""


@contextlib.contextmanager
def _limited(limit_s: float) -> Generator[None]:
    """Raise `_TooLongError` in the block once it has taken so long, where the system can."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        yield
        return

    def end(*_: object) -> None:
        raise _TooLongError

    former = signal.signal(signal.SIGALRM, end)
    # It rings again: a bare `except` in a policy may have swallowed the first.
    signal.setitimer(signal.ITIMER_REAL, limit_s, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, former)


def _late(late: _TooLongError, limit_s: float) -> str:
    """Say how long it took, and in which line of the policy it was ended."""
    frames = traceback.extract_tb(late.__traceback__)
    asked = [at for at, frame in enumerate(frames) if frame.name in {"_ask", "call"}]
    inside = frames[asked[-1] + 1 :] if asked else []
    mine = [at for at in inside if not _KERNEL.search(Path(at.filename).as_posix())]
    at = f", at {Path(mine[-1].filename).name}:{mine[-1].lineno}" if mine else ""
    return f"not over after {limit_s:g} s{at}; expected a second or so (--limit allows more)"


# -- what it does ---
Around = Callable[[str, Callable[..., object], tuple[object, ...]], object]


class _Probed:
    """A slot whose calls go through `around`."""

    def __init__(self, slot: str, policy: object, methods: Sequence[str], around: Around) -> None:
        for name in methods:
            ask = getattr(policy, name, None)
            if ask is not None:
                # What only takes note is no decision: neither asked nor timed as one.
                part = f"{slot} accounts" if name in _ACCOUNTS else slot
                setattr(self, name, _through(around, part, ask))


def _through(around: Around, slot: str, ask: Callable[..., object]) -> Callable[..., object]:
    def call(*arguments: object) -> object:
        return around(slot, ask, arguments)

    return call


def _probed(bundle: PolicyBundle, around: Around) -> PolicyBundle:
    slots: dict[str, Any] = {
        slot: _Probed(slot, getattr(bundle, slot), (*methods, *_OPTIONAL.get(slot, ())), around)
        for slot, methods in filled(bundle).items()
    }
    observers: Any = tuple(
        _Probed("observer", observer, ("observe",), around) for observer in bundle.observers
    )
    return dataclasses.replace(bundle, **slots, observers=observers)


def _columns(view: ClusterView) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every public column of a view with its name."""
    for table in ("gpus", "nodes", "pods", "functions"):
        shown: object = getattr(view, table)
        for name in _attributes(type(shown)):  # type: ignore[arg-type]  # a class is hashable
            if isinstance(column := getattr(shown, name), np.ndarray):
                yield f"{table}.{name}", column


@cache
def _attributes(table: type) -> tuple[str, ...]:
    """Return the public names of a table that are no methods; looked up once, not at each call."""
    names = (name for name in dir(table) if not name.startswith("_"))
    return tuple(name for name in names if not callable(getattr(table, name)))


def _guarding(slot: str, ask: Callable[..., object], arguments: tuple[object, ...]) -> object:
    """Ask, and see that the view is afterwards what it was."""
    view = next((item for item in arguments if isinstance(item, ClusterView)), None)
    before = {} if view is None else {name: c.tobytes() for name, c in _columns(view)}
    try:
        answer = ask(*arguments)
    except ValueError as error:
        if "read-only" in str(error):
            raise PolicyError(slot, "it tried to change the view", None) from error
        raise
    if view is not None:
        for name, column in _columns(view):
            if column.tobytes() != before[name]:
                raise PolicyError(slot, f"it changed the view: {name}", None)
    return answer


def _simulated(scenario: Scenario, bundle: PolicyBundle, profile: Profile) -> RunRecord:
    return simulate(scenario.world(profile), [scenario.trace()], bundle, seed=_SEED, explain=True)


def _run(
    scenario: Scenario,
    make: Callable[[], PolicyBundle],
    profile: Profile,
    asked: set[str],
    happened: dict[str, str],
) -> Finding:
    """Check that a scenario runs to its end, with every proposal possible.

    Who was asked, and the hash of what happened in a run that passes, are noted.
    """
    check = f"runs: {scenario.name}"

    def noting(slot: str, ask: Callable[..., object], arguments: tuple[object, ...]) -> object:
        asked.add(slot)
        return _guarding(slot, ask, arguments)

    try:
        record = _simulated(scenario, _probed(make(), noting), profile)
        row = summarise(record)
    except (InferXError, AssertionError) as error:
        return Finding(check=check, verdict="fail", told=_words(error))
    happened[scenario.name] = result_sha256(record)
    rest = row.refused + row.aborted + row.unfinished
    told = f"{row.finished:,} of {row.arrived:,} requests finished"
    return Finding(check=check, verdict="pass", told=told + (f", {rest:,} not" if rest else ""))


def _asked(asked: set[str], slots: Sequence[str]) -> Finding:
    """Warn of slots that no scenario asked: nothing is known of them."""
    never = [slot for slot in slots if slot not in asked]
    told = f"never asked, so never tried: {', '.join(never)}" if never else "every slot was asked"
    return Finding(check="asked", verdict="warn" if never else "pass", told=told)


def _words(error: Exception) -> str:
    if isinstance(error, AssertionError):
        return f"the kernel could not go on: {error or 'an assertion failed'}"
    return str(error)


def digests(
    make: Callable[[], PolicyBundle], profile: Profile, *, limit_s: float = LIMIT_S
) -> dict[str, str]:
    """Return the hash of what happened in each scenario that runs; the first too long is last."""
    found: dict[str, str] = {}
    for scenario in SCENARIOS:
        try:
            with _limited(limit_s):
                found[scenario.name] = _digest(scenario, make, profile)
        except _TooLongError as late:
            found[scenario.name] = _late(late, limit_s)
            break
    return found


def _digest(scenario: Scenario, make: Callable[[], PolicyBundle], profile: Profile) -> str:
    try:
        return result_sha256(_simulated(scenario, make(), profile))
    except (InferXError, AssertionError) as error:
        return _words(error)


def compare_digests(check: str, one: dict[str, str], two: dict[str, str], what: str) -> Finding:
    """Compare what happened in two rounds over the scenarios."""
    differ = [name for name in one if one[name] != two.get(name)]
    if differ:
        told = f"{what} differ in: {', '.join(differ)}"
        return Finding(check=check, verdict="fail", told=told)
    return Finding(check=check, verdict="pass", told=f"{what} are equal to the bit")


def _twice(make: Callable[[], PolicyBundle], profile: Profile, happened: dict[str, str]) -> Finding:
    # A run that passed is the first of the two; one that was ended by our guard is no measure.
    one = {s.name: happened.get(s.name) or _digest(s, make, profile) for s in SCENARIOS}
    two = {s.name: _digest(s, make, profile) for s in SCENARIOS}
    return compare_digests("deterministic", one, two, "two runs in one process")


def _starvation(make: Callable[[], PolicyBundle], profile: Profile) -> Finding:
    """Check INV-6 in the least scenario: the second function gets the GPU some day."""
    check = "no starvation"
    try:
        record = _simulated(hungry(), make(), profile)
    except (InferXError, AssertionError) as error:
        return Finding(check=check, verdict="fail", told=_words(error))
    q = record.requests
    second = q.function == 1
    served = second & (q.started_ns >= 0)
    if not served.any():
        last_s = int(q.arrived_ns[-1] - q.arrived_ns[second][0]) / NS_PER_S
        told = (
            f"a function that fits was not placed in {last_s:,.0f} s,"
            " though no request wanted the pod in its way"
        )
        return Finding(check=check, verdict="fail", told=told)
    first = int(q.started_ns[served].min() - q.arrived_ns[second].min()) / NS_PER_S
    told = f"a second function on a full GPU was served after {first:,.1f} s"
    return Finding(check=check, verdict="pass", told=told)


def _time(gpus: int, make: Callable[[], PolicyBundle], profile: Profile) -> Finding:
    """Time each slot's decisions: the one place of the suite that reads a clock."""
    taken: dict[str, list[float]] = {}
    enough = time.perf_counter() + _TIMING_S

    def timed(slot: str, ask: Callable[..., object], arguments: tuple[object, ...]) -> object:
        begun = time.perf_counter()
        answer = ask(*arguments)
        now = time.perf_counter()
        taken.setdefault(slot, []).append(now - begun)
        if now > enough:
            raise _EnoughError
        return answer

    check = f"decision time, {gpus:,} GPUs"
    scenario = large(gpus)
    slots = filled(make())
    world, trace = scenario.world(profile), scenario.trace()
    try:
        with contextlib.suppress(_EnoughError):
            simulate(world, [trace], _probed(make(), timed), seed=_SEED)
    except (InferXError, AssertionError) as error:
        return Finding(check=check, verdict="fail", told=_words(error))
    medians = {slot: statistics.median(times) for slot, times in taken.items()}
    slow = any(median > _BUDGET_S[gpus] for median in medians.values())
    told = ", ".join(
        f"{slot} {medians[slot] * 1e6:,.0f}" if slot in medians else f"{slot} never asked"
        for slot in sorted({*slots, *medians})
    )
    over = f"; over {_BUDGET_S[gpus] * 1e3:g} ms is slow" if slow else ""
    return Finding(check=check, verdict="warn" if slow else "pass", told=f"median µs: {told}{over}")

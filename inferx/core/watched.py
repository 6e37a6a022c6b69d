"""A bundle whose every answer is looked at: what raises or has the wrong type is a `PolicyError`.

The machines ask policies through this alone. It checks that an answer is a proposal at all, and
says which slot it came from, and where in the policy's file an error was raised; whether a proposal
is possible, `machine/proposals.py` checks.
"""

import dataclasses
import re
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, TypeGuard, cast

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from inferx.core.errors import PolicyError
from inferx.core.events import RequestArrived
from inferx.core.explain import Explanation
from inferx.core.protocols import (
    Admit,
    Defer,
    Demote,
    Evict,
    LeasedPod,
    Place,
    PolicyBundle,
    Promote,
    Reject,
    Retain,
    RouterView,
    Waiting,
)
from inferx.core.types import I32, FunctionId, Tier, Want
from inferx.core.view import ClusterView

__all__ = ["METHODS", "WatchedQueueing", "bundle_faults", "check_bundle", "filled", "watched"]

METHODS: Final = {
    "admission": ("admit",),
    "routing": ("route",),
    "placement": ("place",),
    "eviction": ("evict",),
    "keep_alive": ("retain",),
    "prewarm": ("promote",),
    "scaling": ("target", "targets"),
    "queueing": ("next_request", "next_want"),
}
"""Slot -> the methods that its policy must have."""
MAY_BE_EMPTY: Final = ("queueing",)
_SEPARATOR: Final = re.compile(r"[/\\]")
_BESIDE: Final = re.compile(r"/(?:site-packages|inferx/sim|inferx/core)/")
MECHANISMS: Final = ("snapshot", "loader", "none")
"""What a bundle may presume of how pods start."""
_PERIODS: Final = (("control_period_ns", 1), ("settle_ns", 0), ("patience_ns", 0))
"""Times of a bundle, and the least that each may be."""
_MOST_PODS: Final = (1 << 31) - 1


def check_bundle(bundle: PolicyBundle) -> None:
    """Assert that every slot's policy has its methods, and that plain fields can be worked with.

    Raises:
        PolicyError: A slot lacks a method, or a field is none that the kernel can keep to.
    """
    _check_methods(bundle)
    for fault in bundle_faults(bundle):
        raise PolicyError("bundle", fault, None)


def bundle_faults(bundle: PolicyBundle) -> Iterator[str]:
    """Yield what is wrong with the plain fields: which, what was found, what was expected."""
    name: Any = bundle.name  # A bundle made elsewhere may hold anything.
    if not (isinstance(name, str) and name.strip() and name.isprintable() and "/" not in name):
        yield f"name: {name!r:.200}, expected a printable text without a slash"
    yield from _work_faults(bundle)


def filled(bundle: PolicyBundle) -> dict[str, tuple[str, ...]]:
    """Return the slots that a bundle fills, and the methods that their policies must have."""
    return {
        slot: methods
        for slot, methods in METHODS.items()
        if slot not in MAY_BE_EMPTY or getattr(bundle, slot) is not None
    }


def _check_methods(bundle: PolicyBundle) -> None:
    for slot, methods in filled(bundle).items():
        for method in methods:
            if not callable(getattr(getattr(bundle, slot), method, None)):
                kind = type(getattr(bundle, slot)).__name__
                raise PolicyError(slot, f"{kind} has no method {method!r}", None)


def _work_faults(bundle: PolicyBundle) -> Iterator[str]:
    """Yield what is wrong with the fields that the kernel works by."""
    if bundle.mechanism not in MECHANISMS:
        yield f"mechanism: {bundle.mechanism!r:.200}, expected one of {', '.join(MECHANISMS)}"
    for field in ("snapshots", "whole_gpus"):
        if type(getattr(bundle, field)) is not bool:
            yield f"{field}: {getattr(bundle, field)!r:.200}, expected true or false"
    for field, least in _PERIODS:
        value: object = getattr(bundle, field)
        if type(value) is not int or value < least:
            yield f"{field}: {value!r:.200}, expected whole nanoseconds, at least {least}"
    if type(bundle.observers) is not tuple:
        yield f"observers: {bundle.observers!r:.200}, expected a tuple"
    elif not all(callable(getattr(one, "observe", None)) for one in bundle.observers):
        yield "observers: one has no method 'observe', expected observe(now_ns, event)"


def watched(bundle: PolicyBundle) -> PolicyBundle:
    """Return the same bundle with every slot looked at.

    Its name may be any: commands add to it what was set.

    Raises:
        PolicyError: A slot lacks a method, or a field is none that the kernel can keep to.
    """
    _check_methods(bundle)
    for fault in _work_faults(bundle):
        raise PolicyError("bundle", fault, None)
    explains = callable(getattr(bundle.placement, "explain", None))
    return dataclasses.replace(
        bundle,
        admission=_Admission(bundle.admission),
        routing=_Routing(bundle.routing),
        placement=(_ExplainedPlacement if explains else _Placement)(bundle.placement),
        eviction=_Eviction(bundle.eviction),
        keep_alive=_KeepAlive(bundle.keep_alive),
        prewarm=_Prewarm(bundle.prewarm),
        scaling=_Scaling(bundle.scaling),
        observers=tuple(_Observer(observer) for observer in bundle.observers),
        queueing=None if bundle.queueing is None else WatchedQueueing(bundle.queueing),
    )


def _raised(slot: str, error: BaseException) -> PolicyError:
    """Say that a policy raised, and where."""
    # The innermost line of the policy itself: what it calls in a library tells its author less.
    frames = traceback.extract_tb(error.__traceback__)
    paths = [(_SEPARATOR.split(frame.filename), frame.lineno) for frame in frames]
    mine = [(path[-1], line) for path, line in paths if not _BESIDE.search("/".join(path))]
    at = f" at {mine[-1][0]}:{mine[-1][1]}" if mine else ""
    return PolicyError(slot, f"it raised {type(error).__name__}{at}: {error}", None)


def _wrong(slot: str, expected: str, answer: object) -> PolicyError:
    if isinstance(answer, Coroutine):
        answer.close()  # Or Python warns that nobody awaited it.
        return PolicyError(
            slot, f"it is async; policies are synchronous: expected {expected}", None
        )
    return PolicyError(slot, f"it returned {answer!r:.200}; expected {expected}", None)


def _ask(slot: str, ask: Callable[..., Any], *arguments: object) -> Any:
    try:
        return ask(*arguments)
    except PolicyError:
        raise
    except (Exception, SystemExit) as error:
        raise _raised(slot, error) from error


class _Admission:
    """Hot: once a request."""

    __slots__ = ("_admit",)

    def __init__(self, policy: Any) -> None:
        self._admit = policy.admit

    def admit(self, request: RequestArrived, queued: int, view: RouterView) -> Admit | Reject:
        try:
            answer = self._admit(request, queued, view)
        except PolicyError:
            raise
        except (Exception, SystemExit) as error:
            raise _raised("admission", error) from error
        if type(answer) is Admit:
            return answer
        if type(answer) is Reject and type(answer.reason) is str:
            return answer
        raise _wrong("admission", "Admit() or Reject(reason)", answer)


class _Routing:
    """Hot: once a request of a function with several pods."""

    __slots__ = ("_route",)

    def __init__(self, policy: Any) -> None:
        self._route = policy.route

    def route(
        self,
        request: RequestArrived,
        candidates: Sequence[LeasedPod],
        view: RouterView,
        rng: Generator,
    ) -> int:
        try:
            answer = self._route(request, candidates, view, rng)
        except PolicyError:
            raise
        except (Exception, SystemExit) as error:
            raise _raised("routing", error) from error
        # A function that narrows, as below, would cost a call a request.
        if isinstance(answer, int | np.integer) and 0 <= answer < len(candidates):
            return int(answer)  # pyright: ignore[reportUnknownArgumentType]  # see above
        raise _wrong("routing", f"an index in 0..{len(candidates) - 1}", answer)  # pyright: ignore[reportUnknownArgumentType]  # see above


def _gpus(gpus: tuple[object, ...]) -> bool:
    return type(gpus) is tuple and all(type(gpu) is int for gpu in gpus)


class _Placement:
    __slots__ = ("_policy",)

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        answer = _ask("placement", self._policy.place, want, view, rng)
        if type(answer) is Place and _gpus(answer.gpus):
            return answer
        if type(answer) is Defer and type(answer.reason) is str:
            return answer
        raise _wrong("placement", "Place(tuple of whole numbers) or Defer(reason)", answer)


class _ExplainedPlacement(_Placement):
    __slots__ = ()

    def explain(self, want: Want, view: ClusterView) -> Explanation:
        answer = _ask("placement", self._policy.explain, want, view)
        if type(answer) is Explanation:
            return answer
        raise _wrong("placement", "an Explanation from explain()", answer)


class _Eviction:
    __slots__ = ("_policy",)

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        answer = _ask("eviction", self._policy.evict, want, view, rng)
        if type(answer) is Evict and _gpus(answer.gpus) and _victims(answer.victims):
            return answer
        if type(answer) is Defer and type(answer.reason) is str:
            return answer
        expected = "Evict(tuple of whole numbers, tuple of (pod, Tier)) or Defer(reason)"
        raise _wrong("eviction", expected, answer)


def _victims(victims: tuple[tuple[object, ...], ...]) -> bool:
    return type(victims) is tuple and all(
        type(pair) is tuple
        and len(pair) == 2
        and type(pair[0]) is int
        and isinstance(pair[1], Tier)
        for pair in victims
    )


class _KeepAlive:
    __slots__ = ("_policy",)

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def retain(self, function: FunctionId, at: Tier, view: ClusterView) -> Retain:
        answer = _ask("keep_alive", self._policy.retain, function, at, view)
        if type(answer) is Retain and type(answer.hold_ns) is int and type(answer.then) is Tier:
            return answer
        raise _wrong("keep_alive", "Retain(whole nanoseconds, Tier)", answer)


def _moves(answer: Sequence[object]) -> TypeGuard[Sequence[Promote | Demote]]:
    return isinstance(answer, list | tuple) and all(
        isinstance(move, Promote | Demote) for move in answer
    )


class _Prewarm:
    __slots__ = ("_policy",)

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        answer = _ask("prewarm", self._policy.promote, view, rng)
        if _moves(answer):
            return answer
        raise _wrong("prewarm", "a list or tuple of Promote and Demote", answer)


def _is_whole(answer: object) -> TypeGuard[int | np.integer[Any]]:
    return isinstance(answer, int | np.integer)


def _are_counts(answer: object, count: int) -> TypeGuard[I32]:
    if not isinstance(answer, np.ndarray):
        return False
    array = cast("NDArray[Any]", answer)
    return array.shape == (count,) and np.issubdtype(array.dtype, np.integer)


class _Scaling:
    __slots__ = ("_policy",)

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def target(self, function: FunctionId, view: ClusterView) -> int:
        answer = _ask("scaling", self._policy.target, function, view)
        if _is_whole(answer) and 0 <= answer <= _MOST_PODS:
            return int(answer)
        expected = f"a whole number of pods from target(), 0 to {_MOST_PODS:,}"
        raise _wrong("scaling", expected, answer)

    def targets(self, view: ClusterView) -> I32 | None:
        answer = _ask("scaling", self._policy.targets, view)
        if answer is None:
            return None
        count = len(view.functions.specs)
        if _are_counts(answer, count):
            wrong = (answer < -1) | (answer > _MOST_PODS)
            if not wrong.any():
                return answer
            expected = f"-1 to {_MOST_PODS:,} for each function from targets()"
            raise _wrong("scaling", expected, int(answer[wrong][0]))
        expected = f"None or an integer array of shape ({count},) from targets()"
        raise _wrong("scaling", expected, answer)


class WatchedQueueing:
    """A queue policy that can be told everything, whether it listens or not."""

    __slots__ = ("_policy", "_watches")

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self._watches = {
            name: method
            for name in ("arrived", "started", "ended")
            if callable(method := getattr(policy, name, None))
        }

    def next_request(self, waiting: Sequence[Waiting], view: RouterView) -> int:
        """Return whose turn it is for a slot."""
        answer = _ask("queueing", self._policy.next_request, waiting, view)
        return self._index("next_request()", answer, len(waiting))

    def next_want(self, wants: Sequence[Want], view: ClusterView) -> int:
        """Return whose turn it is for room."""
        answer = _ask("queueing", self._policy.next_want, wants, view)
        return self._index("next_want()", answer, len(wants))

    def _index(self, method: str, answer: object, count: int) -> int:
        if _is_whole(answer) and 0 <= answer < count:
            return int(answer)
        raise _wrong("queueing", f"an index in 0..{count - 1} from {method}", answer)

    def arrived(
        self, request: RequestArrived, waiting: Sequence[Waiting], view: RouterView
    ) -> None:
        """Tell of a request that was let in."""
        self._tell("arrived", request, waiting, view)

    def started(self, request: RequestArrived, view: RouterView) -> None:
        """Tell of a request that was given a slot."""
        self._tell("started", request, view)

    def ended(self, request: RequestArrived, output_tokens: int, view: RouterView) -> None:
        """Tell of a request that left its slot."""
        self._tell("ended", request, output_tokens, view)

    def _tell(self, name: str, *arguments: object) -> None:
        tell = self._watches.get(name)
        if tell is not None:
            answer: object = _ask("queueing", tell, *arguments)
            if isinstance(answer, Coroutine):
                raise _wrong("queueing", f"nothing from {name}()", cast("object", answer))


class _Observer:
    __slots__ = ("_observe",)

    def __init__(self, policy: Any) -> None:
        self._observe = policy.observe

    def observe(self, now_ns: int, event: object) -> None:
        answer: object = _ask("observer", self._observe, now_ns, event)
        if isinstance(answer, Coroutine):
            raise _wrong("observer", "nothing from observe()", cast("object", answer))

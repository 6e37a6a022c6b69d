"""A bundle's answers are looked at before anybody believes them."""

from dataclasses import replace

import numpy as np
import pytest

from inferx.core.errors import PolicyError
from inferx.core.protocols import Admit, Reject
from inferx.core.watched import check_bundle, watched
from inferx.load import load_bundle

DEFAULT = load_bundle("default")


class Says:
    """Answers everything in one way, or raises it."""

    def __init__(self, answer):
        self.answer = answer

    def _say(self, *_arguments):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    admit = route = place = explain = evict = retain = promote = target = targets = _say
    next_request = next_want = arrived = started = ended = _say


def test_a_policy_without_its_methods_is_named_before_anything_runs():
    with pytest.raises(PolicyError, match="scaling policy: object has no method 'target'"):
        check_bundle(replace(DEFAULT, scaling=object()))


def ask(slot, method, answer, *arguments):
    policy = getattr(watched(replace(DEFAULT, **{slot: Says(answer)})), slot)
    return getattr(policy, method)(*arguments)


CALLS = (
    ("admission", "admit", (None, 0, None)),
    ("routing", "route", (None, [None], None, None)),
    ("placement", "place", (None, None, None)),
    ("placement", "explain", (None, None)),
    ("eviction", "evict", (None, None, None)),
    ("keep_alive", "retain", (0, None, None)),
    ("prewarm", "promote", (None, None)),
    ("scaling", "target", (0, None)),
    ("queueing", "next_request", ((None, None), None)),
    ("queueing", "next_want", ((None, None), None)),
)


@pytest.mark.parametrize(("slot", "method", "arguments"), CALLS)
def test_what_goes_wrong_inside_names_its_slot_and_line(slot, method, arguments):
    with pytest.raises(PolicyError, match=f"{slot} policy: it returned 1j"):
        ask(slot, method, 1j, *arguments)
    with pytest.raises(PolicyError, match=r"it raised ValueError at test_watched\.py:\d+: no"):
        ask(slot, method, ValueError("no"), *arguments)
    with pytest.raises(PolicyError, match="it raised SystemExit"):
        ask(slot, method, SystemExit(3), *arguments)
    own = PolicyError(slot, "its own", None)
    with pytest.raises(PolicyError) as caught:
        ask(slot, method, own, *arguments)
    assert caught.value is own


def test_a_verdict_on_a_request_passes_as_it_is():
    for verdict in (Admit(), Reject("full")):
        assert ask("admission", "admit", verdict, None, 0, None) is verdict
    with pytest.raises(PolicyError, match="Reject"):
        ask("admission", "admit", Reject(3), None, 0, None)
    with pytest.raises(PolicyError, match="an index in"):
        ask("routing", "route", 1, None, [None], None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mechanism", "magic"),
        ("snapshots", None),
        ("whole_gpus", 1),
        ("control_period_ns", 0),
        ("settle_ns", -1),
        ("patience_ns", 1.5),
        ("observers", [Says(None)]),
        ("observers", (object(),)),
    ],
)
def test_a_field_that_the_kernel_cannot_keep_to_is_named_before_anything_runs(field, value):
    bundle = replace(DEFAULT, **{field: value})
    for check in (check_bundle, watched):
        with pytest.raises(PolicyError, match=f"bundle policy: {field}: .*expected"):
            check(bundle)


@pytest.mark.parametrize("name", [5, "", " ", "a/b", "a\nb", "\x1b[2J"])
def test_a_bundle_has_a_name_that_can_be_shown(name):
    with pytest.raises(PolicyError, match=r"bundle policy: name: .*expected a printable text"):
        check_bundle(replace(DEFAULT, name=name))


@pytest.mark.parametrize("answer", [-1, 1 << 31, 0.5])
def test_target_is_a_number_of_pods(answer):
    with pytest.raises(PolicyError, match=r"from target\(\), 0 to 2,147,483,647"):
        ask("scaling", "target", answer, 0, None)


class Functions:
    specs = (None, None)


class View:
    functions = Functions()


@pytest.mark.parametrize("answer", [[-2, 0], [0, 1 << 31]])
def test_targets_are_numbers_of_pods_or_no_opinion(answer):
    with pytest.raises(PolicyError, match=r"-1 to 2,147,483,647 for each function"):
        ask("scaling", "targets", np.array(answer), View())
    kept = np.array([-1, 3])
    assert ask("scaling", "targets", kept, View()) is kept


class Later:
    """Async, as no policy is."""

    async def place(self, want, view, rng):
        pass

    async def observe(self, now_ns, event):
        pass

    async def started(self, request, view):
        pass

    next_request = next_want = started


def test_an_async_policy_is_told_so_and_python_does_not_warn():
    later = Later()
    bundle = watched(replace(DEFAULT, placement=later, observers=(later,), queueing=later))
    with pytest.raises(PolicyError, match="placement policy: it is async; policies are synchr"):
        bundle.placement.place(None, None, None)
    with pytest.raises(PolicyError, match="observer policy: it is async"):
        bundle.observers[0].observe(0, None)
    with pytest.raises(PolicyError, match="queueing policy: it is async"):
        bundle.queueing.started(None, None)
    assert bundle.queueing.ended(None, 0, None) is None, "it does not listen"


def test_a_queue_policy_may_be_absent_but_not_half_there():
    check_bundle(replace(DEFAULT, queueing=None))
    with pytest.raises(PolicyError, match="queueing policy: object has no method 'next_request'"):
        check_bundle(replace(DEFAULT, queueing=object()))


def test_a_bundle_that_can_be_worked_with_passes():
    check_bundle(DEFAULT)

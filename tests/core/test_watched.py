"""A bundle's answers are looked at before anybody believes them."""

from dataclasses import replace

import pytest

from inferx.core.errors import PolicyError
from inferx.core.protocols import Admit, Reject
from inferx.core.watched import check_methods, watched
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


def test_a_policy_without_its_methods_is_named_before_anything_runs():
    with pytest.raises(PolicyError, match="scaling policy: object has no method 'target'"):
        check_methods(replace(DEFAULT, scaling=object()))


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

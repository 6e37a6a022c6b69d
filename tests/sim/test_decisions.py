"""Deferrals in a row are one row, and every decision can be read back from the rows."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.explain import Decision, Explanation
from inferx.sim.decisions import DecisionLog


def log_of(decisions):
    log = DecisionLog()
    for decision in decisions:
        log.take(decision)
    return log.rows


def defer(at_ns, function=0, reason="no room", feasible=None):
    why = None if feasible is None else Explanation(gpus=4, feasible=feasible)
    return Decision(at_ns, "defer", function, reason=reason, explanation=why)


def told(rows):
    """Every decision that rows stand for, by function: when, what, why, and the explanation."""
    found = {}
    for row in rows:
        explain = row.explain
        each = found.setdefault(row.function, [])
        each.append((row.at_ns, row.kind, row.reason, explain))
        later = row.again_explain
        assert len(later) == len(row.again_ns)
        for at_ns, text in zip(row.again_ns, later, strict=True):
            explain = explain if text is None else text
            each.append((at_ns, row.kind, row.reason, explain))
    return found


@st.composite
def decisions(draw):
    """Any sequence of decisions about three functions and about none."""
    kinds = st.sampled_from(["defer", "defer", "defer", "place", "evict", "lose"])
    at_ns, made = 0, []
    for kind in draw(st.lists(kinds, max_size=40)):
        at_ns += draw(st.integers(0, 2))
        function, reason = draw(st.integers(-1, 2)), draw(st.sampled_from(["a", "b"]))
        feasible = draw(st.sampled_from([None, 0, 1]))
        why = None if feasible is None else Explanation(gpus=4, feasible=feasible)
        made.append(Decision(at_ns, kind, function, reason=reason, explanation=why))
    return made


@given(decisions())
def test_every_decision_is_read_back_and_no_row_could_be_joined_with_the_next(made):
    rows = log_of(made)
    expected = {}
    for one in made:
        why = one.explanation
        text = "" if why is None else msgspec.json.encode(why).decode()
        each = expected.setdefault(one.function, [])
        each.append((one.at_ns, one.kind, one.reason, text))
    assert told(rows) == expected
    assert sum(row.count for row in rows) == len(made)
    latest = {}
    for row in rows:
        before = latest.get(row.function)
        if before is not None and row.kind == before.kind == "defer":
            assert row.reason != before.reason
        assert row.count == 1 or row.kind == "defer"
        latest[row.function] = row
    assert [row.at_ns for row in rows] == sorted(row.at_ns for row in rows)


@given(decisions())
def test_explanations_change_nothing_but_themselves(made):
    bare = [msgspec.structs.replace(one, explanation=None) for one in made]

    def plain(rows):
        return [(r.at_ns, r.kind, r.function, r.reason, r.count, r.until_ns) for r in rows]

    assert plain(log_of(made)) == plain(log_of(bare))


def test_other_functions_deferrals_between_do_not_part_a_row():
    rows = log_of([defer(1), defer(1, 1), defer(5), defer(5, 1), defer(9)])
    assert [(r.function, r.at_ns, r.until_ns, r.count) for r in rows] == [
        (0, 1, 9, 3),
        (1, 1, 5, 2),
    ]


def test_another_reason_or_decision_ends_the_row():
    placed = Decision(3, "place", 0, pod=1)
    rows = log_of([defer(1), defer(2), placed, defer(4), defer(5, reason="full"), defer(6)])
    assert [(r.kind, r.at_ns, r.until_ns, r.count) for r in rows] == [
        ("defer", 1, 2, 2),
        ("place", 3, 3, 1),
        ("defer", 4, 4, 1),
        ("defer", 5, 5, 1),
        ("defer", 6, 6, 1),
    ]


def test_explanation_is_kept_where_it_changed():
    (row,) = log_of([defer(1, feasible=0), defer(2, feasible=0), defer(3, feasible=1)])
    assert row.again_explain[0] is None
    assert '"feasible":1' in row.again_explain[1]

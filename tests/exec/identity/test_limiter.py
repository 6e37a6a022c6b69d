"""Rates against a naive bucket of exact fractions; refusals, debts, bounds."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.units import NS_PER_S
from inferx.exec.identity.limiter import Limited, Limiter, Ticket
from inferx.exec.identity.limits import Limits, Rate

rates = st.builds(
    Rate,
    count=st.integers(1, 50),
    period_ns=st.integers(1, 1000),
    burst=st.integers(1, 20),
)


def ask(
    limiter: Limiter, now_ns: int, limits: Limits, *, tokens: int = 0, whose: str = "tenant:t"
) -> Ticket | Limited:
    return limiter.admit(now_ns, ((whose, limits),), tokens=tokens)


@given(rates, st.lists(st.tuples(st.integers(0, 500), st.integers(1, 25), st.integers(0, 40))))
def test_tokens_are_a_leaky_bucket_to_the_last_fraction(
    rate: Rate, calls: list[tuple[int, int, int]]
):
    limiter = Limiter()
    limits = Limits(tokens=rate)
    level, now_ns = Fraction(0), 0
    for pause_ns, estimate, used in calls:
        now_ns += pause_ns
        level = max(Fraction(0), level - Fraction(pause_ns * rate.count, rate.period_ns))
        answer = ask(limiter, now_ns, limits, tokens=estimate)
        if level + estimate <= rate.burst:
            assert isinstance(answer, Ticket)
            limiter.settle(now_ns, answer, tokens=used)
            level = max(Fraction(0), level + used)
            continue
        assert isinstance(answer, Limited)
        if estimate > rate.burst:
            assert answer.retry_after_ns is None
            continue
        # It passes when it says so, and not a nanosecond earlier.
        assert answer.retry_after_ns is not None
        wait_ns = (level + estimate - rate.burst) * rate.period_ns / rate.count
        assert answer.retry_after_ns == -(-wait_ns.numerator // wait_ns.denominator)


@given(rates, st.lists(st.integers(0, 200), max_size=60))
def test_no_window_holds_more_requests_than_the_rate_allows(rate: Rate, pauses: list[int]):
    limiter = Limiter()
    times: list[int] = []
    now_ns = 0
    for pause_ns in pauses:
        now_ns += pause_ns
        if isinstance(ask(limiter, now_ns, Limits(requests=rate)), Ticket):
            times.append(now_ns)
    for first in range(len(times)):
        for last in range(first, len(times)):
            span = Fraction((times[last] - times[first]) * rate.count, rate.period_ns)
            assert last - first + 1 <= rate.burst + span


def test_a_refused_request_costs_nothing_anywhere():
    limiter = Limiter()
    tenant = Limits(requests=Rate(1, NS_PER_S, 10))
    key = Limits(requests=Rate(1, NS_PER_S, 1))
    pair = (("tenant:t", tenant), ("key:1", key))
    assert isinstance(limiter.admit(0, pair, tokens=0), Ticket)
    for _ in range(50):
        refused = limiter.admit(0, pair, tokens=0)
        assert refused == Limited("requests", "key:1", NS_PER_S)
    for _ in range(9):
        assert isinstance(ask(limiter, 0, tenant), Ticket)
    assert ask(limiter, 0, tenant) == Limited("requests", "tenant:t", NS_PER_S)


def test_an_answer_longer_than_estimated_is_paid_for_by_the_next():
    limiter = Limiter()
    limits = Limits(tokens=Rate(100, NS_PER_S, 100))
    ticket = ask(limiter, 0, limits, tokens=10)
    assert isinstance(ticket, Ticket)
    limiter.settle(0, ticket, tokens=300)
    assert ask(limiter, 0, limits, tokens=1) == Limited("tokens", "tenant:t", 2_010_000_000)
    assert isinstance(ask(limiter, 2_010_000_000, limits, tokens=1), Ticket)


def test_an_answer_shorter_than_estimated_is_given_back_but_never_hoarded():
    limiter = Limiter()
    limits = Limits(tokens=Rate(100, NS_PER_S, 100))
    ticket = ask(limiter, 0, limits, tokens=100)
    assert isinstance(ticket, Ticket)
    # The bucket has drained by itself meanwhile: there is nothing left to give back.
    limiter.settle(10 * NS_PER_S, ticket, tokens=0)
    assert isinstance(ask(limiter, 10 * NS_PER_S, limits, tokens=100), Ticket)
    assert isinstance(ask(limiter, 10 * NS_PER_S, limits, tokens=1), Limited)


def test_places_are_counted_until_requests_end_and_once_each():
    limiter = Limiter()
    limits = Limits(concurrent=2)
    first, second = ask(limiter, 0, limits), ask(limiter, 0, limits)
    assert isinstance(first, Ticket)
    assert isinstance(second, Ticket)
    refused = ask(limiter, 0, limits)
    assert isinstance(refused, Limited)
    assert refused.retry_after_ns
    limiter.settle(0, first, tokens=0)
    with pytest.raises(AssertionError):
        limiter.settle(0, first, tokens=0)
    assert isinstance(ask(limiter, 0, limits), Ticket)
    assert isinstance(ask(limiter, 0, limits), Limited)


def test_a_limit_that_changes_keeps_what_was_used():
    limiter = Limiter()
    before, after = Limits(tokens=Rate(10, NS_PER_S, 100)), Limits(tokens=Rate(20, NS_PER_S, 50))
    assert isinstance(ask(limiter, 0, before, tokens=40), Ticket)
    assert ask(limiter, 0, after, tokens=20) == Limited("tokens", "tenant:t", NS_PER_S // 2)
    assert isinstance(ask(limiter, NS_PER_S // 2, after, tokens=20), Ticket)


def test_memory_is_bounded_by_those_who_are_not_quiet():
    limiter = Limiter(capacity=100)
    limits = Limits(requests=Rate(1, NS_PER_S, 5))
    for number in range(10_000):
        ask(limiter, number * NS_PER_S // 10, limits, whose=f"tenant:t{number}")
    assert len(limiter) <= 100
    assert limiter.forgotten == 0
    for number in range(10_000):
        ask(limiter, 2_000 * NS_PER_S, limits, whose=f"tenant:u{number}")
    assert len(limiter) <= 100
    assert limiter.forgotten > 9_000


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1 << 50, 1), (-1, 1, 1)])
def test_what_is_no_rate_is_refused_in_one_line(wrong: tuple[int, int, int]):
    with pytest.raises(ValueError, match=r"of a rate: .*; expected"):
        Rate(*wrong)

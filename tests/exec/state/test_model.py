"""Every kind of store against a naive model, over random histories of one user."""

import asyncio
import secrets
from contextlib import ExitStack

import pytest
from beds import BEDS
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from stores import Bed, Model, commits

from inferx.exec.state.store import (
    ABSENT,
    NO_LEASE,
    Delete,
    Expect,
    LeaseLostError,
    Put,
    StoreLeaseId,
)

NAMES = ("t1/a", "t1/b", "t10/a", "t1/c/d")
PREFIXES = ("", "t1/", "t10/", "t1/c/", "t2/")


def machine(bed: Bed, runner: asyncio.Runner) -> type[RuleBasedStateMachine]:
    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.root = f"/m-{secrets.token_hex(4)}/"
            self.model = Model()
            self.leases: list[StoreLeaseId] = []
            self.opened = bed.open()
            self.store = runner.run(self.opened.__aenter__())

        @initialize()
        def begin(self) -> None:
            self.begin_at = runner.run(self.store.list(self.root)).revision
            self.known = [ABSENT]

        def teardown(self) -> None:
            runner.run(self.opened.__aexit__(None, None, None))

        @rule(
            expects=st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5)), max_size=2),
            puts=st.dictionaries(
                st.sampled_from(NAMES),
                st.none() | st.tuples(st.binary(max_size=3), st.integers(0, 3)),
            ),
        )
        def commit(self, expects, puts) -> None:
            # The latest revisions: those that conditions are likely to hold for.
            conditions = [
                Expect(f"{self.root}{name}", self.known[-1 - back % len(self.known)])
                for name, back in expects
            ]
            changes = [
                Delete(f"{self.root}{name}")
                if what is None
                else Put(f"{self.root}{name}", what[0], self.lease(what[1]))
                for name, what in puts.items()
            ]
            before = runner.run(self.store.list(self.root))
            try:
                revision = runner.run(self.store.commit(conditions, changes))
            except LeaseLostError:
                live = {NO_LEASE, *self.leases}
                assert any(isinstance(each, Put) and each.lease not in live for each in changes)
                assert self.model.holds(conditions)
                return
            if not self.model.holds(conditions):
                assert revision is None
                return
            assert revision is not None
            count = len(self.model.done)
            self.model.commit(revision, changes)
            assert (revision > before.revision) == (len(self.model.done) > count)
            self.known.append(revision)

        def lease(self, number: int) -> StoreLeaseId:
            """Return none, a lease that never was, or one of ours."""
            if number == 0:
                return NO_LEASE
            return self.leases[number % len(self.leases)] if self.leases else StoreLeaseId(99)

        @precondition(lambda self: len(self.leases) < 3)
        @rule()
        def grant(self) -> None:
            lease = runner.run(self.store.grant(600.0))
            assert lease not in {NO_LEASE, *self.leases}
            self.leases.append(lease)

        @precondition(lambda self: self.leases)
        @rule(number=st.integers(0, 2))
        def revoke(self, number) -> None:
            lease = self.leases.pop(number % len(self.leases))
            runner.run(self.store.revoke(lease))
            held = [each.key for each in self.model.entries.values() if each.lease == lease]
            if held:
                revision = runner.run(self.store.list(self.root)).revision
                self.model.commit(revision, [Delete(key) for key in held])
                self.known.append(revision)

        @precondition(lambda self: self.leases)
        @rule()
        def keep_alive(self) -> None:
            runner.run(self.store.keep_alive(self.leases[0]))

        @rule(back=st.integers(0, 20), prefix=st.sampled_from(PREFIXES))
        def watch(self, back, prefix) -> None:
            after = self.known[-1 - back] if back < len(self.known) - 1 else self.begin_at
            expected = self.model.since(self.root + prefix, after)
            if expected:
                until = expected[-1].revision
                found = runner.run(commits(self.store, self.root + prefix, after, until))
                assert found == expected

        @invariant()
        def reads_are_the_models(self) -> None:
            for prefix in PREFIXES:
                listing = runner.run(self.store.list(self.root + prefix))
                assert listing.entries == self.model.under(self.root + prefix)
            key = f"{self.root}{NAMES[0]}"
            assert runner.run(self.store.get(key)) == self.model.entries.get(key)

    return Machine


@pytest.mark.parametrize("bed", BEDS, ids=lambda bed: bed.name)
def test_a_store_does_what_the_model_does(bed: Bed):
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        stack.enter_context(bed.up())
        case = machine(bed, runner).TestCase
        case.settings = settings(stateful_step_count=30)
        case("runTest").runTest()

"""The gateway's door: what it remembers of a caller's way is let go when anything on it changes."""

import asyncio

import pytest

from inferx.core.units import NS_PER_S
from inferx.exec.clock import WallClock
from inferx.exec.gateway.dispatch import FunctionName
from inferx.exec.gateway.door import Door
from inferx.exec.gateway.heads import RequestHead
from inferx.exec.gateway.refusals import Refused
from inferx.exec.gateway.tenants import NO_TERMS, Terms
from inferx.exec.gateway.usage import Usage
from inferx.exec.identity.audit import Audit
from inferx.exec.identity.audit_table import AuditTable
from inferx.exec.identity.limiter import Limiter
from inferx.exec.identity.limits import UNLIMITED, Limits, Rate
from inferx.exec.identity.principal import Grant, Level, Principal

NAME = FunctionName("t", "n", "f")
OTHER = FunctionName("t", "m", "f")
HEAD = RequestHead(
    b"POST",
    b"/",
    [],
    length=400,
    tells_length=True,
    version="1.1",
    keep_alive=True,
    peer="127.0.0.1",
)
TWICE = Limits(requests=Rate(count=1, period_ns=3600 * NS_PER_S, burst=2))


def holder(*namespaces, limits=UNLIMITED):
    grants = tuple(Grant(Level.INFERENCE, "t", namespace) for namespace in namespaces)
    return Principal("key:1", grants, limits)


class Cluster:
    """Whose terms a test changes."""

    def __init__(self, audit=None):
        self.now = NO_TERMS
        self.limiter = Limiter()
        self.door = Door(None, self.limiter, lambda _: self.now, WallClock(), audit)

    def enter(self, who, function=NAME):
        """Go in and out again; return why not, or nothing."""
        leave = self.door.enter(who, HEAD, function)
        if isinstance(leave, Refused):
            return leave.reason
        leave.ended(Usage(output_tokens=1))
        return ""


def test_what_was_granted_to_a_caller_holds_for_as_long_as_it_is_granted():
    cluster = Cluster()
    who, less, more = holder("n"), holder(), holder("m")
    assert [cluster.enter(who), cluster.enter(who)] == ["", ""]
    assert cluster.enter(who, OTHER) == "forbidden"
    # The same name, as when a key's record has changed.
    assert [cluster.enter(less), cluster.enter(who), cluster.enter(more)] == [
        "forbidden",
        "",
        "forbidden",
    ]
    assert cluster.enter(more, OTHER) == ""


def test_a_tenants_terms_are_those_of_now():
    cluster = Cluster()
    who = holder("n")
    assert cluster.enter(who) == ""
    cluster.now = Terms(UNLIMITED, quota_exceeded=True)
    assert cluster.enter(who) == "quota exceeded"
    cluster.now = Terms(TWICE, quota_exceeded=False)
    assert [cluster.enter(who) for _ in range(3)] == ["", "", "rate limited"]
    cluster.now = NO_TERMS
    assert cluster.enter(who) == ""


@pytest.mark.parametrize("limits", [TWICE, Limits(tokens=Rate(1, 3600 * NS_PER_S, 150))])
def test_a_callers_own_limits_are_held_to_where_its_tenant_has_none(limits):
    cluster = Cluster()
    who = holder("n", limits=limits)
    entered = [cluster.enter(who) for _ in range(200)]
    assert entered[:2] == ["", ""]
    assert entered[-1] == "rate limited"
    assert cluster.enter(holder("n")) == ""


def test_places_are_given_back():
    cluster = Cluster()
    who = holder("n", limits=Limits(concurrent=1))
    first = cluster.door.enter(who, HEAD, NAME)
    assert cluster.enter(who) == "rate limited"
    first.ended(Usage())
    assert cluster.enter(who) == ""


def test_the_audit_log_counts_everybody_who_entered(tmp_path):
    async def main():
        table = AuditTable(f"sqlite:///{tmp_path}/audit.db")
        table.prepare()
        audit = Audit(table, WallClock())
        writing = asyncio.create_task(audit.run())
        cluster = Cluster(audit)
        who, other = holder("n"), Principal("key:2", (Grant(Level.FULL, "t", "n"),))
        for entered in range(1, 6):
            for _ in range(100):
                assert cluster.enter(who) == cluster.enter(other) == ""
            async with asyncio.timeout(30):
                while audit.counts.written < 200 * entered:  # noqa: ASYNC110  # nobody is told
                    await asyncio.sleep(0.01)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        rows = AuditTable(f"sqlite:///{tmp_path}/audit.db").read()
        for name in ("key:1", "key:2"):
            assert sum(row.times for row in rows if row.who == name) == 500
        assert audit.counts.lost == 0

    asyncio.run(main())

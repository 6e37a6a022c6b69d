"""What happened to one request, and why: the gateway's record of it, and the leader's decisions.

Laws:
1. A request is told of to who may read its function; to anybody else it is as if it were not there.
2. Candidates, scores, victims and other nodes tell of other tenants: they are for readers of the
   cluster. What became of a tenant's own request is its own.
3. Without a leader the gateway's record is told all the same.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from inferx.core.units import NS_PER_MS
from inferx.exec.gateway.api.access import Access
from inferx.exec.gateway.api.counterfactual import counterfactual
from inferx.exec.gateway.api.leader import Leader
from inferx.exec.gateway.api.routing import Route, json_answer
from inferx.exec.gateway.records import KEPT, KEPT_PLAIN, Records, RequestRecord
from inferx.exec.gateway.refusals import Refused
from inferx.exec.identity.principal import EVERY, Principal

__all__ = ["RequestRoutes", "how_it_started"]

_OWN: Final = ("at_ns", "kind", "function", "pod", "node", "gpus", "start", "reason", "times")
"""Of a decision that starts or loses a tenant's own pod, what its tenant may read."""


class RequestRoutes:
    """Serves them.

    Args:
        access: Who may read what.
        leader: Whoever decides.
        records: This gateway's latest requests.
        gateway: What it is registered as.
    """

    def __init__(self, access: Access, leader: Leader, records: Records, gateway: str) -> None:
        self._access = access
        self._leader = leader
        self._records = records
        self._gateway = gateway

    def routes(self) -> list[Route]:
        """Return what is served."""
        return [
            Route("GET", "/request/{request}/", self.request, "What became of a request, and why.")
        ]

    async def request(self, request: web.Request) -> web.Response:
        """GET /request/ID/."""
        who = await self._access.who(request)
        self._access.check_list(who, "function", "")
        named = request.match_info["request"]
        found = next((one for one in self._records.find(named) if self._sees(who, one)), None)
        if found is None:
            text = (
                f"not among those that gateway {self._gateway} remembers: the latest {KEPT} that"
                f" waited or failed, the latest {KEPT_PLAIN} others"
            )
            raise Refused("not found", f"request {named[:128]!r}: {text}")
        told = record_view(found)
        told["gateway"] = self._gateway
        decided: Mapping[str, Any] = {"decisions": [], "start": None, "pod": None, "epoch": None}
        try:
            decided = await self._leader.explain(
                str(found.function),
                found.pod,
                found.queued_ns - SKEW_NS,
                ended_ns + SKEW_NS if (ended_ns := found.started_ns or found.ended_ns) else 0,
            )
        except Refused as why:
            told["leader"] = str(why)
        whole = self._access.may(who, "read", EVERY, EVERY, "node")
        told["start"], told["now"] = decided["start"], decided["pod"]
        told["decisions"] = [
            one if whole else {key: one[key] for key in _OWN} for one in decided["decisions"]
        ]
        told["counterfactual"] = counterfactual(told)
        return json_answer(told)

    def _sees(self, who: Principal, record: RequestRecord) -> bool:
        function = record.function
        assert function is not None, "only what was let in is kept"
        return self._access.may(who, "read", function.tenant, function.namespace, "function")


SKEW_NS: Final = 100 * NS_PER_MS
"""By which the clocks of gateway and leader may differ: decisions this near are told."""
SLOT_WAIT_NS: Final = NS_PER_MS
"""A request that waits for less has a slot at once: the router's turn takes as long."""


def how_it_started(record: RequestRecord) -> str:
    """Return how a request came by its slot.

    Returns:
        `cold`: a pod was started while it waited; `lease`: slots of a pod that ran were leased
        while it waited; `slot`: it waited for one that another request held; `warm`: one was free;
        `waiting`: it waits; `none`: it got none.
    """
    if not record.started_ns:
        return "none" if record.ended_ns else "waiting"
    if record.was_cold:
        return "cold"
    lease = record.lease
    if lease is not None and lease.granted_ns > record.queued_ns:
        return "lease"
    return "slot" if record.started_ns - record.queued_ns >= SLOT_WAIT_NS else "warm"


def record_view(record: RequestRecord) -> dict[str, Any]:
    """Return a request's record, as JSON's builtins. What is 0 has not been, or never was."""
    return {
        "request": record.id,
        "function": str(record.function),
        "state": "ended" if record.ended_ns else "served" if record.started_ns else "waiting",
        "how": how_it_started(record),
        "arrived_ns": record.arrived_ns,
        "queued_ns": record.queued_ns,
        "started_ns": record.started_ns,
        "sent_ns": record.sent_ns,
        "first_ns": record.first_ns,
        "ended_ns": record.ended_ns,
        "ahead": record.ahead,
        "tries": record.tries,
        "pod": record.pod,
        "candidates": [
            {**one._asdict(), "chosen": one.pod == record.pod} for one in record.candidates
        ],
        "status": record.status,
        "reason": record.reason,
        "output_tokens": record.output_tokens,
        "trace": "" if record.trace is None else f"{record.trace.trace_id:032x}",
    }

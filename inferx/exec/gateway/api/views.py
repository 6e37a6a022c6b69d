"""Views of the cluster: what the leader tells, cut down to what its reader may see.

Laws:
1. A tenant's reader sees its own functions, their pods and snapshots. Nodes, gateways, counters and
   decisions, which tell of other tenants, are for readers of the cluster.
2. Nothing is remembered here but the leader's latest answer: a view is as old as it says.
"""

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from inferx.core.errors import DescriptionError
from inferx.core.units import NS_PER_S
from inferx.exec.gateway.api.access import Access
from inferx.exec.gateway.api.leader import Leader
from inferx.exec.gateway.api.places import Row, named, only, place_in, within
from inferx.exec.gateway.api.routing import Parameter, Route, flag, json_answer, number
from inferx.exec.identity.audit import Target
from inferx.exec.identity.principal import EVERY, Principal

__all__ = ["ViewRoutes"]

DRAIN_S = 30
DRAIN_LIMIT_S = 86_400
_FOR = Parameter(
    "for",
    "Seconds that those who are served there may take.",
    {"type": "integer", "minimum": 0, "maximum": DRAIN_LIMIT_S, "default": DRAIN_S},
)
_NOW = Parameter(
    "now",
    "At once: whom it serves is told that the pod failed.",
    {"type": "integer", "enum": [0, 1], "default": 0},
)


class ViewRoutes:
    """Serves the views."""

    def __init__(self, access: Access, leader: Leader) -> None:
        self._access = access
        self._leader = leader

    def routes(self) -> list[Route]:
        """Return what is served."""
        found = [
            Route("GET", "/view/", self.view, "All that the caller may see, at one moment."),
            Route("GET", "/nodes/", self.nodes, "The nodes, with their GPUs."),
            Route("GET", "/node/{node}/", self.node, "One node."),
            Route("POST", "/drain/{node}/", self.drain, "Empty a node.", (_FOR,)),
        ]
        place, depths = "", ("", "{tenant}/", "{namespace}/", "{function}/")
        for part in depths:
            place += part
            found += [
                Route("GET", f"/pods/{place}", self.pods, "Pods in any state."),
                Route("GET", f"/readypods/{place}", self.ready_pods, "Pods that serve."),
                Route("GET", f"/snapshots/{place}", self.snapshots, "Snapshots by node and tier."),
            ]
            if part != depths[-1]:
                found.append(
                    Route("GET", f"/functions/{place}", self.functions, "Functions and demand.")
                )
        return [
            *found,
            Route("GET", f"/function/{place}", self.function, "One function."),
            Route("GET", f"/snapshot/{place}", self.snapshots, "One function's snapshots."),
            Route("GET", f"/pod/{place}{{version}}/{{pod}}/", self.pod, "One pod."),
            Route(
                "DELETE",
                f"/pod/{place}{{version}}/{{pod}}/",
                self.end_pod,
                "End a pod, once it has served whom it serves.",
                (_NOW,),
                status=202,
            ),
        ]

    async def view(self, request: web.Request) -> web.Response:
        """GET /view/."""
        who = await self._who(request, "function")
        told = await self._leader.view()
        seen: dict[str, Any] = {
            "epoch": told["epoch"],
            "now_ns": told["now_ns"],
            "pods": [one for one in told["pods"] if self._sees(who, one["function"], "pod")],
            "functions": [
                one for one in told["functions"] if self._sees(who, one["name"], "function")
            ],
            "snapshots": self._snapshots(who, told),
        }
        if self._access.may(who, "read", EVERY, EVERY, "node"):
            seen |= {key: told[key] for key in ("nodes", "gateways", "counters", "decisions")}
        return json_answer(seen)

    async def nodes(self, request: web.Request) -> web.Response:
        """GET /nodes/."""
        await self._who(request, "node")
        return json_answer((await self._leader.view())["nodes"])

    async def node(self, request: web.Request) -> web.Response:
        """GET /node/NODE/."""
        await self._who(request, "node")
        name = request.match_info["node"]
        nodes = (await self._leader.view())["nodes"]
        return json_answer(only([one for one in nodes if one["name"] == name], f"node {name!r}"))

    async def drain(self, request: web.Request) -> web.Response:
        """POST /drain/NODE/."""
        who = await self._access.who(request)
        self._access.check(who, "administer", EVERY, EVERY, "node")
        name = request.match_info["node"]
        seconds = number(request, "for")
        seconds = DRAIN_S if seconds is None else seconds
        if seconds > DRAIN_LIMIT_S:
            raise DescriptionError(f"?for={seconds}: expected at most {DRAIN_LIMIT_S}")
        target = Target(type="node", tenant=EVERY, namespace=EVERY, name=name)
        async with self._access.act(who, "drain", target):
            await self._leader.drain(name, seconds * NS_PER_S)
        return json_answer({"node": name, "draining": True})

    async def pods(self, request: web.Request) -> web.Response:
        """GET /pods/[TENANT/[NAMESPACE/[FUNCTION/]]]."""
        return json_answer(await self._pods(request))

    async def ready_pods(self, request: web.Request) -> web.Response:
        """GET /readypods/[TENANT/[NAMESPACE/[FUNCTION/]]]."""
        return json_answer([one for one in await self._pods(request) if one["state"] == "ready"])

    async def pod(self, request: web.Request) -> web.Response:
        """GET /pod/TENANT/NAMESPACE/FUNCTION/VERSION/POD/."""
        return json_answer(_pod(request, await self._pods(request)))

    async def end_pod(self, request: web.Request) -> web.Response:
        """DELETE /pod/TENANT/NAMESPACE/FUNCTION/VERSION/POD/."""
        who = await self._access.who(request)
        place = place_in(request)
        tenant, namespace = place["tenant"], place["namespace"]
        self._access.check(who, "write", tenant, namespace, "pod")
        now = flag(request, "now")
        pod = _pod(request, (await self._leader.view())["pods"])["pod"]
        target = Target(type="pod", tenant=tenant, namespace=namespace, name=str(pod))
        async with self._access.act(who, "kill" if now else "end", target):
            await self._leader.end_pod(pod, now=now)
        return json_answer({"pod": pod, "ending": True, "now": now}, 202)

    async def functions(self, request: web.Request) -> web.Response:
        """GET /functions/[TENANT/[NAMESPACE/]]."""
        return json_answer(await self._functions(request))

    async def function(self, request: web.Request) -> web.Response:
        """GET /function/TENANT/NAMESPACE/FUNCTION/."""
        found = await self._functions(request)
        return json_answer(only(found, f"function {request.match_info['function']!r}"))

    async def snapshots(self, request: web.Request) -> web.Response:
        """GET /snapshots/[TENANT/[NAMESPACE/[FUNCTION/]]]."""
        who = await self._who(request, "snapshot")
        found = self._snapshots(who, await self._leader.view())
        return json_answer([one for one in found if within(request, one["function"])])

    async def _pods(self, request: web.Request) -> list[Row]:
        who = await self._who(request, "pod")
        return [
            one
            for one in (await self._leader.view())["pods"]
            if within(request, one["function"]) and self._sees(who, one["function"], "pod")
        ]

    async def _functions(self, request: web.Request) -> list[Row]:
        who = await self._who(request, "function")
        return [
            one
            for one in (await self._leader.view())["functions"]
            if within(request, one["name"]) and self._sees(who, one["name"], "function")
        ]

    async def _who(self, request: web.Request, kind: str) -> Principal:
        """Return who asks, once they may read something of what they ask for."""
        who = await self._access.who(request)
        place = place_in(request)
        self._access.check_list(who, kind, place.get("tenant", ""))
        if "namespace" in place:
            self._access.check(who, "read", place["tenant"], place["namespace"], kind)
        return who

    def _snapshots(self, who: Principal, told: Row) -> list[Row]:
        return [
            {"function": function, "node": node["name"], "tier": "nvme"}
            for node in told["nodes"]
            for function in node["snapshots"]
            if self._sees(who, function, "snapshot")
        ]

    def _sees(self, who: Principal, function: str, kind: str) -> bool:
        of = named(function)
        return self._access.may(who, "read", of.tenant, of.namespace, kind)


def _pod(request: web.Request, pods: Iterable[Row]) -> Row:
    """Return the pod that a path names."""
    place = request.match_info
    found = (
        one
        for one in pods
        if str(one["pod"]) == place["pod"]
        and within(request, one["function"])
        and named(one["function"]).version == place["version"]
    )
    return only(found, f"pod {place['pod'][:40]!r}")

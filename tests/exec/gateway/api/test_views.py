"""Views over a real cluster: each sees its own, and an administrator empties a node."""

import asyncio
import json
from pathlib import Path

import aiohttp
from agent_node import needs_node
from api_bed import Bed, function
from cluster_objects import namespace, tenant
from cluster_up import Up, up
from msgspec import to_builtins

SOON_S = 30.0
PAUSE_S = 0.1


async def until(bed: Bed, path: str, fits, key: str = ""):
    """Ask until the answer fits; return it."""
    async with asyncio.timeout(SOON_S):
        while True:
            told = await bed.ask("GET", path, key or bed.admin)
            if told.status == 200 and fits(told.told):
                return told.told
            await asyncio.sleep(PAUSE_S)


async def _called(bed: Bed, path: str, body: bytes) -> bool:
    """Call until it is answered well: a gateway learns of functions in its own time."""
    for _ in range(int(SOON_S / PAUSE_S)):
        if (await bed.ask("POST", path, bed.admin, body)).status == 200:
            return True
        await asyncio.sleep(PAUSE_S)
    return False


@needs_node
def test_each_sees_its_own_pods_and_administrators_see_the_nodes(tmp_path: Path) -> None:
    with up(tmp_path) as cluster:
        asyncio.run(_look(cluster))


async def _look(cluster: Up) -> None:
    async with aiohttp.ClientSession() as http:
        bed = Bed(cluster.gateway, http)
        bed.admin = cluster.key
        ready = await until(bed, "/readyz", lambda told: told["status"] == "ok")
        assert all(ready["checks"].values())
        for name in ("t1", "t10"):
            objects = tenant(name, max_funccount=100, max_replica=4), namespace(name, "n")
            for one in (*map(to_builtins, objects), function("f", f"{name}/n")):
                assert (await bed.ask("POST", "/apply/", bed.admin, one)).status == 200
        await until(bed, "/functions/", lambda told: len(told) == 2)
        for name in ("t1", "t10"):
            body = json.dumps({"model": "f", "prompt": "hi", "max_tokens": 2}).encode()
            path = f"/funccall/{name}/n/f/v1/completions"
            assert await _called(bed, path, body)
        asked = {"tenant": "t1", "namespace": "*", "level": "full", "label": "mine"}
        key = (await bed.ask("PUT", "/apikey/", bed.admin, asked)).told["key"]
        view = await until(bed, "/view/", lambda told: told["pods"], key)
        assert {one["function"].partition("/")[0] for one in view["pods"]} == {"t1"}
        assert {one["name"].partition("/")[0] for one in view["functions"]} == {"t1"}
        assert not view.keys() & {"nodes", "decisions", "gateways", "counters"}
        (pod,) = (await bed.ask("GET", "/pods/t1/n/f/", key)).told
        version = pod["function"].rpartition("@")[2]
        one = await bed.ask("GET", f"/pod/t1/n/f/{version}/{pod['pod']}/", key)
        assert one.told["pod"] == pod["pod"]
        assert (await bed.ask("GET", f"/pod/t1/n/f/{version}/999/", key)).status == 404
        theirs = (await bed.ask("GET", "/pods/t10/", bed.admin)).told[0]
        hidden = f"/pod/t10/n/f/{theirs['function'].rpartition('@')[2]}/{theirs['pod']}/"
        assert (await bed.ask("GET", hidden, key)).code == "forbidden"
        assert len((await bed.ask("GET", "/pods/", bed.admin)).told) == 2
        assert len((await bed.ask("GET", "/readypods/", bed.admin)).told) == 2
        numbers = (await bed.ask("GET", "/debug/router", bed.admin)).told
        assert numbers["finished"] == 2
        # So is a pod to end: by who may write its function, and by nobody else.
        assert (await bed.ask("DELETE", hidden, key)).code == "forbidden"
        assert (await bed.ask("DELETE", f"/pod/t1/n/f/{version}/999/", key)).status == 404
        own = f"/pod/t1/n/f/{version}/{pod['pod']}/"
        assert (await bed.ask("DELETE", f"{own}?now=x", key)).status == 400
        ending = await bed.ask("DELETE", own, key)
        assert (ending.status, ending.told["ending"]) == (202, True)
        await until(bed, "/pods/t1/", lambda told: not told)
        assert (await bed.ask("DELETE", own, key)).status == 404
        assert len((await bed.ask("GET", "/pods/", bed.admin)).told) == 1
        # A node is an administrator's to empty.
        assert (await bed.ask("POST", "/drain/node-0/", key)).code == "forbidden"
        assert (await bed.ask("POST", "/drain/none/", bed.admin)).status == 404
        assert (await bed.ask("POST", "/drain/node-0/?for=5", bed.admin)).status == 200
        await until(bed, "/node/node-0/", lambda told: not told["schedulable"])
        await until(bed, "/pods/", lambda told: not told)

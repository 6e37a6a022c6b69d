"""A whole gateway, and who may call through it: keys, tokens, limits, and what is written down."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from api_bed import Answer, Bed, bed, function, run, two_gateways
from cluster_objects import tenant
from oidc_issuer import AUDIENCE, Issuer, ec_pair, forged, rsa_pair

from inferx.core.units import NS_PER_S
from inferx.exec.clock import WallClock
from inferx.exec.identity.limits import Limits, Rate
from inferx.exec.identity.oidc import IssuerSettings

SOON_S = 20.0
CALL = "/funccall/{}/n/f/v1/completions"
LET_IN = 504
"""Nobody leads, so nobody serves: who is let in waits for a turn that does not come."""


async def call(made: Bed, key: str, tenant_name: str = "t1") -> Answer:
    path = CALL.format(tenant_name)
    wait = {"X-Inferx-Timeout": "0.05", "Authorization": f"Bearer {key}"}
    headers = wait if key else {"X-Inferx-Timeout": "0.05"}
    async with made.http.post(f"{made.url}{path}", headers=headers, data=b"{}") as answer:
        return Answer(answer.status, msgspec.json.decode(await answer.read()), answer.headers)


async def with_functions(made: Bed) -> None:
    for place in ("t1/n", "t10/n"):
        assert (await made.ask("PUT", "/object/", made.admin, function("f", place))).status == 201
    for name in ("t1", "t10"):
        await answered(made, made.admin, LET_IN, name)


async def answered(made: Bed, key: str, status: int, tenant_name: str = "t1") -> Answer:
    """Call until it is answered so; return that answer."""
    end_s = time.monotonic() + SOON_S
    while (told := await call(made, key, tenant_name)).status != status:
        assert time.monotonic() < end_s, told
        await asyncio.sleep(0.01)
    return told


async def until(condition: Any, *, within_s: float = SOON_S) -> None:
    end_s = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.01)


# -- keys ---
def test_a_key_calls_what_it_is_for_and_nothing_beside_it():
    async def work(made: Bed) -> None:
        await with_functions(made)
        key = (await made.key("inference", "t1", "n")).token
        assert (await call(made, key)).status == LET_IN
        assert (await call(made, key, "t10")).code == "forbidden"
        elsewhere = (await made.key("inference", "t1", "other")).token
        assert (await call(made, elsewhere)).code == "forbidden"
        assert (await call(made, "")).code == "unauthenticated"
        assert (await call(made, f"ix_{'0' * 16}_{'0' * 64}")).code == "unauthenticated"
        models = (await made.ask("GET", "/v1/models", key)).told["data"]
        assert [one["id"] for one in models] == ["t1/n/f"]
        assert (await made.ask("GET", "/v1/models", elsewhere)).told["data"] == []
        assert (await made.ask("GET", "/v1/models")).code == "unauthenticated"
        # By its model's name, too; who may not call it does not learn that it is there.
        for who, code in ((elsewhere, "model_not_found"), ("", "unauthenticated")):
            for model in ("t1/n/f", "none"):
                body = {"model": model, "prompt": "hi"}
                assert (await made.ask("POST", "/v1/completions", who, body)).code == code

    run(work)


def test_a_key_that_runs_out_opens_nothing_from_then_on():
    async def work(made: Bed) -> None:
        await with_functions(made)
        ends_ns = WallClock().now_ns() + 2 * NS_PER_S
        asked = {
            "tenant": "t1",
            "namespace": "n",
            "level": "inference",
            "label": "",
            "expires_ns": ends_ns,
        }
        key = (await made.ask("PUT", "/apikey/", made.admin, asked)).told["key"]
        told = []
        while (answer := await call(made, key)).status in {LET_IN, 401}:
            told.append((WallClock().now_ns() >= ends_ns, answer))
            if told[-1][0] and answer.status == 401:
                break
        assert told[-1][1].told["error"]["message"] == "expired"
        assert any(answer.status == LET_IN for _, answer in told)

    run(work)


async def _knows(made: Bed, key: str) -> bool:
    return (await made.ask("GET", "/v1/models", key)).status == 200


def test_a_key_that_is_revoked_at_one_gateway_opens_nothing_at_another():
    async def main() -> None:
        async with asyncio.timeout(60), two_gateways() as (one, two):
            for number in range(10):
                asked = {"tenant": "t1", "namespace": "n", "level": "full", "label": str(number)}
                issued = (await one.ask("PUT", "/apikey/", one.admin, asked)).told
                key = issued["key"]
                for made in (one, two):
                    await until(partial(_knows, made, key))
                gone = await one.ask("DELETE", f"/apikey/t1/n/{issued['id']}/", one.admin)
                assert gone.status == 200
                while (told := await two.ask("GET", "/v1/models", key)).status == 200:
                    pass
                # It was told so: nobody had to wait until what it knew was too old.
                assert told.told["error"]["message"] == "revoked"
                first = await one.ask("GET", "/v1/models", key)
                assert first.told["error"]["message"] == "revoked"

    asyncio.run(main())


# -- tokens ---
RSA, EC = rsa_pair("first"), ec_pair("second")


def keycloak(issuer: Issuer, pair: Any, *roles: str, **more: Any) -> str:
    """Return a token with what Keycloak puts into one."""
    return issuer.token(
        pair,
        realm_access={"roles": ["default-roles-inferx", "offline_access", *roles]},
        resource_access={"account": {"roles": ["manage-account"]}},
        azp="infer_client",
        typ="Bearer",
        scope="email profile",
        preferred_username="ada",
        sid="0b5a",
        **more,
    )


@asynccontextmanager
async def with_issuer(**settings: Any) -> AsyncIterator[tuple[Bed, Issuer]]:
    async with Issuer(RSA) as issuer:
        trusted = IssuerSettings(issuer=issuer.url, audience=AUDIENCE, **settings)
        async with bed(issuers=(trusted,)) as made:
            await with_functions(made)
            yield made, issuer


def test_tokens_of_an_issuer_open_what_their_roles_say():
    async def main() -> None:
        async with (
            asyncio.timeout(60),
            with_issuer(admin_role="/inferx/admin") as (made, issuer),
        ):
            user = keycloak(issuer, RSA, "/tenant/user/t1")
            assert (await call(made, user)).status == LET_IN
            assert (await call(made, user, "t10")).code == "forbidden"
            assert (await made.ask("PUT", "/object/", user, function("g"))).code == "forbidden"
            admin = keycloak(issuer, RSA, "/namespace/admin/t1/n")
            assert (await made.ask("PUT", "/object/", admin, function("g"))).status == 201
            theirs = function("g", "t10/n")
            assert (await made.ask("PUT", "/object/", admin, theirs)).code == "forbidden"
            root = keycloak(issuer, RSA, "/inferx/admin")
            assert (await made.ask("GET", "/debug/router", root)).status == 200
            assert (await made.ask("GET", "/debug/router", admin)).code == "forbidden"
            nobody = keycloak(issuer, RSA)
            assert (await call(made, nobody)).code == "forbidden"
            assert (await made.ask("GET", "/objects/function/t1/", nobody)).code == "forbidden"
            late = keycloak(issuer, RSA, "/tenant/user/t1", exp=int(time.time()) - 60)
            assert (await call(made, late)).told["error"]["message"] == "expired"
            for bad in (
                keycloak(issuer, rsa_pair("first"), "/tenant/user/t1"),
                keycloak(issuer, RSA, "/tenant/user/t1", aud="another"),
                keycloak(issuer, RSA, "/tenant/user/t1", iss="https://elsewhere.test"),
                forged(issuer.claims(), {"alg": "none"}, None),
                "not.a.token",
            ):
                assert (await call(made, bad)).code == "unauthenticated"

    asyncio.run(main())


def test_an_issuer_changes_its_keys_and_then_goes_away():
    async def main() -> None:
        async with asyncio.timeout(60), with_issuer() as (made, issuer):
            old = keycloak(issuer, RSA, "/tenant/user/t1")
            assert (await call(made, old)).status == LET_IN
            issuer.keys = [EC.jwk()]
            new = keycloak(issuer, EC, "/tenant/user/t1")

            async def taken() -> bool:
                return (await call(made, new)).status == LET_IN

            # A key that is not known has the issuer asked again, but not at every request.
            await until(taken, within_s=30)
            assert issuer.keys_asked == 2
            assert (await call(made, old)).code == "unauthenticated"
            await issuer.__aexit__()
            assert (await call(made, new)).status == LET_IN
            await issuer.__aenter__()

    asyncio.run(main())


# -- limits ---
async def limit(made: Bed, name: str = "t1", status: Any = None, **limits: int) -> None:
    """Give a tenant limits, and wait until the gateway holds to them, or no longer does."""
    one = msgspec.to_builtins(tenant(name, max_funccount=100, max_replica=4, **limits))
    one["object"] = {**one["object"], **({} if status is None else {"status": status})}
    assert (await made.ask("POST", "/apply/", made.admin, one)).status == 200


async def answers(made: Bed, key: str, count: int, name: str = "t1") -> list[int]:
    return [(await call(made, key, name)).status for _ in range(count)]


def test_a_tenant_is_held_to_its_requests_and_another_is_not():
    async def work(made: Bed) -> None:
        await with_functions(made)
        key = (await made.key("inference", "t1")).token
        await limit(made, max_requests_per_s=1, burst_s=3)
        told = await answered(made, key, 429)
        assert told.code == "rate_limited"
        assert told.told["error"]["type"] == "rate_limit_error"
        assert told.told["error"]["message"] == "too many requests of tenant:t1"
        assert int(told.headers["Retry-After"]) >= 1
        # Whoever calls, it is the tenant that is called whose limit counts.
        await answered(made, made.admin, 429)
        assert await answers(made, made.admin, 6, "t10") == [LET_IN] * 6
        # An administrator lifts it, and it is lifted at once.
        await limit(made)
        await answered(made, key, LET_IN)
        assert await answers(made, key, 6) == [LET_IN] * 6

    run(work)


def test_a_key_is_held_to_its_own_limits_too():
    async def work(made: Bed) -> None:
        await with_functions(made)
        few = Limits(requests=Rate(count=1, period_ns=3600 * NS_PER_S, burst=2))
        key = await made.key("inference", "t1", limits=few)
        other = (await made.key("inference", "t1")).token
        assert await answers(made, key.token, 4) == [LET_IN, LET_IN, 429, 429]
        told = await call(made, key.token)
        assert told.code == "rate_limited"
        assert told.told["error"]["message"] == f"too many requests of key:{key.id}"
        assert int(told.headers["Retry-After"]) > 60
        assert await answers(made, other, 4) == [LET_IN] * 4
        ai = openai.AsyncOpenAI(base_url=f"{made.url}/v1", api_key=key.token, max_retries=0)
        with pytest.raises(openai.RateLimitError, match="too many requests"):
            await ai.completions.create(model="t1/n/f", prompt="hi")
        await ai.close()

    run(work)


def test_a_tenant_has_so_many_requests_at_once():
    async def work(made: Bed) -> None:
        await with_functions(made)
        await limit(made, max_concurrency=2)

        async def bounded() -> bool:
            told = await asyncio.gather(*(call(made, made.admin) for _ in range(4)))
            return sorted(one.status for one in told) == [429, 429, LET_IN, LET_IN]

        await until(bounded)
        # Each that has ended has left its place.
        assert await answers(made, made.admin, 4) == [LET_IN] * 4

    run(work)


def test_a_tenant_without_quota_is_refused_unless_it_is_exempt():
    async def work(made: Bed) -> None:
        await with_functions(made)
        await limit(made, status={"quota_exceeded": True})
        told = await answered(made, made.admin, 429)
        assert (told.code, told.told["error"]["type"]) == ("quota_exceeded", "insufficient_quota")
        assert int(told.headers["Retry-After"]) == 60
        one = (await made.ask("GET", "/object/tenant/system/system/t1/", made.admin)).told
        one["object"]["spec"]["quota_exempt"] = True
        assert (await made.ask("POST", "/object/", made.admin, one)).status == 200
        await answered(made, made.admin, LET_IN)

    run(work)


# -- what is written down ---
def events(path: Path) -> list[tuple[str, ...]]:
    wanted = "what, who, action, type, tenant, name, outcome, reason"
    with sqlite3.connect(path) as connection:
        found = connection.execute(f"SELECT {wanted} FROM inferx_audit ORDER BY number").fetchall()
    connection.close()
    return found


def test_what_was_decided_about_requests_is_written_down(tmp_path: Path):
    log = tmp_path / "audit.db"
    keys: list[Any] = []

    async def work(made: Bed) -> None:
        await with_functions(made)
        key = await made.key("inference", "t1", "n")
        keys.append(key)
        await call(made, key.token)
        await call(made, key.token, "t10")
        await call(made, "")
        await limit(made, max_concurrency=1)

        async def bounded() -> bool:
            told = await asyncio.gather(*(call(made, key.token) for _ in range(2)))
            return 429 in {one.status for one in told}

        await until(bounded)
        issued = await made.ask(
            "PUT",
            "/apikey/",
            made.admin,
            {"tenant": "t1", "namespace": "n", "level": "read", "label": "ci"},
        )
        keys.append(issued.told)
        numbers = (await made.ask("GET", "/debug/router", made.admin)).told["audit"]
        assert numbers["lost"] == numbers["failures"] == 0

    run(work, log)
    who = f"key:{keys[0].id}"
    found = events(log)
    for expected in (
        ("decision", who, "invoke", "function", "t1", "f", "allowed", ""),
        ("decision", who, "invoke", "function", "t10", "f", "denied", "no right"),
        ("decision", "anonymous", "invoke", "function", "*", "", "denied", "no right"),
        ("decision", who, "invoke", "function", "t1", "f", "limited", "concurrent of tenant:t1"),
    ):
        assert expected in found
    acts = [(one[2], one[3], one[5], one[6]) for one in found if one[0] == "act"]
    assert ("issue", "apikey", "ci", "begun") in acts
    assert ("issue", "apikey", "ci", "done") in acts
    assert ("apply", "tenant", "t1", "done") in acts
    assert keys[1]["key"] not in json.dumps(found)


def test_strangers_cannot_fill_the_log(tmp_path: Path):
    log = tmp_path / "audit.db"
    lost: list[int] = []

    async def work(made: Bed) -> None:
        for _ in range(40):
            await asyncio.gather(*(made.ask("GET", "/v1/models") for _ in range(50)))
        numbers = (await made.ask("GET", "/debug/router", made.admin)).told["audit"]
        lost.append(numbers["lost"])

    run(work, log)
    with sqlite3.connect(log) as connection:
        strangers = "FROM inferx_audit WHERE who = 'anonymous'"
        found = connection.execute(f"SELECT count(*), sum(times) {strangers}")
        [(written, told)] = found.fetchall()
    connection.close()
    assert lost[0] > 0
    assert written < told < 2_000
    assert told + lost[0] >= 2_000

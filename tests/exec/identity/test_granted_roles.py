"""Whole gateways, and users who were granted roles by name."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from api_bed import Answer, Bed, bed, function, two_gateways
from oidc_issuer import AUDIENCE, Issuer, rsa_pair

from inferx.exec.identity.following import STALE_S
from inferx.exec.identity.oidc import IssuerSettings
from inferx.exec.identity.roles import PREFIX
from inferx.exec.state.store import Put

PAIR = rsa_pair("one")
SOON_S = STALE_S - 5
"""For busy machines; less than `STALE_S`, so that a gateway was told and did not give up."""
GRANT = {"role": "user", "username": "ada", "tenant": "t1", "namespace": "n"}


def token(issuer: Issuer, called: object = "ada", *roles: str, **more: Any) -> str:
    """Return a token of somebody, with no roles but those that are told."""
    more = {"realm_access": {"roles": list(roles)}, "preferred_username": called, **more}
    return issuer.token(PAIR, **more)


@asynccontextmanager
async def with_issuers(
    count: int = 1, audit: Path | None = None, **settings: Any
) -> AsyncIterator[tuple[Bed, list[Issuer]]]:
    async with asyncio.timeout(60), Issuer(PAIR) as one, Issuer(PAIR) as two:
        issuers = [one, two][:count]
        trusted = tuple(
            IssuerSettings(issuer=each.url, audience=AUDIENCE, **settings) for each in issuers
        )
        async with bed(audit, issuers=trusted) as made:
            for place in ("t1/n", "t10/n"):
                put = await made.ask("PUT", "/object/", made.admin, function("f", place))
                assert put.status == 201
            yield made, issuers


async def until_told(
    made: Bed, who: str, status: int, path: str = "/object/function/t1/n/f/"
) -> None:
    """Ask until it is answered so."""
    end_s = time.monotonic() + SOON_S
    while (told := await made.ask("GET", path, who)).status != status:
        assert time.monotonic() < end_s, told
        await asyncio.sleep(0.005)


async def change(made: Bed, method: str, who: str = "", **changes: Any) -> Answer:
    return await made.ask(method, "/rbac/", who or made.admin, GRANT | changes)


def test_who_is_granted_a_role_by_name_may_and_who_is_not_may_not():
    async def main() -> None:
        async with with_issuers() as (made, [issuer]):
            ada, bob = token(issuer), token(issuer, "bob", sub="user-2")
            # It was shown, checked and is remembered before the role is there.
            await until_told(made, ada, 403)
            told = await change(made, "POST")
            assert told.status == 200
            assert told.told.items() >= (GRANT | {"issuer": issuer.url}).items()
            assert told.told["by"].startswith("key:")
            await until_told(made, ada, 200)
            for other in (
                bob,
                token(issuer, "Ada"),
                token(issuer, "ada "),
                token(issuer, None),
                token(issuer, ["ada"]),
                token(issuer, None, sub="ada", email="ada", name="ada"),
            ):
                assert (await made.ask("GET", "/object/function/t1/n/f/", other)).status == 403
            # A user reads and calls, and no more; not elsewhere either.
            assert (await made.ask("PUT", "/object/", ada, function("g"))).code == "forbidden"
            there = "/object/function/t10/n/f/"
            assert (await made.ask("GET", there, ada)).code == "forbidden"
            models = (await made.ask("GET", "/v1/models", ada)).told["data"]
            assert [one["id"] for one in models] == ["t1/n/f"]
            # What the token brings stands beside it.
            both = token(issuer, "ada", "/tenant/user/t10")
            assert (await made.ask("GET", there, both)).status == 200
            await until_told(made, both, 200)
            await change(made, "POST", role="admin", namespace="*")
            end_s = time.monotonic() + SOON_S
            while (await made.ask("POST", "/apply/", ada, function("g"))).status != 200:
                assert time.monotonic() < end_s
            for role, namespace in (("admin", "*"), ("user", "n")):
                gone = await change(made, "DELETE", role=role, namespace=namespace)
                assert gone.status == 200
            await until_told(made, ada, 403)
            await until_told(made, both, 200, there)
            assert (await change(made, "DELETE")).code == "not_found"

    asyncio.run(main())


def test_a_role_that_is_revoked_at_one_gateway_is_gone_at_another():
    async def main() -> None:
        async with asyncio.timeout(60), Issuer(PAIR) as issuer:
            trusted = (IssuerSettings(issuer=issuer.url, audience=AUDIENCE),)
            async with two_gateways(issuers=trusted) as (one, two):
                ada, path = token(issuer), "/objects/function/t1/n/"
                for _ in range(5):
                    assert (await change(one, "POST")).status == 200
                    for made in (one, two):
                        await until_told(made, ada, 200, path)
                    assert (await change(one, "DELETE")).status == 200
                    for made in (one, two):
                        await until_told(made, ada, 403, path)

    asyncio.run(main())


def test_a_name_is_somebody_at_one_issuer_alone():
    async def main() -> None:
        async with with_issuers(2) as (made, [here, there]):
            unsaid = await change(made, "POST")
            assert unsaid.status == 400
            assert here.url in unsaid.told["error"]["message"]
            assert (await change(made, "POST", issuer="https://else.test")).status == 400
            assert (await change(made, "POST", issuer=here.url)).status == 200
            await until_told(made, token(here), 200)
            assert (await made.ask("GET", "/object/function/t1/n/f/", token(there))).status == 403
            assert (await change(made, "DELETE", issuer=there.url)).status == 404
            await until_told(made, token(here), 200)

    asyncio.run(main())


def test_a_gateway_without_issuers_says_that_a_name_is_nobodys():
    async def main() -> None:
        async with asyncio.timeout(30), bed() as made:
            told = await change(made, "POST")
            assert told.status == 400
            assert "--oidc-issuer" in told.told["error"]["message"]
            assert (await made.ask("GET", "/rbac/roles/", made.admin)).told == [
                {"level": "full", "tenant": "*", "namespace": "*"}
            ]

    asyncio.run(main())


def test_the_users_name_is_where_the_settings_say():
    async def main() -> None:
        async with with_issuers(name_claim="sub") as (made, [issuer]):
            assert (await change(made, "POST")).status == 200
            await until_told(made, token(issuer, "somebody", sub="ada"), 200)
            assert (await made.ask("GET", "/rbac/roles/", token(issuer, "ada"))).told == []

    asyncio.run(main())


def test_who_may_grant_revoke_and_list():
    async def main() -> None:
        async with with_issuers() as (made, [issuer]):
            admin = token(issuer, "carl", "/tenant/admin/t1")
            space = token(issuer, "dora", "/namespace/admin/t1/n")
            user = token(issuer, "eve", "/tenant/user/t1", "/tenant/user/t10")
            key = (await made.key("full", "t1", "n")).token
            wide = {"namespace": "*"}
            cases: list[tuple[str, Mapping[str, str], int]] = [
                (admin, {}, 200),
                (admin, wide, 200),
                (admin, {"role": "admin"}, 200),
                (admin, {"tenant": "t10"}, 403),
                (space, {}, 200),
                (space, wide, 403),
                (space, {"namespace": "m"}, 403),
                (key, {}, 200),
                (key, wide, 403),
                (user, {}, 403),
                (user, {"tenant": "t10", "username": "eve"}, 403),
                (token(issuer, "nobody"), {}, 403),
                (made.admin, {"tenant": "*", **wide}, 400),
                (made.admin, {"tenant": "system"}, 400),
                (made.admin, {"tenant": "a/b"}, 403),
                (made.admin, {"username": ""}, 400),
                (made.admin, {"username": "a" * 257}, 400),
                (made.admin, {"role": "owner"}, 400),
                (made.admin, {"until": "tomorrow"}, 400),
                (made.admin, {"username": "é" * 256}, 200),
            ]
            for who, asked, status in cases:
                told = await change(made, "POST", who, **asked)
                assert told.status == status, (asked, told)
                if status != 200:
                    assert "\n" not in told.told["error"]["message"]
                    told = await change(made, "DELETE", who, **asked)
                    assert told.status == status, (asked, told)
            assert (await made.ask("POST", "/rbac/", "", GRANT)).status == 401
            assert (await made.ask("POST", "/rbac/", admin, b"{")).status == 400
            listed = "/rbac/namespaceusers/user/t1/n/"
            for who, status in ((admin, 200), (space, 200), (user, 403), (key, 200), ("", 401)):
                assert (await made.ask("GET", listed, who)).status == status
            found = (await made.ask("GET", listed, admin)).told
            assert {one["username"] for one in found} == {"ada", "é" * 256}
            whole = "/rbac/tenantusers/user/t1/"
            for who, status in ((admin, 200), (space, 403), (made.admin, 200)):
                assert (await made.ask("GET", whole, who)).status == status
            [one] = (await made.ask("GET", whole, admin)).told
            assert (one["username"], one["namespace"]) == ("ada", "*")
            assert one["by"] == f"oidc:{issuer.url}#user-1"
            assert (await made.ask("GET", "/rbac/tenantusers/owner/t1/", admin)).status == 400

    asyncio.run(main())


def test_who_was_made_an_administrator_by_name_may_make_others():
    async def main() -> None:
        async with with_issuers() as (made, [issuer]):
            ada = token(issuer)
            await change(made, "POST", role="admin", namespace="*")
            await until_told(made, ada, 200)
            assert (await change(made, "POST", ada, username="bob")).status == 200
            assert (await change(made, "POST", ada, username="bob", tenant="t10")).status == 403
            await until_told(made, token(issuer, "bob"), 200)

    asyncio.run(main())


def test_everybody_is_told_their_own_roles():
    async def main() -> None:
        async with with_issuers() as (made, [issuer]):

            async def roles(who: str) -> list[tuple[str, str, str]]:
                told = await made.ask("GET", "/rbac/roles/", who)
                assert told.status == 200
                return [(one["level"], one["tenant"], one["namespace"]) for one in told.told]

            ada = token(issuer, "ada", "/tenant/user/t10", "/tenant/user/t10")
            assert await roles(ada) == [("read", "t10", "*")]
            await change(made, "POST", role="admin")
            await until_told(made, ada, 200)
            assert await roles(ada) == [("full", "t1", "n"), ("read", "t10", "*")]
            assert await roles((await made.key("inference", "t1")).token) == [
                ("inference", "t1", "*")
            ]
            assert await roles(token(issuer, "nobody")) == []
            assert (await made.ask("GET", "/rbac/roles/")).code == "unauthenticated"

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [{"more": 1}, {"role": "owner"}, {"tenant": "*"}], ids=str)
def test_a_record_that_somebody_else_wrote_grants_nothing(wrong: dict[str, Any]):
    async def main() -> None:
        async with with_issuers() as (made, [issuer]):
            await change(made, "POST")
            await until_told(made, token(issuer), 200)
            [entry] = (await made.store.list(PREFIX)).entries
            value = msgspec.json.encode({**msgspec.json.decode(entry.value), **wrong})
            await made.store.commit([], [Put(entry.key, value)])
            await until_told(made, token(issuer), 403)
            await made.store.commit([], [Put(entry.key, entry.value)])
            await until_told(made, token(issuer), 200)

    asyncio.run(main())


def test_a_watch_tells_nothing_of_what_a_role_opened_once_it_is_revoked():
    async def main() -> None:
        async with with_issuers() as (made, [issuer]):
            ada = token(issuer)
            await change(made, "POST")
            await until_told(made, ada, 200)
            url = f"{made.url}/objects/function/t1/n/?watch=1"
            async with made.http.get(url, headers={"Authorization": f"Bearer {ada}"}) as watch:

                async def next_put() -> str:
                    while (told := json.loads(await watch.content.readline()))["event"] != "put":
                        pass
                    return str(told["object"]["name"])

                assert await next_put() == "f"
                await change(made, "DELETE")
                await until_told(made, ada, 403)
                await made.ask("PUT", "/object/", made.admin, function("g"))
                # It was told of `g` by now, had it been told.
                assert json.loads(await watch.content.readline())["event"] == "bookmark"
                assert json.loads(await watch.content.readline())["event"] == "bookmark"
                await change(made, "POST")
                await until_told(made, ada, 200)
                await made.ask("PUT", "/object/", made.admin, function("h"))
                assert await next_put() == "h"

    asyncio.run(main())


def test_who_granted_what_to_whom_is_written_down(tmp_path: Path):
    log = tmp_path / "audit.db"
    whose: list[str] = []

    async def main() -> None:
        async with with_issuers(audit=log) as (made, [issuer]):
            whose.append(f"user oidc:{issuer.url}#ada")
            await change(made, "POST")
            await change(made, "DELETE")
            await change(made, "DELETE")
            await change(made, "POST", token(issuer, "eve", "/tenant/user/t1"))

    asyncio.run(main())
    wanted = "action, tenant, namespace, name, outcome"
    with sqlite3.connect(log) as connection:
        acts = connection.execute(
            f"SELECT {wanted} FROM inferx_audit WHERE what = 'act' AND type = 'role'"
        ).fetchall()
        refused = connection.execute(
            "SELECT action, outcome FROM inferx_audit WHERE what = 'decision' AND type = 'role'"
        ).fetchall()
    connection.close()
    # What begun is written at once, how it ended a moment later.
    told = sorted((action, outcome) for action, *_, outcome in acts)
    ends = [("grant", "done"), ("revoke", "done"), ("revoke", "failed")]
    begun = [("grant", "begun"), ("revoke", "begun"), ("revoke", "begun")]
    assert told == sorted(ends + begun)
    assert {tuple(one[1:4]) for one in acts} == {("t1", "n", whose[0])}
    assert refused == [("administer", "denied")]

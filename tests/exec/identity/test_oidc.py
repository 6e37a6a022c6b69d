"""Tokens of a real issuer over real HTTP: taken, refused, and its keys followed."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from hand_clock import HandClock
from oidc_issuer import (
    AUDIENCE,
    Issuer,
    SigningPair,
    ec_pair,
    ed_pair,
    forged,
    rsa_pair,
)

from inferx.exec.clock import WallClock
from inferx.exec.identity import oidc
from inferx.exec.identity.issuer_keys import IssuerKeys, IssuerUnavailableError
from inferx.exec.identity.oidc import Issuers, IssuerSettings
from inferx.exec.identity.principal import Denied, Grant, Level, Principal

RSA, EC, ED = rsa_pair("rsa"), ec_pair("ec"), ed_pair("ed")
STRANGER = rsa_pair("rsa")
BAD = Denied("bad token")

Check = Callable[[Issuer, Issuers], Awaitable[None]]


def with_issuer(check: Check, *pairs: SigningPair, refetch_s: float = 10.0, **more: Any) -> None:
    refresh_s = more.pop("refresh_s", 600.0)

    async def work() -> None:
        async with Issuer(*(pairs or (RSA, EC, ED))) as issuer:
            settings = IssuerSettings(issuer=issuer.url, audience=AUDIENCE, **more)
            keys = IssuerKeys(issuer.url, refresh_s=refresh_s, refetch_s=refetch_s)
            await check(issuer, Issuers([(settings, keys)], WallClock()))

    asyncio.run(asyncio.wait_for(work(), 30))


@pytest.mark.parametrize("pair", [RSA, EC, ED], ids=lambda pair: pair.algorithm)
def test_a_token_tells_who_and_what_they_may(pair: SigningPair):
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        who = await issuers.verify(issuer.token(pair))
        assert who == Principal(f"oidc:{issuer.url}#user-1", (Grant(Level.FULL, "t1", "n"),))

    with_issuer(check)


def test_the_keys_are_asked_for_once():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        tokens = [issuer.token(pair) for pair in (RSA, EC, ED)] * 5
        answers = await asyncio.gather(*map(issuers.verify, tokens))
        assert all(isinstance(each, Principal) for each in answers)
        assert issuer.keys_asked == 1

    with_issuer(check)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "bad token"),
        ({"exp": "never"}, "bad token"),
        ({"nbf": 1 << 33}, "bad token"),  # a fixed time: it names the test
        ({"aud": "another"}, "bad token"),
        ({"aud": []}, "bad token"),
        ({"aud": None}, "bad token"),
        ({"sub": None}, "bad token"),
        ({"sub": "a\nb"}, "bad token"),
        ({"sub": 7}, "bad token"),
        ({"iss": "http://127.0.0.1:1/realms/r"}, "unknown issuer"),
        ({"iss": None}, "unknown issuer"),
        ({"iss": ["a"]}, "unknown issuer"),
        ({"realm_access": {"roles": ["r"] * 2000}}, "bad token"),
    ],
    ids=str,
)
def test_a_claim_that_is_not_right_makes_the_token_bad(changes: dict[str, Any], reason: str):
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        # Not `issuer.token`: the library refuses to write some of these.
        claims = issuer.claims(**changes)
        token = jwt.api_jws.encode(
            json.dumps(claims).encode(), RSA.private, "RS256", headers={"kid": "rsa"}
        )
        denied = await issuers.verify(token)
        assert isinstance(denied, Denied)
        assert denied.reason == reason

    with_issuer(check)


@pytest.mark.parametrize(("off_s", "good"), [(-20, True), (-50, False)])
def test_clocks_may_differ_by_a_little(off_s: int, good: bool):
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        now = int(time.time())
        late = await issuers.verify(issuer.token(RSA, exp=now + off_s))
        early = await issuers.verify(issuer.token(RSA, nbf=now - off_s))
        assert isinstance(late, Principal) == isinstance(early, Principal) == good

    with_issuer(check)


@pytest.mark.parametrize("roles", [None, "text", 7, {"roles": "x"}, {"roles": [1, None]}], ids=str)
def test_odd_roles_grant_nothing(roles: object):
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        who = await issuers.verify(issuer.token(RSA, realm_access=roles))
        assert isinstance(who, Principal)
        assert who.grants == ()

    with_issuer(check)


def test_roles_are_where_the_settings_say():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        token = issuer.token(RSA, groups=["/tenant/user/t2", "/root"])
        who = await issuers.verify(token)
        assert isinstance(who, Principal)
        assert who.grants == (Grant(Level.READ, "t2", "*"), Grant(Level.FULL, "*", "*"))

    with_issuer(check, roles_claim=("groups",), admin_role="/root")


# -- Forgeries ---
def test_a_stranger_with_the_same_key_id_is_refused():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        assert await issuers.verify(issuer.token(STRANGER)) == BAD

    with_issuer(check)


def test_a_token_without_a_signature_is_refused():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        assert await issuers.verify(forged(issuer.claims(), {"kid": "rsa"}, None)) == BAD
        head, body, _ = issuer.token(RSA).split(".")
        assert await issuers.verify(f"{head}.{body}.") == BAD

    with_issuer(check)


def test_a_public_key_is_no_shared_secret():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        pem = RSA.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        token = forged(issuer.claims(), {"alg": "HS256", "kid": "rsa"}, pem)
        assert await issuers.verify(token) == BAD

    with_issuer(check)


def test_a_changed_token_is_refused():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        _, other, _ = issuer.token(RSA, sub="root").split(".")
        head, _, signature = issuer.token(RSA).split(".")
        assert await issuers.verify(f"{head}.{other}.{signature}") == BAD

    with_issuer(check)


@pytest.mark.parametrize("token", ["", "a", "a.b.c", "..", "x" * 5000, "é.é.é"])
def test_what_is_no_token_is_refused(token: str):
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        assert await issuers.verify(token) == BAD
        assert issuer.keys_asked == 0

    with_issuer(check)


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"},
        {"use": "enc"},
        {"alg": "RS512"},
        {"alg": "none"},
        {"n": "AQAB"},
        {"kty": "EC"},
    ],
    ids=str,
)
def test_a_key_that_is_for_something_else_signs_nothing(change: dict[str, str]):
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        issuer.keys = [{**RSA.jwk(), **change}]
        assert await issuers.verify(issuer.token(RSA)) == BAD

    with_issuer(check, RSA)


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_short_rsa_key_signs_nothing():
    short = rsa_pair("short", 1024)

    async def check(issuer: Issuer, issuers: Issuers) -> None:
        assert await issuers.verify(issuer.token(short)) == BAD

    with_issuer(check, short)


def test_an_algorithm_that_the_operator_did_not_allow_is_refused():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        assert await issuers.verify(issuer.token(RSA)) == BAD
        assert isinstance(await issuers.verify(issuer.token(EC)), Principal)

    with_issuer(check, algorithms=("ES256",))


@pytest.mark.parametrize("algorithms", [("HS256",), ("none",), ("RS256", "HS512")])
def test_shared_secrets_cannot_be_allowed(algorithms: tuple[str, ...]):
    with pytest.raises(ValueError, match="algorithms"):
        IssuerSettings(issuer="https://i", audience="a", algorithms=algorithms)


# -- The issuer's keys ---
def test_a_new_key_is_fetched_when_a_token_shows_it():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        assert isinstance(await issuers.verify(issuer.token(RSA)), Principal)
        issuer.keys.append(EC.jwk())
        await asyncio.sleep(0.06)
        assert isinstance(await issuers.verify(issuer.token(EC)), Principal)
        assert issuer.keys_asked == 2

    with_issuer(check, RSA, refetch_s=0.05)


def test_made_up_key_ids_do_not_keep_the_issuer_busy():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        tokens = [issuer.token(RSA, headers={"kid": f"k{number}"}) for number in range(50)]
        answers = await asyncio.gather(*map(issuers.verify, tokens))
        assert set(answers) == {BAD}
        assert issuer.keys_asked == 1

    with_issuer(check)


def test_a_key_that_was_taken_away_is_good_no_longer_than_the_refresh():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        checked_before = issuer.token(RSA)
        assert isinstance(await issuers.verify(checked_before), Principal)
        issuer.keys = [EC.jwk()]
        await asyncio.sleep(0.25)
        assert await issuers.verify(issuer.token(RSA)) == BAD
        assert await issuers.verify(checked_before) == BAD

    with_issuer(check, refresh_s=0.2, refetch_s=0.05)


def test_a_token_that_was_checked_is_good_no_longer_than_it_says():
    async def work() -> None:
        async with Issuer(RSA) as issuer:
            clock = HandClock()
            clock.advance(time.time())
            settings = IssuerSettings(issuer=issuer.url, audience=AUDIENCE)
            issuers = Issuers.of(settings, clock=clock)
            token = issuer.token(RSA, exp=int(time.time()) - 29)
            assert isinstance(await issuers.verify(token), Principal)
            clock.advance(3)
            # By the library's own clock, once the hand's has said that it must be asked again.
            await asyncio.sleep(max(0.0, int(time.time()) + 1.01 - time.time()))
            assert await issuers.verify(token) == Denied("expired")

    asyncio.run(asyncio.wait_for(work(), 30))


def test_what_is_remembered_of_tokens_is_bounded_and_holds_none():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        tokens = [issuer.token(ED, sub=f"user-{number}") for number in range(40)]
        for token in tokens:
            await issuers.verify(token)
        assert len(issuers._verified) == 8
        assert not any(token in repr(issuers._verified) for token in tokens)
        whose = await issuers.verify(tokens[0])
        assert isinstance(whose, Principal)
        assert whose.name.endswith("#user-0")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oidc, "VERIFIED", 8)
        with_issuer(check)


def test_an_issuer_that_is_away_for_a_while_does_not_matter():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        assert isinstance(await issuers.verify(issuer.token(RSA)), Principal)
        issuer.fault = web.Response(status=503)
        await asyncio.sleep(0.1)
        assert isinstance(await issuers.verify(issuer.token(RSA)), Principal)

    with_issuer(check, refresh_s=0.05, refetch_s=0.01)


@pytest.mark.parametrize(
    "fault",
    [(503, {}, b""), (302, {"Location": "/moved"}, b""), (200, {}, b""), (200, {}, b'{"\x80":1}')],
    ids=str,
)
def test_an_issuer_that_never_answered_is_unavailable(fault: tuple[int, dict[str, str], bytes]):
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        issuer.fault = web.Response(status=fault[0], headers=fault[1], body=fault[2])
        denied = await issuers.verify(issuer.token(RSA))
        assert denied == Denied("issuer unavailable")
        assert denied.kind == "unavailable"

    with_issuer(check)


def test_an_issuer_that_calls_itself_otherwise_is_not_believed():
    async def check(issuer: Issuer, issuers: Issuers) -> None:
        issuer.named = issuer.url + "/"
        assert await issuers.verify(issuer.token(RSA)) == Denied("issuer unavailable")

    with_issuer(check)


def test_a_token_without_a_key_id_needs_an_issuer_with_one_key():
    async def alone(issuer: Issuer, issuers: Issuers) -> None:
        assert isinstance(await issuers.verify(issuer.token(RSA, headers={"kid": None})), Principal)

    async def several(issuer: Issuer, issuers: Issuers) -> None:
        assert await issuers.verify(issuer.token(RSA, headers={"kid": None})) == BAD

    with_issuer(alone, RSA)
    with_issuer(several)


@pytest.mark.parametrize(
    "url", ["http://issuer.test/r", "ftp://127.0.0.1/r", "https://", "issuer", ""]
)
def test_an_issuer_that_anybody_could_answer_for_is_refused(url: str):
    with pytest.raises(IssuerUnavailableError, match="expected https"):
        IssuerKeys(url)

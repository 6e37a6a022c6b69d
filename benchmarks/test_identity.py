"""What a request pays for identity, each beside its floor: `make bench`. No time is asserted.

*identity*: an API key that is cached, its right, its limits, its line in the audit log; beside the
SHA-256 that nothing about a key can be cheaper than; and tokens, the first time and later.
"""

import asyncio
import time
from contextlib import contextmanager
from hashlib import sha256

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from inferx.core.units import NS_PER_S
from inferx.exec.clock import WallClock
from inferx.exec.identity.audit import Audit, Target
from inferx.exec.identity.audit_table import AuditTable
from inferx.exec.identity.authenticator import Authenticator
from inferx.exec.identity.issuer_keys import IssuerKeys, SigningKey
from inferx.exec.identity.key_cache import KeyCache
from inferx.exec.identity.key_desk import KeyDesk, KeyRequest
from inferx.exec.identity.limiter import Limiter
from inferx.exec.identity.limits import Limits, Rate
from inferx.exec.identity.oidc import Issuers, IssuerSettings
from inferx.exec.identity.principal import EVERY, Grant, Level, Principal, User
from inferx.exec.identity.rights import ALLOWED, authorize
from inferx.exec.identity.role_copy import RoleCopy
from inferx.exec.identity.role_desk import RoleDesk, RoleRequest
from inferx.exec.state.memory import MemoryStore

KEYS = 1_000
ROOT = Principal("root", (Grant(Level.FULL, EVERY, EVERY),))


@contextmanager
def running(loop):
    """Have a loop be the running one, for those who ask it for the time."""
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)


def stepped(coroutine):
    """Run a coroutine that never waits, without a loop's turn."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")


@pytest.fixture(scope="module")
def cached():
    """Return an authenticator that knows a thousand keys, and a request's headers."""
    loop = asyncio.new_event_loop()
    store, clock = MemoryStore(WallClock()), WallClock()
    desk = KeyDesk(store, clock)

    async def begin():
        for number in range(KEYS):
            request = KeyRequest(tenant=f"t{number}", namespace="n", level="inference", label="")
            secret = await desk.issue(ROOT, request)
        # The watch does not run while the benchmark does: fresh for as long as that may take.
        cache = KeyCache(store, clock, stale_s=3600.0)
        follows = asyncio.create_task(cache.run())
        await cache.wait_listed()
        return cache, follows, {"Authorization": f"Bearer {secret.token}"}

    cache, follows, headers = loop.run_until_complete(begin())
    yield Authenticator(cache), headers
    follows.cancel()
    loop.run_until_complete(asyncio.gather(follows, return_exceptions=True))
    loop.close()


@pytest.mark.benchmark(group="identity")
def test_the_floor_is_one_sha256(benchmark, cached):
    token = cached[1]["Authorization"]
    benchmark(lambda: sha256(token.encode()).hexdigest())


@pytest.mark.benchmark(group="identity")
def test_a_cached_key(benchmark, cached):
    authenticator, headers = cached
    who = benchmark(lambda: stepped(authenticator.authenticate(headers)))
    assert isinstance(who, Principal)


@pytest.mark.benchmark(group="identity")
def test_a_right(benchmark):
    who = Principal("p", (Grant(Level.INFERENCE, "t1", "n"),))
    assert benchmark(lambda: authorize(who, "invoke", "t1", "n", "function")) is ALLOWED


@pytest.mark.benchmark(group="identity")
@pytest.mark.parametrize("has_some", [False, True])
def test_roles_by_name(benchmark, has_some):
    """Of a thousand users who were granted one, or beside them."""
    clock = WallClock()
    store = MemoryStore(clock)
    desk = RoleDesk(store, clock, ("https://issuer.test",))

    async def begin():
        for number in range(KEYS):
            asked = RoleRequest(role="user", username=f"u{number}", tenant="t1")
            await desk.grant(ROOT, desk.meant(ROOT, asked, new=True))
        copy = RoleCopy(store, stale_s=3600.0)
        follows = asyncio.create_task(copy.run())
        await copy.wait_listed()
        name = "u7" if has_some else "stranger"
        who = Principal("oidc:u", user=User("https://issuer.test", name))
        assert len(benchmark(lambda: copy.widen(who)).grants) == has_some
        follows.cancel()
        await asyncio.gather(follows, return_exceptions=True)

    asyncio.run(begin())


@pytest.mark.benchmark(group="identity")
def test_two_parties_limits_admitted_and_settled(benchmark):
    limiter = Limiter()
    generous = Rate(1 << 30, NS_PER_S, 1 << 30)
    limits = Limits(requests=generous, tokens=generous, concurrent=1000)
    parties = (("tenant:t1", limits), ("key:1", limits))
    now_ns = time.time_ns()

    def one():
        nonlocal now_ns
        now_ns += 1000
        limiter.settle(now_ns, limiter.admit(now_ns, parties, tokens=500), tokens=300)

    benchmark(one)


@pytest.mark.benchmark(group="identity")
def test_a_line_for_the_audit_log(benchmark, tmp_path):
    async def make():
        return Audit(AuditTable(f"sqlite:///{tmp_path}/audit.db"), WallClock(), queue_rows=1 << 30)

    audit = asyncio.run(make())
    target = Target(type="function", tenant="t1", namespace="n", name="f", request="r-1")
    benchmark(lambda: audit.decision("key:1", "invoke", target, ALLOWED))


@pytest.mark.benchmark(group="identity")
@pytest.mark.parametrize(("algorithm", "again"), [("RS256", 0), ("ES256", 0), ("RS256", 1)])
def test_a_token_first_and_again(benchmark, algorithm, again):
    private = (
        rsa.generate_private_key(65537, 2048)
        if algorithm == "RS256"
        else ec.generate_private_key(ec.SECP256R1())
    )
    url = "https://issuer.test/realms/r"
    keys = IssuerKeys(url, refresh_s=3600.0)
    issuers = Issuers([(IssuerSettings(issuer=url, audience="inferx"), keys)], WallClock())
    claims = {"iss": url, "aud": "inferx", "sub": "u", "exp": int(time.time()) + 3600}
    claims["realm_access"] = {"roles": ["/namespace/user/t1/n"]}
    token = jwt.encode(claims, private, algorithm, headers={"kid": "k"})
    loop = asyncio.new_event_loop()
    # As a fetch leaves them; over a socket it is another measurement.
    keys._keys = {"k": SigningKey(private.public_key(), (algorithm,))}
    keys._fetched_s = loop.time()

    def forget():
        issuers._verified.clear()

    def one():
        return stepped(issuers.verify(token))

    with running(loop):
        who = (
            benchmark(one)
            if again
            else benchmark.pedantic(one, setup=forget, rounds=500, warmup_rounds=5)
        )
    loop.close()
    assert isinstance(who, Principal)

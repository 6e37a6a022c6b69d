"""Bearer tokens of any OpenID Connect issuer, and the roles in them.

Laws:
1. A token is checked whole: signature, algorithm, issuer, audience, subject, expiry, not-before.
2. It is checked by the issuer that it names, among those that are configured, and by no other.
3. A signature is checked once for as long as its token and the issuer's key are good: a check takes
   a hundred microseconds, which a token that comes with every request would pay each time.
4. A role that does not read exactly as it should grants nothing, and takes nothing from the others.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple, cast

import jwt
import msgspec

from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock
from inferx.exec.identity.issuer_keys import (
    ALGORITHMS,
    IssuerKeys,
    IssuerUnavailableError,
    SigningKey,
)
from inferx.exec.identity.principal import (
    EVERY,
    SYSTEM_TENANT,
    Denied,
    Grant,
    Level,
    Principal,
    User,
)
from inferx.exec.identity.roles import Role, grant_of, is_user_name
from inferx.spec.reference import is_name

__all__ = ["IssuerSettings", "Issuers", "grants_of"]

LEEWAY_S: Final = 30
"""By which clocks of two hosts may differ."""
ROLES_LIMIT: Final = 1024
VERIFIED: Final = 4096
"""Tokens whose check is remembered; the one longest unseen goes first."""
_NAMES_LIMIT: Final = 512

_ROLE = re.compile(r"/(tenant|namespace)/(admin|user)/([^/]+)(?:/([^/]+))?")
_BAD: Final = Denied("bad token")
_EXPIRED: Final = Denied("expired")
_UNKNOWN_ISSUER: Final = Denied("unknown issuer")
_AWAY: Final = Denied("issuer unavailable")


class IssuerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One issuer whose tokens are taken.

    Attributes:
        issuer: Its URL, letter by letter as its tokens name it.
        audience: For whom a token has to be made; without it another application's would do.
        algorithms: That may have signed; of those in `ALGORITHMS`, which has no shared secrets.
        roles_claim: Where the roles are; Keycloak's realm roles unless said otherwise.
        admin_role: The role of the cluster's administrators; empty: no token makes one.
        name_claim: What the issuer calls a user: by whom roles that are granted by name are meant.
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
    roles_claim: tuple[str, ...] = ("realm_access", "roles")
    admin_role: str = ""
    name_claim: str = "preferred_username"

    def __post_init__(self) -> None:
        """Refuse what would take tokens that prove nothing."""
        known = {each for some in ALGORITHMS.values() for each in some}
        if unknown := sorted(set(self.algorithms) - known):
            raise ValueError(f"algorithms: {unknown}; expected of {sorted(known)}")
        if not self.audience:
            raise ValueError("audience: nothing; expected for whom tokens are made")


def grants_of(roles: Iterable[object], *, admin_role: str = "") -> tuple[Grant, ...]:
    """Return what roles grant.

    `/tenant/admin/T`, `/tenant/user/T`, `/namespace/admin/T/N`, `/namespace/user/T/N`: an `admin`
    has full access there, a `user` may read and send requests.
    """
    grants: list[Grant] = []
    for role in roles:
        if not isinstance(role, str):
            continue
        if admin_role and role == admin_role:
            grants.append(Grant(Level.FULL, EVERY, EVERY))
            continue
        match = _ROLE.fullmatch(role)
        if match is None:
            continue
        scope, rank, tenant, namespace = match.groups()
        if not is_name(tenant) or tenant == SYSTEM_TENANT:
            continue
        named = cast("Role", rank)
        if scope == "tenant" and namespace is None:
            grants.append(grant_of(named, tenant, EVERY))
        elif scope == "namespace" and namespace is not None and is_name(namespace):
            grants.append(grant_of(named, tenant, namespace))
    return tuple(grants)


class _Verified(NamedTuple):
    """A token that was checked, by which key, and until when it is good."""

    principal: Principal
    keys: IssuerKeys
    key_id: str | None
    key: SigningKey
    until_ns: int


class Issuers:
    """Verifies bearer tokens of the configured issuers."""

    __slots__ = ("_clock", "_issuers", "_verified")

    def __init__(self, issuers: Iterable[tuple[IssuerSettings, IssuerKeys]], clock: Clock) -> None:
        self._issuers = {settings.issuer: (settings, keys) for settings, keys in issuers}
        self._clock = clock
        # By hash: a token that is good for something is kept nowhere.
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    @classmethod
    def of(cls, *settings: IssuerSettings, clock: Clock) -> "Issuers":
        """Return a verifier of tokens from these issuers.

        Raises:
            IssuerUnavailableError: One is no URL that can be trusted.
        """
        return cls(((each, IssuerKeys(each.issuer)) for each in settings), clock)

    async def verify(self, token: str) -> Principal | Denied:
        """Return whose token it is, or why it is no good."""
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        try:
            if known := await self._known(digest):
                return known.principal
            found = await self._check(token)
        except IssuerUnavailableError:
            return _AWAY
        if isinstance(found, Denied):
            return found
        self._verified[digest] = found
        if len(self._verified) > VERIFIED:
            self._verified.popitem(last=False)
        return found.principal

    async def _known(self, digest: bytes) -> _Verified | None:
        """Return a token that was checked, if the key that signed it is still the issuer's."""
        known = self._verified.get(digest)
        if known is None:
            return None
        good = self._clock.now_ns() < known.until_ns
        if good and await known.keys.key(known.key_id) is known.key:
            self._verified.move_to_end(digest)
            return known
        self._verified.pop(digest, None)
        return None

    async def _check(self, token: str) -> _Verified | Denied:
        try:
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            return _BAD
        issuer = unverified["payload"].get("iss")
        found = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if found is None:
            return _UNKNOWN_ISSUER
        settings, keys = found
        key_id = unverified["header"].get("kid")
        key = await keys.key(key_id)
        if key is None:
            return _BAD
        try:
            claims = jwt.decode(
                token,
                key.public,
                algorithms=[each for each in key.algorithms if each in settings.algorithms],
                issuer=settings.issuer,
                audience=settings.audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            return _EXPIRED
        except jwt.PyJWTError:
            return _BAD
        principal = _principal(settings, claims)
        if isinstance(principal, Denied):
            return principal
        until_ns = (int(claims["exp"]) + LEEWAY_S) * NS_PER_S
        return _Verified(principal, keys, key_id, key, until_ns)


def _principal(settings: IssuerSettings, claims: Mapping[str, object]) -> Principal | Denied:
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject.isprintable() or len(subject) > _NAMES_LIMIT:
        return _BAD
    roles = _roles(claims, settings.roles_claim)
    if len(roles) > ROLES_LIMIT:
        return _BAD
    grants = grants_of(roles, admin_role=settings.admin_role)
    name = claims.get(settings.name_claim)
    user = User(settings.issuer, name) if is_user_name(name) else None
    return Principal(f"oidc:{settings.issuer}#{subject}", grants, user=user)


def _roles(claims: Mapping[str, object], path: Sequence[str]) -> list[object]:
    """Return the roles in a token; none where there is something else, or nothing."""
    found: object = claims
    try:
        for name in path:
            found = msgspec.convert(found, dict[str, object]).get(name)
        return msgspec.convert(found, list[object])
    except msgspec.ValidationError:
        return []

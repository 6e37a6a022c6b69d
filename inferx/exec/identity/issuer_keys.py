"""The public keys of one OpenID Connect issuer: found by discovery, kept fresh, never asked twice.

Laws:
1. Keys come from the issuer itself, over TLS or from this host, without following redirects.
2. A key that the issuer took away is good for `REFRESH_S` more at most; one that cannot be asked
   about any longer, because the issuer is away, for `KEPT_S`.
3. A key id that is not known has the issuer asked again, once in `REFETCH_S` whoever shows it: a
   stranger with made-up tokens cannot have the issuer, or this process, kept busy.
4. A key signs only with what it is made for and what is allowed: never without a signature, never
   with a shared secret, never with an RSA key of less than 2,048 bits.
"""

import asyncio
import logging
import urllib.parse
from typing import Final, TypeVar

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError
from jwt.algorithms import AllowedPublicKeys

from inferx.core.errors import UNDECODABLE, InferXError

__all__ = ["ALGORITHMS", "IssuerKeys", "IssuerUnavailableError", "SigningKey", "check_url"]

REFRESH_S: Final = 600.0
REFETCH_S: Final = 10.0
KEPT_S: Final = 3600.0
TIMEOUT_S: Final = 5.0
ANSWER_BYTES: Final = 1 << 20
KEYS_LIMIT: Final = 64
"""Keys that an issuer may have; ones in use are two or three."""
RSA_BITS: Final = 2048

ALGORITHMS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""What may sign, by kind of key and curve."""

Answer = TypeVar("Answer", bound=msgspec.Struct)

_log = logging.getLogger(__name__)


class IssuerUnavailableError(InferXError):
    """An issuer's keys cannot be had."""


class _Discovery(msgspec.Struct, frozen=True):
    issuer: str
    jwks_uri: str


class _KeySet(msgspec.Struct, frozen=True):
    keys: list[dict[str, object]]


class SigningKey(msgspec.Struct, frozen=True):
    """A public key, and the algorithms it may have signed with."""

    public: AllowedPublicKeys
    algorithms: tuple[str, ...]


class IssuerKeys:
    """Keys by their id. One event loop's; nothing is kept open between two requests."""

    __slots__ = ("_asked_s", "_fetched_s", "_fetching", "_keys", "_refetch_s", "_refresh_s", "url")

    def __init__(
        self, issuer: str, *, refresh_s: float = REFRESH_S, refetch_s: float = REFETCH_S
    ) -> None:
        check_url(issuer)
        self.url = issuer
        self._refresh_s = refresh_s
        self._refetch_s = refetch_s
        self._keys: dict[str, SigningKey] = {}
        self._asked_s: float | None = None
        self._fetched_s: float | None = None
        self._fetching = asyncio.Lock()

    async def key(self, key_id: str | None) -> SigningKey | None:
        """Return a key; None if the issuer has none by this id.

        A token without a key id is taken where the issuer has but one key.

        Raises:
            IssuerUnavailableError: The keys are not known, or no longer.
        """
        now_s = asyncio.get_running_loop().time()
        known = self._pick(key_id)
        due = self._fetched_s is None or now_s >= self._fetched_s + self._refresh_s
        # With a key at hand one request asks and the others go on: an issuer may take its time.
        if known is None or (due and not self._fetching.locked()):
            await self._fetch()
            known = self._pick(key_id)
        if self._fetched_s is None or now_s >= self._fetched_s + KEPT_S:
            raise IssuerUnavailableError(f"{self.url}: its keys cannot be had")
        return known

    def _pick(self, key_id: str | None) -> SigningKey | None:
        if key_id is not None:
            return self._keys.get(key_id)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    async def _fetch(self) -> None:
        """Ask for the keys, unless that was done a moment ago; those at hand stay if it fails."""
        async with self._fetching:
            now_s = asyncio.get_running_loop().time()
            if self._asked_s is not None and now_s < self._asked_s + self._refetch_s:
                return
            self._asked_s = now_s
            try:
                self._keys = await _fetch_keys(self.url)
                self._fetched_s = now_s
            except IssuerUnavailableError as error:
                _log.warning("%s", error)


def check_url(url: str) -> None:
    """Refuse what cannot be trusted to come from where it says.

    Raises:
        IssuerUnavailableError: It is neither https, nor http of this host.
    """
    parts = urllib.parse.urlsplit(url)
    local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and local)):
        raise IssuerUnavailableError(f"{url}: expected https://..., or http:// of this host")


async def _fetch_keys(issuer: str) -> dict[str, SigningKey]:
    where = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        found = await _get(session, where, _Discovery)
        if found.issuer != issuer:
            msg = f"{where} is of {found.issuer!r}; expected {issuer!r}, letter by letter"
            raise IssuerUnavailableError(msg)
        check_url(found.jwks_uri)
        keys = (await _get(session, found.jwks_uri, _KeySet)).keys
    if len(keys) > KEYS_LIMIT:
        msg = f"{found.jwks_uri}: {len(keys)} keys; expected {KEYS_LIMIT} at most"
        raise IssuerUnavailableError(msg)
    read = ((str(one.get("kid", "")), _signing_key(one)) for one in keys)
    return {key_id: key for key_id, key in read if key is not None}


async def _get(session: aiohttp.ClientSession, url: str, kind: type[Answer]) -> Answer:
    try:
        async with session.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise IssuerUnavailableError(f"{url}: status {answer.status}; expected 200")
            body = b""
            async for chunk in answer.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > ANSWER_BYTES:
                    msg = f"{url}: expected {ANSWER_BYTES} bytes at most"
                    raise IssuerUnavailableError(msg)
        return msgspec.json.decode(body, type=kind)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise IssuerUnavailableError(f"{url}: {error or 'no answer in time'}") from error
    except UNDECODABLE as error:
        raise IssuerUnavailableError(f"{url}: {error}") from error


def _signing_key(jwk: dict[str, object]) -> SigningKey | None:
    """Return a key that signs; None for one that is for something else, or is too weak."""
    kind, curve = str(jwk.get("kty")), str(jwk.get("crv", ""))
    algorithms = ALGORITHMS.get((kind, curve), ())
    if (named := jwk.get("alg")) is not None:
        algorithms = tuple(each for each in algorithms if each == named)
    if not algorithms or jwk.get("use", "sig") != "sig":
        return None
    try:
        public = PyJWK(jwk, algorithm=algorithms[0]).key
    except (PyJWTError, ValueError, TypeError):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size < RSA_BITS:
        return None
    return SigningKey(public, algorithms)

"""An OpenID Connect issuer of our own: discovery and keys over real HTTP, tokens by real keys."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

__all__ = ["AUDIENCE", "Issuer", "SigningPair", "ec_pair", "ed_pair", "forged", "rsa_pair"]

AUDIENCE = "inferx"


class SigningPair:
    def __init__(self, kid: str, algorithm: str, private: Any) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.private = private

    def jwk(self) -> dict[str, Any]:
        public = self.private.public_key()
        match self.private:
            case rsa.RSAPrivateKey():
                told = RSAAlgorithm.to_jwk(public, as_dict=True)
            case ec.EllipticCurvePrivateKey():
                told = ECAlgorithm.to_jwk(public, as_dict=True)
            case _:
                told = OKPAlgorithm.to_jwk(public, as_dict=True)
        return {**told, "kid": self.kid, "use": "sig", "alg": self.algorithm}


def rsa_pair(kid: str, bits: int = 2048, algorithm: str = "RS256") -> SigningPair:
    return SigningPair(kid, algorithm, rsa.generate_private_key(65537, bits))


def ec_pair(kid: str) -> SigningPair:
    return SigningPair(kid, "ES256", ec.generate_private_key(ec.SECP256R1()))


def ed_pair(kid: str) -> SigningPair:
    return SigningPair(kid, "EdDSA", ed25519.Ed25519PrivateKey.generate())


class Issuer:
    """Answers what it is told to; `fault` is what it answers discovery with instead."""

    def __init__(self, *pairs: SigningPair) -> None:
        self.keys: list[dict[str, Any]] = [pair.jwk() for pair in pairs]
        self.url = ""
        self.named = ""
        self.keys_asked = 0
        self.fault: web.Response | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/realms/r/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/realms/r/keys", self._keys)
        app.router.add_get("/moved", self._told)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = self.named = f"http://127.0.0.1:{port}/realms/r"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _discovery(self, request: web.Request) -> web.StreamResponse:
        if self.fault is not None:
            fault = self.fault
            return web.Response(status=fault.status, headers=fault.headers, body=fault.body)
        return await self._told(request)

    async def _told(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"issuer": self.named, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, _: web.Request) -> web.StreamResponse:
        self.keys_asked += 1
        return web.json_response({"keys": self.keys})

    def claims(self, **changes: object) -> dict[str, Any]:
        """Return the claims of a good token, but for changes; None leaves one out."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": [AUDIENCE, "account"],
            "sub": "user-1",
            "iat": now,
            "nbf": now,
            "exp": now + 60,
            "realm_access": {"roles": ["/namespace/admin/t1/n", "offline_access"]},
        }
        claims.update(changes)
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, pair: SigningPair, *, headers: Mapping[str, Any] | None = None, **changes: object
    ) -> str:
        told = {"kid": pair.kid, **(headers or {})}
        told = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(self.claims(**changes), pair.private, pair.algorithm, headers=told)


def forged(claims: Mapping[str, Any], header: Mapping[str, Any], secret: bytes | None) -> str:
    """Return a token as a forger would make it: without a signature, or with a shared secret."""
    if secret is None:
        return jwt.encode(dict(claims), None, algorithm="none", headers=dict(header))  # type: ignore[arg-type]

    # By hand: the library refuses to take a public key for a secret.
    def part(told: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(told).encode()).rstrip(b"=")

    signed = part({"typ": "JWT", **header}) + b"." + part(claims)
    mac = hmac.new(secret, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()

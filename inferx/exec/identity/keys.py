"""API keys: how one is made, what is kept of it, and where.

A key is `ix_<id>_<secret>`: 64 bits to find its record by, and 256 bits that nobody can guess. Only
SHA-256 of the whole is kept. A slow hash would protect guessable passwords; 256 random bits are
out of reach at any speed, and a slow hash would hand every caller a way to burn the gateway's CPU.

Laws:
1. A key is shown once, when it is made; no call, error or log gives it again.
2. A record that is not exactly what this version writes opens nothing: an unknown level, an unknown
   field (a newer version's restriction, for one), a scope that is not its place in the store.
3. A key is looked up by its id and compared in constant time.
"""

import re
import secrets
from hashlib import sha256
from hmac import compare_digest
from typing import Final, Literal, NamedTuple, NewType

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.identity.limits import UNLIMITED, Limits
from inferx.exec.identity.principal import (
    EVERY,
    SYSTEM_TENANT,
    Denied,
    Grant,
    Level,
    Principal,
)
from inferx.spec.reference import is_name

__all__ = [
    "PREFIX",
    "AccessLevel",
    "KeyId",
    "KeyRecord",
    "Secret",
    "digest_of",
    "ended",
    "id_at",
    "key_prefix",
    "make_secret",
    "read_record",
    "store_key",
    "verify",
    "write_record",
]

KeyId = NewType("KeyId", str)
AccessLevel = Literal["full", "read", "inference"]

PREFIX: Final = "/registry/apikey/"
_TOKEN = re.compile(r"ix_([0-9a-f]{16})_[0-9a-f]{64}")
_LEVELS: Final[dict[AccessLevel, Level]] = {
    "full": Level.FULL,
    "read": Level.READ,
    "inference": Level.INFERENCE,
}
_LABEL_LIMIT: Final = 256

_REVOKED: Final = Denied("revoked")
_EXPIRED: Final = Denied("expired")
_UNKNOWN: Final = Denied("unknown key")


class Secret(NamedTuple):
    """A key as its holder has it. It hides itself where it is printed."""

    id: KeyId
    token: str

    def __repr__(self) -> str:
        return f"Secret({self.id})"


class KeyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a key.

    Attributes:
        id: By which it is found; no secret.
        sha256: Of the whole token, in hexadecimal digits.
        tenant: Which it is good for; `EVERY` for the cluster's administrators.
        namespace: Which it is good for; `EVERY` for its whole tenant.
        level: How much it allows there.
        label: What people call it.
        issuer: Name of the principal who issued it.
        issued_ns: When.
        expires_ns: From when on it is good for nothing; None is never.
        revoked_ns: When it was revoked; None is not.
        limits: Its own.
    """

    id: KeyId
    sha256: str
    tenant: str
    namespace: str
    level: AccessLevel
    label: str
    issuer: str
    issued_ns: int
    expires_ns: int | None = None
    revoked_ns: int | None = None
    limits: Limits = UNLIMITED

    def __post_init__(self) -> None:
        """Refuse a scope that is none; decoders turn this into their own error."""
        whole = self.tenant == EVERY
        if whole and self.namespace != EVERY:
            raise ValueError(f"a key for namespace {self.namespace!r} of all tenants; name one")
        if not whole and (self.tenant == SYSTEM_TENANT or not is_name(self.tenant)):
            raise ValueError(f"a key's tenant: {self.tenant!r}; expected a tenant's name")
        if self.namespace != EVERY and not is_name(self.namespace):
            raise ValueError(f"a key's namespace: {self.namespace!r}; expected a name")
        if not self.label.isprintable() or len(self.label) > _LABEL_LIMIT:
            msg = f"a key's label: expected at most {_LABEL_LIMIT} printable characters"
            raise ValueError(msg)
        if not re.fullmatch(r"[0-9a-f]{16}", self.id) or not re.fullmatch(
            r"[0-9a-f]{64}", self.sha256
        ):
            raise ValueError("a key's id or hash is not what it should be")

    def principal(self) -> Principal:
        """Return who holds this key."""
        grant = Grant(_LEVELS[self.level], self.tenant, self.namespace)
        return Principal(f"key:{self.id}", (grant,), self.limits)


_DECODER = msgspec.json.Decoder(KeyRecord)


def make_secret() -> Secret:
    """Return a new key."""
    key_id = KeyId(secrets.token_hex(8))
    return Secret(key_id, f"ix_{key_id}_{secrets.token_hex(32)}")


def id_at(token: str) -> KeyId | None:
    """Return a key's id; None if this is no key."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else KeyId(match[1])


def digest_of(token: str) -> str:
    """Return what is kept of a key. The id is under the hash too: it cannot be moved to another."""
    return sha256(token.encode()).hexdigest()


def verify(record: KeyRecord, token: str, now_ns: int) -> Denied | None:
    """Return why a token is not, or no longer, the key of a record; None if it is.

    Only who has the whole key learns that it was revoked or has run out.
    """
    if not compare_digest(record.sha256, digest_of(token)):
        return _UNKNOWN
    return ended(record, now_ns)


def ended(record: KeyRecord, now_ns: int) -> Denied | None:
    """Return why a record's key is good for nothing any more; None if it is good."""
    if record.revoked_ns is not None:
        return _REVOKED
    if record.expires_ns is not None and now_ns >= record.expires_ns:
        return _EXPIRED
    return None


def key_prefix(tenant: str, namespace: str | None = None) -> str:
    """Return where the records of a tenant lie, or those of one of its namespaces."""
    tail = "" if namespace is None else f"{namespace}/"
    return f"{PREFIX}{tenant}/{tail}"


def store_key(record: KeyRecord) -> str:
    """Return where a record lies."""
    return f"{key_prefix(record.tenant, record.namespace)}{record.id}"


def write_record(record: KeyRecord) -> bytes:
    """Return a record as it is kept."""
    return msgspec.json.encode(record)


def read_record(key: str, value: bytes) -> KeyRecord | None:
    """Return a record that lies under a key of the store; None if it is not what it should be."""
    try:
        record = _DECODER.decode(value)
    except UNDECODABLE:
        return None
    return record if store_key(record) == key else None

"""Roles: what they grant, and what is kept of one that was granted to somebody by name.

Laws:
1. A role means the same whether a token brings it or it was granted by name.
2. Who is meant is a name at one issuer: the same name at another is somebody else.
3. A record that is not, byte for byte, what this version writes grants nothing; nor does one that
   lies elsewhere than what it says. So a role is granted once or not at all.
"""

from hashlib import sha256
from typing import Final, Literal, TypeGuard

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.identity.principal import EVERY, SYSTEM_TENANT, Grant, Level, User
from inferx.spec.reference import is_name

__all__ = [
    "LEVELS",
    "PREFIX",
    "Role",
    "RoleRecord",
    "grant_of",
    "is_user_name",
    "read_record",
    "role_prefix",
    "store_key",
    "write_record",
]

Role = Literal["admin", "user"]

PREFIX: Final = "/registry/role/"
LEVELS: Final[dict[Role, Level]] = {"admin": Level.FULL, "user": Level.READ}
_NAME_LIMIT: Final = 256
_ISSUER_LIMIT: Final = 512
"""With a name it has room in a line of the audit log, which cuts longer texts."""


def grant_of(role: Role, tenant: str, namespace: str) -> Grant:
    """Return what a role grants over a namespace, or over a whole tenant."""
    return Grant(LEVELS[role], tenant, namespace)


def is_user_name(name: object) -> TypeGuard[str]:
    """Return whether a role can be granted to somebody who is called so."""
    return isinstance(name, str) and 0 < len(name) <= _NAME_LIMIT and name.isprintable()


class RoleRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a role that was granted by name.

    Attributes:
        issuer: URL of the OpenID Connect issuer that knows the user.
        username: What the issuer calls them.
        role: Which one.
        tenant: Of which tenant.
        namespace: Of which namespace; `EVERY` for the whole tenant.
        by: Name of the principal who granted it.
        granted_ns: When.
    """

    issuer: str
    username: str
    role: Role
    tenant: str
    namespace: str
    by: str
    granted_ns: int

    def __post_init__(self) -> None:
        """Refuse what nobody can be granted; decoders turn this into their own error."""
        if self.tenant == SYSTEM_TENANT or not is_name(self.tenant):
            raise ValueError(f"a role's tenant: {self.tenant!r}; expected a tenant's name")
        if self.namespace != EVERY and not is_name(self.namespace):
            raise ValueError(f"a role's namespace: {self.namespace!r}; expected a name")
        if not is_user_name(self.username):
            msg = f"a role's username: expected 1 to {_NAME_LIMIT} printable characters"
            raise ValueError(msg)
        if not 0 < len(self.issuer) <= _ISSUER_LIMIT or not self.issuer.isprintable():
            msg = f"a role's issuer: expected a URL of at most {_ISSUER_LIMIT} characters"
            raise ValueError(msg)

    @property
    def user(self) -> User:
        """Whose it is."""
        return User(self.issuer, self.username)

    @property
    def grant(self) -> Grant:
        """What it grants."""
        return grant_of(self.role, self.tenant, self.namespace)


_DECODER = msgspec.json.Decoder(RoleRecord)


def role_prefix(role: Role, tenant: str, namespace: str) -> str:
    """Return where the records of a role lie, over a namespace or over a whole tenant."""
    return f"{PREFIX}{tenant}/{namespace}/{role}/"


def store_key(record: RoleRecord) -> str:
    """Return where a record lies. No printable name has the newline that parts it from the URL."""
    whose = sha256(f"{record.issuer}\n{record.username}".encode()).hexdigest()
    return f"{role_prefix(record.role, record.tenant, record.namespace)}{whose}"


def write_record(record: RoleRecord) -> bytes:
    """Return a record as it is kept."""
    return msgspec.json.encode(record)


def read_record(key: str, value: bytes) -> RoleRecord | None:
    """Return a record that lies under a key of the store; None if it is not what it should be."""
    try:
        record = _DECODER.decode(value)
    except UNDECODABLE:
        return None
    return record if store_key(record) == key and write_record(record) == value else None

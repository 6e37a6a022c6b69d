"""Where a store is, in one line: `memory:`, `sqlite:PATH`, `etcd://HOST:PORT,...`, `grpc://...`.

`etcds:` and `grpcs:` are the same under TLS. Options come after a `?`:

- `ca=PATH`: whom to trust, in PEM; without it, whom gRPC trusts by itself;
- `cert=PATH&key=PATH`: who we are, in PEM;
- `user=NAME&password-file=PATH`: etcd's user. Without a file the password is that of the
  environment's `INFERX_ETCD_PASSWORD`. It is never part of the line, which others can read.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl

import grpc

from inferx.core.errors import DescriptionError
from inferx.exec.clock import Clock
from inferx.exec.state.client import RemoteStore
from inferx.exec.state.etcd.client import Client, Login
from inferx.exec.state.etcd.store import EtcdStore
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.sqlite import open_sqlite
from inferx.exec.state.store import Store

__all__ = ["PASSWORD_VARIABLE", "open_store"]

PASSWORD_VARIABLE = "INFERX_ETCD_PASSWORD"  # noqa: S105 - where it is, not what it is.

EXPECTED = "expected memory:, sqlite:PATH, etcd://HOST:PORT,... or grpc://HOST:PORT,..."
TLS_OPTIONS = ("ca", "cert", "key")
LOGIN_OPTIONS = ("user", "password-file")
FILE_BYTES = 1 << 20
"""Of a certificate, a key or a password."""


async def open_store(url: str, clock: Clock) -> Store:
    """Open the store that a line names. Services are connected to when they are first asked.

    Raises:
        DescriptionError: The line, or a file that it names, is of no use.
        StoreError: A file is no store, or cannot be opened.
    """
    kind, _, rest = url.partition(":")
    match kind:
        case "memory" if url == "memory:":
            return MemoryStore(clock)
        case "sqlite" if rest and not rest.startswith("//"):
            return await open_sqlite(Path(rest), clock)
        case "etcd" | "etcds":
            endpoints, options = parsed(kind, rest, LOGIN_OPTIONS)
            login = login_of(options)
            client = Client(endpoints, credentials=credentials_of(kind, options), login=login)
            return EtcdStore(client)
        case "grpc" | "grpcs":
            endpoints, options = parsed(kind, rest, ())
            return RemoteStore(endpoints, credentials=credentials_of(kind, options))
        case _:
            # What comes after an unknown kind may be a password.
            raise DescriptionError(f"a store's address of kind {kind[:40]!r}: {EXPECTED}")


def parsed(
    kind: str, rest: str, more_options: tuple[str, ...]
) -> tuple[list[str], Mapping[str, str]]:
    """Return the endpoints and options of a service's address."""
    hosts, _, query = rest.partition("?")
    if "@" in hosts:
        raise DescriptionError(
            f"{kind}: a user before @: expected etcd's user as ?user=NAME, and the password in a "
            f"file (password-file=PATH) or in {PASSWORD_VARIABLE}"
        )
    endpoints = hosts.removeprefix("//").split(",")
    if not hosts.startswith("//") or not all(map(is_endpoint, endpoints)):
        raise DescriptionError(f"{kind}:{hosts[:200]}: expected {kind}://HOST:PORT,...")
    known = (*(TLS_OPTIONS if kind.endswith("s") else ()), *more_options)
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            expected = ", ".join(known) or "none"
            if name in TLS_OPTIONS:
                expected = f"{expected}; TLS is {kind}s:"
            raise DescriptionError(f"{kind}: the option {name[:40]!r}: expected {expected}")
        if name in options or not value:
            raise DescriptionError(f"{kind}: the option {name}: expected one value")
        options[name] = value
    return endpoints, options


def is_endpoint(text: str) -> bool:
    """Whether a text is a host and a port; a host of IPv6 is in brackets."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host.replace(":", "/")
    return (
        bool(bare)
        and not set(bare) & set("/[] ")
        and port.isascii()
        and port.isdecimal()
        and 0 < int(port) < 1 << 16
    )


def credentials_of(kind: str, options: Mapping[str, str]) -> grpc.ChannelCredentials | None:
    """Return how a connection is secured; None: it is not."""
    if not kind.endswith("s"):
        return None
    if ("cert" in options) != ("key" in options):
        raise DescriptionError(f"{kind}: cert or key alone: expected both, or neither")
    ca, cert, key = (
        read(kind, name, options[name], "-----BEGIN ") if name in options else None
        for name in TLS_OPTIONS
    )
    return grpc.ssl_channel_credentials(
        root_certificates=ca, private_key=key, certificate_chain=cert
    )


def login_of(options: Mapping[str, str]) -> Login | None:
    """Return etcd's user, if there is one."""
    user = options.get("user")
    if user is None:
        if "password-file" in options:
            raise DescriptionError("etcd: password-file without user: expected both, or neither")
        return None
    if path := options.get("password-file"):
        password = read("etcd", "password-file", path, "").decode(errors="replace").strip("\r\n")
    else:
        password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password:
        raise DescriptionError(
            f"etcd: the user {user} has no password: expected one in password-file=PATH or in "
            f"{PASSWORD_VARIABLE}"
        )
    return Login(user, password)


def read(kind: str, option: str, path: str, begins: str) -> bytes:
    """Return what is in a file that an option names."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES)
    except OSError as error:
        raise DescriptionError(f"{kind}: {option}: {path}: {error.strerror}") from error
    if begins.encode() not in content:
        raise DescriptionError(f"{kind}: {option}: {path}: expected PEM, which has {begins}...")
    return content

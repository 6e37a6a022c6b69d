"""The first administrator's key, for a cluster that has nobody yet: a file that its owner reads.

Laws: the file is on the disk before the key is good for anything, so that no key exists which
nobody has; whoever is stopped between the two finds the file and goes on with it. The key itself
reaches no log, no argument list and no environment.
"""

import os
import stat
from pathlib import Path
from typing import Final

from inferx.core.errors import InferXError
from inferx.exec.clock import Clock
from inferx.exec.files import write_whole
from inferx.exec.identity.key_desk import KeyRequest, new_record
from inferx.exec.identity.keys import (
    KeyId,
    Secret,
    id_at,
    make_secret,
    read_record,
    store_key,
    verify,
    write_record,
)
from inferx.exec.identity.principal import EVERY
from inferx.exec.state.store import ABSENT, Expect, Put, Store

__all__ = ["BootstrapError", "bootstrap_admin_key"]

_SIZE_LIMIT: Final = 4096
_REQUEST: Final = KeyRequest(tenant=EVERY, namespace=EVERY, level="full", label="bootstrap")


class BootstrapError(InferXError):
    """The first key cannot be had from where it should be."""


async def bootstrap_admin_key(store: Store, clock: Clock, path: Path) -> KeyId:
    """Have an administrator's key in a file of mode 600, and known to the store.

    A file that is there is kept, with its key. Two who start at once end with one key.

    Raises:
        BootstrapError: The file is not what it should be, or its key is good for nothing.
    """
    try:
        secret = _read(path) or _write(path)
    except OSError as error:
        msg = f"{path}: {error.strerror}; expected a place for the administrator's key"
        raise BootstrapError(msg) from error
    now_ns = clock.now_ns()
    record = new_record(_REQUEST, secret, issuer="bootstrap", now_ns=now_ns)
    key = store_key(record)
    if await store.commit([Expect(key, ABSENT)], [Put(key, write_record(record))]) is not None:
        return secret.id
    entry = await store.get(key)
    known = None if entry is None else read_record(key, entry.value)
    if known is None:
        raise BootstrapError(f"{path}: the store has no readable record of this key; remove it")
    if denied := verify(known, secret.token, now_ns):
        raise BootstrapError(f"{path}: {denied.reason}; remove the file to have a new key made")
    return secret.id


def _read(path: Path) -> Secret | None:
    """Return the key in a file; None if there is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            raise BootstrapError(f"{path}: expected a file of this user's own")
        if facts.st_mode & 0o077:
            mode = stat.S_IMODE(facts.st_mode)
            raise BootstrapError(f"{path}: others can reach it (mode {mode:o}); expected mode 600")
        token = file.read(_SIZE_LIMIT).decode("ascii", "replace").strip()
    key_id = id_at(token)
    if key_id is None:
        raise BootstrapError(f"{path}: there is no API key in it; expected ix_..., or no file")
    return Secret(key_id, token)


def _write(path: Path) -> Secret:
    """Write a new key. Of two who do so at once, the second takes what the first wrote."""
    secret = make_secret()
    aside = path.with_name(f".{path.name}.{secret.id}")
    write_whole(aside, f"{secret.token}\n".encode())
    try:
        # Linked, not renamed: a rename would put this key where another's has just been given out.
        os.link(aside, path)
    except FileExistsError:
        theirs = _read(path)
        if theirs is None:
            raise BootstrapError(f"{path}: removed while it was being made; start again") from None
        return theirs
    finally:
        aside.unlink()
    return secret

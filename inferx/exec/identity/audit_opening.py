"""Where an audit log is, in one line: `sqlite:PATH`, or `postgresql://USER@HOST/DATABASE?OPTIONS`.

Laws:
1. A password is never part of the line, which others on this machine can read. It is in a file
   (`?password-file=PATH`), or in the environment's `INFERX_AUDIT_PASSWORD`; without either it is
   looked for where PostgreSQL's own programs do.
2. A file that cannot be used is told at the start. A server that is away at the start may come
   back: decisions wait for it, and administrative acts are refused until then.
"""

import logging
import os
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from inferx.core.errors import DescriptionError
from inferx.exec.clock import Clock
from inferx.exec.identity.audit import Audit
from inferx.exec.identity.audit_table import AuditDatabaseError, AuditTable

__all__ = ["PASSWORD_VARIABLE", "audit_url", "open_audit"]

PASSWORD_VARIABLE: Final = "INFERX_AUDIT_PASSWORD"  # noqa: S105 - where it is, not what it is.
PASSWORD_FILE: Final = "password-file"  # noqa: S105 - the same.
PASSWORD_BYTES: Final = 4096
EXPECTED: Final = "expected sqlite:PATH or postgresql://USER@HOST/DATABASE"

_log = logging.getLogger(__name__)


def open_audit(text: str, clock: Clock) -> Audit:
    """Return the log that a line names, with its tables as they should be.

    Raises:
        DescriptionError: The line, or a file that it names, is of no use.
        AuditDatabaseError: The log is a file, and cannot be used.
    """
    table = AuditTable(audit_url(text))
    try:
        table.prepare()
    except AuditDatabaseError as error:
        if table.is_file:
            table.close()
            raise
        _log.error("audit: %s; administrative acts are refused until it can be used", error)
    return Audit(table, clock)


def audit_url(text: str) -> sa.URL:
    """Return a database's address, with the password that belongs to it.

    Raises:
        DescriptionError: It is no such address, has a password in it, or names an unusable file.
    """
    kind, _, rest = text.partition(":")
    if kind == "sqlite":
        # As SQLAlchemy writes it, or as the store's address is written.
        path = rest.removeprefix("///")
        if not path or path.startswith("//"):
            raise DescriptionError(f"the audit log: sqlite: without a file: {EXPECTED}")
        return sa.URL.create("sqlite", database=path)
    if kind != "postgresql":
        # What comes after an unknown kind may be a password.
        raise DescriptionError(f"the audit log's address of kind {kind[:40]!r}: {EXPECTED}")
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        raise DescriptionError(f"the audit log's address: {EXPECTED}") from None
    if url.password is not None or "password" in url.query:
        raise DescriptionError(
            "the audit log's address: a password in it, which others can read; expected it in a "
            f"file (?{PASSWORD_FILE}=PATH) or in {PASSWORD_VARIABLE}"
        )
    password_file = url.query.get(PASSWORD_FILE)
    url = url.difference_update_query([PASSWORD_FILE])
    if isinstance(password_file, tuple):
        raise DescriptionError(f"the audit log's address: {PASSWORD_FILE}: expected one")
    if password_file is None:
        password = os.environ.get(PASSWORD_VARIABLE, "")
    else:
        password = _read(Path(password_file))
    return url.set(password=password) if password else url


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(PASSWORD_BYTES)
    except OSError as error:
        raise DescriptionError(
            f"the audit log: {PASSWORD_FILE}: {path}: {error.strerror}"
        ) from error
    password = content.decode(errors="replace").strip("\r\n")
    if not password:
        raise DescriptionError(f"the audit log: {PASSWORD_FILE}: {path}: expected a password")
    return password

"""The audit log's tables, in SQLite or PostgreSQL, and how they came to be as they are.

Laws:
1. The schema has a version, kept beside it. Each step from one to the next is one transaction, made
   by one process however many start at once; a newer version than this program's is refused.
2. An event is written once, however often its batch is: it is known by its writer and number.
3. Old events go in small bites, so that writing never waits for a long deletion.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError

from inferx.core.errors import InferXError

__all__ = ["EVENTS", "VERSION", "AuditDatabaseError", "AuditRow", "AuditTable"]

VERSION: Final = 2
BITE_ROWS: Final = 5_000
CONNECT_S: Final = 5
STATEMENT_MS: Final = 20_000
_LOCK: Final = 0x1_4F_E2_F8
"""PostgreSQL's advisory lock that the schema is changed under."""


class AuditDatabaseError(InferXError):
    """The audit log's database cannot be used, or not now."""


class AuditRow(msgspec.Struct, frozen=True):
    """One event as it is kept; empty text where there is nothing to say.

    `times` is how many were equal but for their instant, `at_ns` that of the first.
    """

    writer: str
    number: int
    at_ns: int
    what: str
    who: str
    action: str
    type: str
    tenant: str
    namespace: str
    name: str
    outcome: str
    reason: str
    request: str
    times: int = 1


_METADATA: Final = sa.MetaData()
EVENTS: Final = sa.Table(
    "inferx_audit",
    _METADATA,
    sa.Column("writer", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("at_ns", sa.BigInteger, nullable=False),
    *(
        sa.Column(name, sa.Text, nullable=False)
        for name in AuditRow.__struct_fields__
        if name not in {"writer", "number", "at_ns", "times"}
    ),
    sa.Column("times", sa.BigInteger, nullable=False, server_default="1"),
    sa.Index("inferx_audit_at", "at_ns"),
    sa.Index("inferx_audit_tenant_at", "tenant", "at_ns"),
)
_SCHEMA: Final = sa.Table(
    "inferx_audit_schema", _METADATA, sa.Column("version", sa.Integer, nullable=False)
)

_TIMES: Final = "ALTER TABLE inferx_audit ADD COLUMN times BIGINT NOT NULL DEFAULT 1"
"""The step from version 1 to 2."""


class AuditTable:
    """The log in one database. Its calls block: they belong on a thread of their own."""

    def __init__(self, url: str | sa.URL) -> None:
        """Take a database's URL: `sqlite:///PATH` or `postgresql://...`; see `audit_opening`.

        Raises:
            AuditDatabaseError: It is not one of these.
        """
        try:
            parsed = sa.make_url(url)
        except SQLAlchemyError:
            # What it says would quote the URL, and so a password.
            raise AuditDatabaseError("the audit log's database: no URL of one") from None
        self.shown = parsed.render_as_string(hide_password=True)
        match parsed.drivername:
            case "sqlite":
                arguments: dict[str, object] = {"timeout": CONNECT_S}
            case "postgresql" | "postgresql+psycopg":
                parsed = parsed.set(drivername="postgresql+psycopg")
                arguments = {
                    "connect_timeout": CONNECT_S,
                    "options": f"-c statement_timeout={STATEMENT_MS}",
                    # A server that is gone without a word is found out.
                    "keepalives_idle": CONNECT_S,
                    "tcp_user_timeout": STATEMENT_MS,
                }
            case _:
                msg = f"{self.shown}: expected sqlite:///PATH or postgresql://..."
                raise AuditDatabaseError(msg)
        self._file = Path(parsed.database or "") if parsed.drivername == "sqlite" else None
        self.is_file = self._file is not None
        """Whether it is a file of this machine's: one that cannot be used will not mend itself."""
        if self._file == Path():
            raise AuditDatabaseError(f"{self.shown}: expected a file, as in sqlite:///PATH")
        self._engine = sa.create_engine(
            parsed, connect_args=arguments, pool_size=1, max_overflow=0, pool_pre_ping=True
        )
        self._insert = (
            sqlite.insert(EVENTS).on_conflict_do_nothing()
            if parsed.drivername == "sqlite"
            else postgresql.insert(EVENTS).on_conflict_do_nothing()
        )
        if parsed.drivername == "sqlite":
            event.listen(self._engine, "connect", _durable_and_concurrent)

    def prepare(self) -> None:
        """Bring the schema to this program's version.

        Raises:
            AuditDatabaseError: It is of a newer version, or the database is away.
        """
        if self._file is not None:
            try:
                # SQLite would let everybody read it. One that is there is not opened beside
                # SQLite: to close it would drop the locks that this process holds on it.
                mode = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(self._file, mode, 0o600))
            except FileExistsError:
                pass
            except OSError as error:
                msg = f"{self._file}: {error.strerror}; expected a place for the audit log"
                raise AuditDatabaseError(msg) from error
        with _Told(self.shown), self._engine.begin() as connection:
            if self._file is None:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            _SCHEMA.create(connection, checkfirst=True)
            found = connection.scalar(sa.select(sa.func.max(_SCHEMA.c.version))) or 0
            if found > VERSION:
                msg = f"{self.shown}: schema version {found}; expected {VERSION} or older"
                raise AuditDatabaseError(msg)
            if found == 0:
                EVENTS.create(connection)
            elif found < VERSION:
                connection.exec_driver_sql(_TIMES)
            if found < VERSION:
                connection.execute(sa.delete(_SCHEMA))
                connection.execute(sa.insert(_SCHEMA).values(version=VERSION))

    def write(self, rows: Sequence[AuditRow]) -> None:
        """Write events, in one transaction; those that are there already stay as they are.

        Raises:
            AuditDatabaseError: None of them may be there; to write them again is harmless.
        """
        with _Told(self.shown), self._engine.begin() as connection:
            connection.execute(self._insert, [msgspec.structs.asdict(row) for row in rows])

    def forget(self, before_ns: int) -> int:
        """Remove a bite of the events before an instant; return how many went."""
        keys = (EVENTS.c.writer, EVENTS.c.number)
        old = sa.select(*keys).where(EVENTS.c.at_ns < before_ns).order_by(EVENTS.c.at_ns)
        gone = sa.delete(EVENTS).where(sa.tuple_(*keys).in_(old.limit(BITE_ROWS)))
        with _Told(self.shown), self._engine.begin() as connection:
            return connection.execute(gone).rowcount

    def read(
        self, *, tenant: str | None = None, since_ns: int = 0, limit: int = 1000
    ) -> tuple[AuditRow, ...]:
        """Return the latest events, newest first; of one tenant, if one is named."""
        wanted = sa.select(EVENTS).where(EVENTS.c.at_ns >= since_ns)
        if tenant is not None:
            wanted = wanted.where(EVENTS.c.tenant == tenant)
        wanted = wanted.order_by(EVENTS.c.at_ns.desc(), EVENTS.c.number.desc()).limit(limit)
        with _Told(self.shown), self._engine.connect() as connection:
            return tuple(AuditRow(*row) for row in connection.execute(wanted))

    def close(self) -> None:
        """Let go of the connection."""
        with suppress(SQLAlchemyError):
            self._engine.dispose()


class _Told:
    """Tells a database's error in one line, without the statement and what was in it."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SQLAlchemyError):
            cause = getattr(error, "orig", None) or type(error).__name__
            line = " ".join(str(cause).split())
            raise AuditDatabaseError(f"{self._shown}: {line}") from None


def _durable_and_concurrent(connection: DBAPIConnection, _: object) -> None:
    # Readers do not wait for the writer, and what is written has reached the disk.
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()

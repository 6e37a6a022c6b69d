"""Every process's own copy of the API keys, kept by a watch on the store.

Laws:
1. A request never waits for the store: a key is looked up in memory.
2. A key that was revoked opens nothing as soon as the watch tells, well within a second.
3. A key that was shown and found to be a record's is known for as long as that record is the
   latest, so that its hash is taken once, and not for each request.
4. A copy whose watch has been silent for longer than `STALE_S` opens nothing at all: it may have
   missed a revocation.
"""

import logging
from typing import Final

from inferx.exec.clock import Clock
from inferx.exec.identity.following import STALE_S, Copy
from inferx.exec.identity.keys import (
    PREFIX,
    KeyId,
    KeyRecord,
    ended,
    id_at,
    read_record,
    verify,
)
from inferx.exec.identity.principal import Denied, Principal
from inferx.exec.state.store import Deleted, Entry, Store

__all__ = ["KeyCache"]

SHOWN_LIMIT: Final = 4_096
"""Keys that are known by what was shown. A dictionary compares what has the same hash, and a secret
of the process keys that: how long a look-up takes tells a guesser nothing."""

_UNKNOWN: Final = Denied("unknown key")
_MALFORMED: Final = Denied("malformed credentials")
_MALFORMED_RECORD: Final = Denied("malformed record")
_STALE: Final = Denied("keys unavailable")

_log = logging.getLogger(__name__)


class _Known:
    """A key as the watch left it; a record that cannot be read is None."""

    __slots__ = ("key", "principal", "record", "shown")

    def __init__(self, key: str, record: KeyRecord | None) -> None:
        self.key = key
        self.record = record
        self.principal = None if record is None else record.principal()
        self.shown = ""
        """The key itself, once somebody showed it."""


class KeyCache(Copy):
    """Answers for API keys while `run` runs.

    Attributes:
        malformed: Records that open nothing because they are not what they should be.
    """

    __slots__ = ("_clock", "_known", "_shown", "malformed")

    def __init__(self, store: Store, clock: Clock, *, stale_s: float = STALE_S) -> None:
        super().__init__(store, PREFIX, called="API keys", stale_s=stale_s)
        self._clock = clock
        self._known: dict[KeyId, _Known] = {}
        self._shown: dict[str, _Known] = {}
        self.malformed = 0

    def __len__(self) -> int:
        return len(self._known)

    def look_up(self, token: str) -> Principal | Denied:
        """Return who holds a key, or why it opens nothing."""
        if self._loop_time() >= self._fresh_until_s:
            return _STALE
        shown = self._shown.get(token)
        if shown is not None and shown.record is not None and shown.principal is not None:
            record = shown.record
            if record.expires_ns is None and record.revoked_ns is None:
                return shown.principal
            return ended(record, self._clock.now_ns()) or shown.principal
        key_id = id_at(token)
        if key_id is None:
            return _MALFORMED
        known = self._known.get(key_id)
        if known is None:
            return _UNKNOWN
        if known.record is None or known.principal is None:
            return _MALFORMED_RECORD
        denied = verify(known.record, token, self._clock.now_ns())
        if denied is not None:
            return denied
        if len(self._shown) >= SHOWN_LIMIT:
            self._shown.clear()
        known.shown = token
        self._shown[token] = known
        return known.principal

    # -- told by the store ---
    def take_all(self, entries: tuple[Entry, ...]) -> None:
        """Know these keys, and no others."""
        self._known = {}
        self._shown.clear()
        self.malformed = 0
        for entry in entries:
            self.take(entry)

    def take(self, change: Entry | Deleted) -> None:
        """Know a key as it is now."""
        key_id = KeyId(change.key.rpartition("/")[2])
        before = self._known.get(key_id)
        if before is not None:
            self._shown.pop(before.shown, None)
        if isinstance(change, Deleted):
            if before is not None and before.key == change.key:
                del self._known[key_id]
                self.malformed -= before.record is None
            return
        known = _Known(change.key, read_record(change.key, change.value))
        if known.record is None:
            _log.error("%s is no record of an API key; it opens nothing", change.key)
        self.malformed += (known.record is None) - (before is not None and before.record is None)
        self._known[key_id] = known

"""Every process's own copy of the roles that were granted by name, kept by a watch on the store.

Laws:
1. A request never waits for the store: what somebody was granted is one look-up in memory.
2. A role that was revoked grants nothing as soon as the watch tells, well within a second, also to
   whose token was checked before: nothing of it is remembered with a token.
3. A copy whose watch has been silent for longer than `STALE_S` grants nothing: it may have missed a
   revocation. What a token itself brings stays.
"""

import logging

import msgspec

from inferx.exec.identity.following import STALE_S, Copy
from inferx.exec.identity.principal import Grant, Principal, User
from inferx.exec.identity.roles import PREFIX, read_record
from inferx.exec.state.store import Deleted, Entry, Store

__all__ = ["RoleCopy"]

_log = logging.getLogger(__name__)


class _Held:
    """What a user was granted; the principal who came last, without it and with it.

    Others know a caller again by being the same object.
    """

    __slots__ = ("by_key", "grants", "with_it", "without")

    def __init__(self, by_key: dict[str, Grant]) -> None:
        self.by_key = by_key
        self.grants = tuple(by_key.values())
        self.without: Principal | None = None
        self.with_it: Principal | None = None


class RoleCopy(Copy):
    """Knows what users were granted while `run` runs.

    Attributes:
        malformed: Keys of records that grant nothing because they are not what they should be.
    """

    __slots__ = ("_held", "_whose", "malformed")

    def __init__(self, store: Store, *, stale_s: float = STALE_S) -> None:
        super().__init__(store, PREFIX, called="granted roles", stale_s=stale_s)
        self._whose: dict[str, User] = {}
        self._held: dict[User, _Held] = {}
        self.malformed: set[str] = set()

    def widen(self, who: Principal) -> Principal:
        """Return somebody with what they were granted by name, beside what they have."""
        held = self._held.get(who.user) if who.user is not None else None
        if held is None or self._loop_time() >= self._fresh_until_s:
            return who
        if held.without is not who or held.with_it is None:
            held.with_it = msgspec.structs.replace(who, grants=who.grants + held.grants)
            held.without = who
        return held.with_it

    # -- told by the store ---
    def take_all(self, entries: tuple[Entry, ...]) -> None:
        """Know these roles, and no others."""
        self._whose = {}
        self._held = {}
        self.malformed = set()
        for entry in entries:
            self.take(entry)

    def take(self, change: Entry | Deleted) -> None:
        """Know a role as it is now."""
        key = change.key
        self._drop(key)
        if isinstance(change, Deleted):
            return
        record = read_record(key, change.value)
        if record is None:
            self.malformed.add(key)
            _log.error("%s is no record of a granted role; it grants nothing", key)
            return
        self._whose[key] = record.user
        held = self._held.get(record.user)
        others = {} if held is None else held.by_key
        self._held[record.user] = _Held({**others, key: record.grant})

    def _drop(self, key: str) -> None:
        self.malformed.discard(key)
        user = self._whose.pop(key, None)
        if user is None:
            return
        left = {
            other: grant for other, grant in self._held.pop(user).by_key.items() if other != key
        }
        if left:
            self._held[user] = _Held(left)

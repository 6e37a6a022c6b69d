"""What makes a snapshot be there: one small object, written last, that names its data.

    PREFIX/snapshots/ID.json    which data, and the manifest
    PREFIX/files/ID/TOKEN       the files one after another, as one writer brought them

Every writer has data of its own, so two that bring one snapshot never write to one object; the
object that names data is written where there is none.
"""

import re
from typing import Final

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.manifest import ID_DIGITS, Manifest, decode, encode

__all__ = [
    "FILES",
    "LIMIT_BYTES",
    "SNAPSHOTS",
    "Published",
    "data_key",
    "key_of",
    "named_by",
    "owner_of",
]

SNAPSHOTS: Final = "snapshots/"
FILES: Final = "files/"
LIMIT_BYTES: Final = 17 << 20
"""Of the object that names data: a manifest's limit, and what is around it."""
_VERSION: Final = 1
_TOKEN: Final = re.compile(r"[0-9a-f]{16}")
_NAME: Final = re.compile(rf"{SNAPSHOTS}([0-9a-f]{{{ID_DIGITS}}})\.json")
_DATA: Final = re.compile(rf"{FILES}([0-9a-f]{{{ID_DIGITS}}})/({_TOKEN.pattern})")


class _Told(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    token: str
    manifest: msgspec.Raw


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that is there."""

    token: str
    manifest: Manifest

    @property
    def data(self) -> str:
        """Return the key of its files."""
        return data_key(self.manifest.id, self.token)

    def encode(self) -> bytes:
        """Return it as it is stored."""
        manifest = msgspec.Raw(encode(self.manifest))
        return msgspec.json.encode(_Told(version=_VERSION, token=self.token, manifest=manifest))

    @classmethod
    def decode(cls, told: bytes, *, snapshot: str, where: str) -> "Published":
        """Return what `encode` made.

        Raises:
            AgentError: It is something else, or of another snapshot.
        """
        try:
            found = msgspec.json.decode(told, type=_Told)
        except UNDECODABLE as error:
            raise AgentError(f"{where}: no snapshot: {error}", phase="manifest") from error
        if found.version != _VERSION:
            text = f"{where}: of version {found.version}, this program reads version {_VERSION}"
            raise AgentError(text, phase="manifest")
        if _TOKEN.fullmatch(found.token) is None:
            raise AgentError(f"{where}: names no data", phase="manifest")
        manifest = decode(bytes(found.manifest), where=where)
        if manifest.id != snapshot:
            text = f"{where}: the manifest is of snapshot {manifest.id}, not of this one"
            raise AgentError(text, phase="manifest")
        return cls(token=found.token, manifest=manifest)


def key_of(snapshot: str) -> str:
    """Return the key of what makes a snapshot be there."""
    return f"{SNAPSHOTS}{snapshot}.json"


def data_key(snapshot: str, token: str) -> str:
    """Return the key of one writer's data of a snapshot."""
    return f"{FILES}{snapshot}/{token}"


def named_by(key: str) -> str:
    """Return the snapshot that a key makes be there; empty where it is no such key."""
    found = _NAME.fullmatch(key)
    return found[1] if found else ""


def owner_of(key: str) -> tuple[str, str]:
    """Return snapshot and token of a key of data; empty where it is none."""
    found = _DATA.fullmatch(key)
    return (found[1], found[2]) if found else ("", "")

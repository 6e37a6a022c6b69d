"""One bucket's operations, few and typed, each with a bound on how long it takes.

Laws: a call that is not answered is repeated by the SDK, a few times with growing pauses; after
that nobody is asked for a while, and everybody is told the same reason at once, so that a store
that is away costs a node seconds, not each of its commands.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from threading import Lock
from typing import Any, Final, cast

import msgspec

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.s3.client import S3Config, connect
from inferx.exec.agent.store.s3.said import GoneError, NoAnswerError, failure, is_cut

__all__ = ["Bucket", "Part", "Stored", "Upload"]

_CUTS_MAX: Final = 4
"""How often one answer may end early before the call fails."""
_QUIET_S: Final = 10.0
"""How long nobody is asked after a call that was not answered."""
_CHUNK_BYTES: Final = 1 << 20


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An object; its key without the prefix."""

    key: str
    size_bytes: int
    tag: str
    modified_ns: int


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """An upload in parts that is not complete."""

    key: str
    id: str
    begun_ns: int


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part that the server has, and what it said of it."""

    number: int
    said: Mapping[str, Any]


class Bucket:
    """A bucket, by keys below a prefix. All methods block, and raise `AgentError`.

    Args:
        config: Where it is.
        title: What errors call it.
    """

    def __init__(self, config: S3Config, title: str) -> None:
        self.config = config
        self._title = title
        self._prefix = f"{config.prefix}/" if config.prefix else ""
        self._lock = Lock()
        self._made: object | None = None
        self._method = ""
        self._quiet_until_s = 0.0
        self._quiet = ""

    @property
    def where(self) -> str:
        """Its name and prefix, as a URL."""
        return f"s3://{self.config.bucket}/{self._prefix}".rstrip("/")

    @property
    def credentials(self) -> str:
        """Where the SDK found credentials: the kind of place, never what they are."""
        return self._method

    # -- whole objects ---
    def list(self, below: str, *, most: int = 0) -> Iterator[Stored]:
        """Yield the objects below a key, in order of keys; with `most`, that many at most."""
        more: dict[str, Any] = {"MaxKeys": most} if most else {}
        while True:
            page = self._call(
                "list_objects_v2", f"cannot list {self.where}/{below}", "get",
                Bucket=self.config.bucket, Prefix=self._prefix + below, **more,
            )  # fmt: skip
            for one in page.get("Contents", ()):
                yield self._stored(one["Key"].removeprefix(self._prefix), one["Size"], one)
            if most or not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def head(self, key: str) -> Stored:
        """Return what an object is.

        Raises:
            GoneError: There is none.
        """
        told = self._on("head_object", "look at", "get", key)
        return self._stored(key, told["ContentLength"], told)

    def get(self, key: str, *, limit_bytes: int) -> tuple[Stored, bytes]:
        """Return a small object.

        Raises:
            GoneError: There is none.
        """
        told = self._on("get_object", "read", "get", key)
        try:
            content = bytes(told["Body"].read(limit_bytes + 1))
        except Exception as error:
            raise self._failure(error, f"cannot read {self.where}/{key}", "get") from error
        finally:
            told["Body"].close()
        if len(content) > limit_bytes:
            text = f"{self._title}: {self.where}/{key} is larger than {limit_bytes:,} bytes"
            raise AgentError(text, phase="get")
        return self._stored(key, len(content), told), content

    def read(self, key: str, begin: int, size_bytes: int, check: Callable[[], None]) -> bytearray:
        """Return a part of an object; where the answer is cut, the rest is asked for again.

        Args:
            key: Whose.
            begin: Its first byte.
            size_bytes: How many; more than 0.
            check: Called now and then; raises where it is time to give up.

        Raises:
            GoneError: There is no such object.
        """
        found = bytearray()
        cuts = 0
        while len(found) < size_bytes:
            first = begin + len(found)
            told = self._on(
                "get_object", "read", "copy", key,
                Range=f"bytes={first}-{begin + size_bytes - 1}",
            )  # fmt: skip
            missing = size_bytes - len(found)
            if told["ContentLength"] != missing:
                text = (
                    f"{self._title}: {self.where}/{key} is cut short: {told['ContentLength']:,} of "
                    f"{missing:,} bytes from byte {first:,} on"
                )
                raise AgentError(text, phase="copy")
            try:
                while chunk := told["Body"].read(_CHUNK_BYTES):
                    check()
                    found += chunk
            except Exception as error:
                cuts += 1
                if not is_cut(error) or cuts >= _CUTS_MAX:
                    raise self._failure(error, f"cannot read {self.where}/{key}", "copy") from error
            finally:
                told["Body"].close()
        return found

    def put(self, key: str, content: bytes | bytearray) -> None:
        """Write an object, whatever there was."""
        self._on("put_object", "write", "copy", key, Body=content, ChecksumAlgorithm="CRC32")

    def put_new(self, key: str, content: bytes) -> None:
        """Write an object where there is none.

        Raises:
            TakenError: There is one.
        """
        self._on(
            "put_object", "write", "commit", key,
            Body=content, ChecksumAlgorithm="CRC32", IfNoneMatch="*",
        )  # fmt: skip

    def delete(self, key: str) -> None:
        """Remove an object; there is none is fine."""
        self._on("delete_object", "remove", "delete", key)

    # -- in parts ---
    def begin(self, key: str) -> str:
        """Begin an upload in parts, and return its id."""
        told = self._on("create_multipart_upload", "write", "copy", key, ChecksumAlgorithm="CRC32")
        return str(told["UploadId"])

    def part(self, key: str, upload: str, number: int, content: bytearray) -> Part:
        """Write one part, counted from 1; the server checks its checksum."""
        told = self._on(
            "upload_part", "write", "copy", key,
            UploadId=upload, PartNumber=number, Body=content, ChecksumAlgorithm="CRC32",
        )  # fmt: skip
        said = {name: told[name] for name in ("ETag", "ChecksumCRC32") if name in told}
        return Part(number=number, said=said)

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> None:
        """Make an object of all parts."""
        named = [{"PartNumber": part.number, **part.said} for part in parts]
        self._on(
            "complete_multipart_upload", "write", "copy", key,
            UploadId=upload, MultipartUpload={"Parts": named},
        )  # fmt: skip

    def abort(self, key: str, upload: str) -> None:
        """Give an upload up; the server may forget its parts.

        Raises:
            GoneError: There is none.
        """
        self._on("abort_multipart_upload", "give up", "delete", key, UploadId=upload)

    def uploads(self, below: str) -> Iterator[Upload]:
        """Yield the uploads below a key that are not complete."""
        more: dict[str, Any] = {}
        while True:
            try:
                page = self._call(
                    "list_multipart_uploads", f"cannot list uploads to {self.where}", "recover",
                    Bucket=self.config.bucket, Prefix=self._prefix + below, **more,
                )  # fmt: skip
            except GoneError:
                # What some servers say of none.
                return
            for one in page.get("Uploads", ()):
                key = one["Key"].removeprefix(self._prefix)
                yield Upload(key=key, id=one["UploadId"], begun_ns=_ns(one["Initiated"]))
            if not page.get("IsTruncated"):
                return
            more = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    # -- asking ---
    def _on(
        self, operation: str, verb: str, phase: str, key: str, **words: Any
    ) -> Mapping[str, Any]:
        what = f"cannot {verb} {self.where}/{key}"
        bucket, whole = self.config.bucket, self._prefix + key
        return self._call(operation, what, phase, Bucket=bucket, Key=whole, **words)

    def _call(self, operation: str, what: str, phase: str, **words: Any) -> Mapping[str, Any]:
        try:
            answer = getattr(self._client(), operation)(**words)
        except AgentError:
            raise
        except Exception as error:
            raise self._failure(error, what, phase) from error
        return cast("Mapping[str, Any]", answer)

    def _failure(self, error: Exception, what: str, phase: str) -> AgentError:
        """Return the error for what the SDK raised; for anything else, that itself is raised."""
        from botocore.exceptions import BotoCoreError, ClientError

        if not isinstance(error, BotoCoreError | ClientError):
            raise error
        found = failure(
            error,
            f"{self._title}: {what}",
            bucket=self.config.bucket,
            region=self.config.region,
            phase=phase,
        )
        if isinstance(found, NoAnswerError):
            with self._lock:
                self._quiet, self._quiet_until_s = str(found), time.monotonic() + _QUIET_S
                # Where there were no credentials, there may be some next time.
                self._made = None
        return found

    def _client(self) -> object:
        with self._lock:
            if time.monotonic() < self._quiet_until_s:
                raise NoAnswerError(self._quiet, phase="open")
            if self._made is None:
                self._made, self._method = connect(self.config, self._title)
            return self._made

    def _stored(self, key: str, size_bytes: int, told: Mapping[str, Any]) -> Stored:
        tag = str(told.get("ETag", "")).strip('"')
        return Stored(
            key=key, size_bytes=size_bytes, tag=tag, modified_ns=_ns(told["LastModified"])
        )


def _ns(at: datetime) -> int:
    return int(at.timestamp() * 1_000) * 1_000_000

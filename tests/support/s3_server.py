"""Real S3 servers for tests, each a process of its own on a port that the kernel chose.

rclone keeps objects as files of a folder, asks for credentials, and ignores `If-None-Match`. moto
keeps them in memory, asks for nothing, and honours it. Neither is AWS's S3.
"""

import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest
from system_parts import can_connect_tcp, free_port, until

from inferx.exec.agent.store import S3Config

__all__ = ["BUCKET", "Kind", "S3Server", "credentials", "missing_s3", "s3_server"]

Kind = Literal["rclone", "moto"]
BUCKET = "snapshots"


def missing_s3(kind: Kind) -> str:
    """Return why tests against a server cannot run here; empty if they can."""
    if find_spec("botocore") is None:
        return "needs the extra s3"
    there = _rclone() if kind == "rclone" else find_spec("moto")
    return "" if there else f"needs {kind}"


def _rclone() -> str | None:
    """Return the program, which is beside this Python where that was not activated."""
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")


@dataclass
class S3Server:
    """A server, which can be killed and started again on the same port."""

    kind: Kind
    folder: Path
    port: int = field(default_factory=free_port)
    key: str = field(default_factory=lambda: f"INFERX{secrets.token_hex(7).upper()}")
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen[bytes] | None = None
    _client: Any = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(self, *, budget_bytes: int = 1 << 30, prefix: str = "a/b") -> S3Config:
        return S3Config(
            bucket=BUCKET,
            budget_bytes=budget_bytes,
            prefix=prefix,
            region="us-east-1",
            endpoint=self.endpoint,
        )

    def start(self) -> None:
        command = (
            [
                _rclone() or "rclone", "serve", "s3", str(self.folder / "objects"), "--config", "",
                "--cache-dir", str(self.folder / "cache"), "--addr", f"127.0.0.1:{self.port}",
                "--auth-key", f"{self.key},{self.secret}",
            ]
            if self.kind == "rclone"
            else [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        )  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._up, within_s=60.0)

    def _up(self) -> bool:
        assert self.process
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return can_connect_tcp(self.port)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process:
            self.process.send_signal(how)
            self.process.wait(timeout=20)
            self.process = None

    def client(self) -> Any:
        """Return the SDK's own client, for looking at what is there."""
        from botocore.session import get_session

        if self._client is None:
            self._client = get_session().create_client(
                "s3",
                endpoint_url=self.endpoint,
                region_name="us-east-1",
                aws_access_key_id=self.key,
                aws_secret_access_key=self.secret,
            )
        return self._client

    def names(self) -> list[str]:
        """Return all keys of the bucket."""
        page = self.client().list_objects_v2(Bucket=BUCKET)
        return [one["Key"] for one in page.get("Contents", ())]

    def uploads(self) -> list[str]:
        """Return the keys of unfinished uploads."""
        from botocore.exceptions import ClientError

        try:
            page = self.client().list_multipart_uploads(Bucket=BUCKET)
        except ClientError:
            # What rclone says of none.
            return []
        return [one["Key"] for one in page.get("Uploads", ())]

    def file(self, key: str) -> Path:
        """Return where rclone has an object."""
        assert self.kind == "rclone"
        return self.folder / "objects" / BUCKET / key


def credentials(server: S3Server, patch: pytest.MonkeyPatch) -> None:
    """Have the SDK find a server's credentials in the environment, and nothing of this machine."""
    patch.setenv("AWS_ACCESS_KEY_ID", server.key)
    patch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_CONFIG_FILE", str(server.folder / "none"))
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(server.folder / "none"))
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        patch.delenv(name, raising=False)


@contextmanager
def s3_server(kind: Kind, folder: Path) -> Iterator[S3Server]:
    """Run a server with an empty bucket."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "objects").mkdir()
    server = S3Server(kind, folder)
    try:
        server.start()
        if kind == "rclone":
            (folder / "objects" / BUCKET).mkdir()
        else:
            server.client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        server.stop()

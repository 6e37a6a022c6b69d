"""A PostgreSQL of our own: its folder, its port, its process."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from system_parts import free_port, until

__all__ = ["PASSWORD", "Postgres", "missing_postgres", "postgres"]

PASSWORD = secrets.token_hex(8)
"""Of the server's one user; nothing that is written or said may hold it."""


def programs() -> Path | None:
    """Return the folder of the newest server there is: Debian keeps it out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda at: at.parts[4])
    if found:
        return found[-1].parent
    inited = shutil.which("initdb")
    return None if inited is None else Path(inited).parent


def missing_postgres() -> str:
    """Return why tests with PostgreSQL cannot run here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root"
    return "" if programs() else "needs postgresql: run tools/system-parts"


class Postgres:
    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self._folder = folder
        self._bin = bin_folder
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://inferx:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        user = pwd.getpwnam("nobody")
        for path in (self._folder, password):
            os.chown(path, user.pw_uid, user.pw_gid)
        self._run(
            "initdb", "-U", "inferx", f"--pwfile={password}", "-A", "scram-sha-256", "-N",
            "-E", "UTF8", "--locale=C", "-D", str(self._folder / "db"),
        )  # fmt: skip

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            # PostgreSQL refuses to be run by root.
            self._server = subprocess.Popen(
                [
                    self._bin / "postgres", "-D", self._folder / "db", "-p", str(self.port),
                    "-h", "127.0.0.1", "-k", self._folder, "-c", "fsync=off",
                ],
                user="nobody", group="nogroup", extra_groups=(), cwd="/", stdout=log, stderr=log,
            )  # fmt: skip
        until(self._answers, within_s=30)

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self._folder / "log").read_text()
        asked = [self._bin / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)  # At once, as in a crash.
            self._server.wait(timeout=20)
            self._server = None

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / program, *arguments], user="nobody", group="nogroup", extra_groups=(),
            cwd="/", check=True, capture_output=True,
        )  # fmt: skip


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server; not in a test's own folder, which another user cannot enter."""
    found = programs()
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="inferx-pg-"))
    server = Postgres(folder, found)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)

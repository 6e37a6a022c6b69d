"""Where an audit log is: read from one line, and a password from where nobody else looks."""

import logging
from pathlib import Path

import pytest

from inferx.core.errors import DescriptionError
from inferx.exec.clock import WallClock
from inferx.exec.identity.audit_opening import PASSWORD_VARIABLE, audit_url, open_audit
from inferx.exec.identity.audit_table import AuditDatabaseError

HIDDEN = "hunter2"


@pytest.mark.parametrize(
    ("text", "path"),
    [("sqlite:a.db", "a.db"), ("sqlite:/x/a.db", "/x/a.db"), ("sqlite:////x/a.db", "/x/a.db")],
)
def test_a_file_is_named_as_a_store_is_or_as_sqlalchemy_does(text: str, path: str):
    assert audit_url(text).database == path


def test_a_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    bare = audit_url("postgresql://ada@db:5433/log?sslmode=require")
    assert (bare.username, bare.password, bare.port) == ("ada", None, 5433)
    assert dict(bare.query) == {"sslmode": "require"}
    monkeypatch.setenv(PASSWORD_VARIABLE, "from-the-environment")
    assert audit_url("postgresql://ada@db/log").password == "from-the-environment"
    file = tmp_path / "password"
    file.write_text(f"{HIDDEN}\n")
    url = audit_url(f"postgresql://ada@db/log?password-file={file}&sslmode=require")
    assert (url.password, dict(url.query)) == (HIDDEN, {"sslmode": "require"})
    assert HIDDEN not in repr(url)


def test_two_password_files_are_one_too_many():
    with pytest.raises(DescriptionError, match="expected one"):
        audit_url("postgresql://h/d?password-file=a&password-file=b")


def test_a_server_that_is_away_is_told_and_waited_for(caplog: pytest.LogCaptureFixture):
    audit = open_audit("postgresql://ada@127.0.0.1:1/log", WallClock())
    audit.close()
    (told,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "administrative acts are refused" in told.message


def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path):
    with pytest.raises(AuditDatabaseError, match="No such file"):
        open_audit(f"sqlite:{tmp_path}/none/a.db", WallClock())

"""Options of services that say who may ask: what is wrong is told in one line, and no secret is."""

from pathlib import Path

import click
import pytest

from inferx.cli.identity_options import IdentityOptions, identity_options

STATE = ("--state", "grpc://127.0.0.1:1")
ISSUER = ("--oidc-issuer", "https://id.example.org/realms/r")
HIDDEN = "hunter2"


@pytest.mark.parametrize("command", ["gateway", "up"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (ISSUER, "no --oidc-audience"),
        (("--oidc-audience", "account"), "no --oidc-issuer"),
        (("--oidc-issuer", "http://id.example.org", "--oidc-audience", "a"), "expected https://"),
        (("--oidc-issuer", "id.example.org", "--oidc-audience", "a"), "expected https://"),
        (("--public-tenant", "../x"), "letters, digits"),
        (("--audit", f"postgresql://u:{HIDDEN}@h/d"), "a password in it"),
        (("--audit", f"postgresql://u@h/d?password={HIDDEN}"), "a password in it"),
        (("--audit", f"{HIDDEN}"), "expected sqlite:PATH or postgresql://"),
        (("--audit", "mysql://u@h/d"), "of kind 'mysql'"),
        (("--audit", "sqlite:"), "without a file"),
        (("--audit", "sqlite://x"), "without a file"),
        (("--audit", "postgresql://h:port/d"), "expected sqlite:PATH or postgresql://"),
        (("--audit", "postgresql://u@h/d?password-file=/none/x"), "No such file"),
        (("--audit", "postgresql://u@h/d?password-file=/dev/null"), "expected a password"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(call, command, words, says):
    state = STATE if command == "gateway" else ()
    status, out, err = call(command, *state, *words)
    assert status
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert says in err
    if words[-1] != HIDDEN:
        assert HIDDEN not in err


def test_up_says_to_its_gateway_what_was_said_to_it():
    said = {
        "issuers": ("https://a.example.org", "https://b.example.org"),
        "audience": "account",
        "roles_claim": "groups",
        "name_claim": "sub",
        "admin_role": "/root",
        "public": ("demo",),
    }
    heard = []

    @click.command()
    @identity_options
    def command(identity: IdentityOptions, audit: str | None):
        heard.append((identity, audit))

    options = IdentityOptions(**said)
    command(options.words(), standalone_mode=False)
    command([], standalone_mode=False)
    assert heard[0] == (options, None)
    assert heard[1][0].words() == ()
    assert {(one.name_claim, one.roles_claim) for one in options.settings()} == {
        ("sub", ("groups",))
    }


@pytest.mark.parametrize("command", ["gateway", "scheduler"])
def test_an_audit_file_that_cannot_be_used_is_told_at_the_start(call, command, tmp_path: Path):
    (tmp_path / "text").write_text("no database, but a text that is long enough to be one\n" * 40)
    for path, says in (("none/audit.db", "No such file"), ("text", "not a database")):
        where = ("--audit", f"sqlite:{tmp_path / path}", "--listen", "127.0.0.1:0")
        status, out, err = call(command, *STATE, *where)
        assert status
        assert out == ""
        assert len(err.strip().splitlines()) == 1
        assert says in err

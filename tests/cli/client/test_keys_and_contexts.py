"""Keys and contexts by command line."""

import io
import json
import sys

import pytest


def test_a_key_is_shown_once_and_opens_what_it_is_for(cluster, call, good, stated, monkeypatch):
    good("apply", "-f", stated.write("f"))
    place = ("--tenant", stated.tenant)
    status, out, err = call("keys", "create", "reader", *place, "--level", "read")
    key = out.strip()
    assert (status, key[:3], err.count("\n")) == (0, "ix_", 1)
    (row,) = json.loads(good("keys", "list", *place, "-o", "json"))
    assert (row["label"], row["level"], row["tenant"]) == ("reader", "read", stated.tenant)
    assert key not in json.dumps(row)
    assert "good" in good("keys", "list", *place)
    monkeypatch.setenv("INFERX_API_KEY", key)
    name = f"function/{stated.tenant}/chat/f"
    assert good("list", "functions", stated.tenant, "-o", "name") == f"{name}\n"
    status, _, err = call("delete", "fn", f"{stated.tenant}/chat/f")
    assert (status, err.count("\n")) == (2, 1)
    monkeypatch.setenv("INFERX_API_KEY", cluster.key)
    assert good("keys", "revoke", "reader", *place) == f"key {row['id']} revoked\n"
    assert "revoked" in good("keys", "list", *place)
    assert call("keys", "revoke", "reader", *place)[0] == 2


@pytest.mark.usefixtures("cluster")
def test_the_words_of_another_tool_make_keys(call, good, stated):
    good("apply", "-f", stated.write("f"))
    restrict = ("--restrict-tenant", stated.tenant, "--restrict-namespace", "chat")
    made = call("apikey", "create", "ci", *restrict, "--access-level", "inference")
    assert made[0] == 0
    (row,) = json.loads(good("apikey", "list", "--restrict-tenant", stated.tenant, "-o", "json"))
    assert (row["label"], row["namespace"], row["level"]) == ("ci", "chat", "inference")
    assert good("apikey", "delete", "ci", *restrict) == f"key {row['id']} revoked\n"
    for words in (("ci", "ada"), ("ci", "--username", "bob")):
        assert call("apikey", "create", *words, *restrict)[0] == 0
    listed = json.loads(good("apikey", "list", "--restrict-tenant", stated.tenant, "-o", "json"))
    assert {row["label"] for row in listed} == {"ci", "ci (ada)", "ci (bob)"}
    assert call("apikey", "delete", "ci", "ada", *restrict)[0] == 0
    assert call("apikey", "delete", "ci", "ada", *restrict)[0] == 2


@pytest.mark.usefixtures("cluster")
def test_a_key_that_runs_out_says_when(call, good, stated):
    good("apply", "-f", stated.write("f"))
    place = ("--tenant", stated.tenant)
    assert call("keys", "create", "brief", *place, "--expires-in-days", "2")[0] == 0
    assert good("keys", "list", *place).splitlines()[1].split()[-2] in {"1d", "2d"}


def test_a_context_is_asked_until_another_is(running, call, good, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{running.key}\n"))
    made = good("context", "set", "here", "--server", running.gateway, "--key-file", "-")
    assert made == f"context here: {running.gateway}, in use\n"
    assert call("list", "tenants")[0] == 0
    good("context", "set", "away", "--server", "http://127.0.0.1:1")
    good("context", "use", "away")
    assert call("list", "tenants")[0] == 2
    assert call("list", "tenants", "--context", "here")[0] == 0
    listed = good("context", "list")
    assert running.key not in listed
    assert [line.split()[-1] for line in listed.splitlines()] == ["KEY", "yes", "no"]
    (tmp_path / "contexts.toml").chmod(0o644)
    status, _, err = call("list", "tenants")
    assert (status, "chmod 600" in err, err.count("\n")) == (2, True, 1)


def test_there_is_no_option_for_a_key(call):
    for words in (("list", "tenants"), ("context", "set", "x")):
        status, _, err = call(*words, "--key", "ix_secret")
        assert (status, "No such option" in err) == (2, True)


def test_a_shell_that_asks_is_told_commands_and_types(good, monkeypatch):
    for words, told in (("inferx contex", "context"), ("inferx get funcp", "funcpolicy")):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        monkeypatch.setenv("_INFERX_COMPLETE", "bash_complete")
        assert good() == f"plain,{told}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_how_to_complete(good, shell):
    assert "_INFERX_COMPLETE" in good("completion", shell)

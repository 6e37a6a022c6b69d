"""Roles by command line, by our words and by another tool's."""

import json

import pytest
import yaml


def test_a_role_is_granted_listed_and_revoked(cluster, call, good, stated, issuer):
    good("apply", "-f", stated.write("f"))
    tenant = stated.tenant
    told = good("grant", "namespace", "user", "ada@example.org", tenant, "chat")
    assert told == f"ada@example.org of {issuer} is user of namespace/{tenant}/chat\n"
    good("grant", "tenant", "admin", "bob", tenant, "--issuer", issuer)
    (row,) = json.loads(good("namespaceusers", "user", tenant, "chat", "-o", "json"))
    assert (row["username"], row["issuer"], row["by"][:4]) == ("ada@example.org", issuer, "key:")
    assert yaml.safe_load(good("namespaceusers", "user", f"{tenant}/chat", "-o", "yaml")) == [row]
    assert good("tenantusers", "admin", tenant, "-o", "name") == "bob\n"
    head, line = good("tenantusers", "admin", tenant).splitlines()
    assert head.split() == ["USERNAME", "ISSUER", "BY", "AGE"]
    assert line.split()[:2] == ["bob", issuer]
    assert json.loads(good("tenantusers", "user", tenant, "-o", "json")) == []
    told = good("revoke", "namespace", "user", "ada@example.org", tenant, "chat")
    assert told == f"ada@example.org is no longer user of namespace/{tenant}/chat\n"
    # What is not there is exit status 1, as everywhere.
    status, _, err = call("revoke", "namespace", "user", "ada@example.org", tenant, "chat")
    assert (status, err.count("\n")) == (1, 1)


def test_who_asks_is_told_what_they_may_do(cluster, call, good, stated, monkeypatch):
    good("apply", "-f", stated.write("f"))
    assert good("roles").splitlines()[1].split() == ["full", "*", "*"]
    words = ("--tenant", stated.tenant, "--level", "read")
    monkeypatch.setenv("INFERX_API_KEY", call("keys", "create", "reader", *words)[1].strip())
    told = [{"level": "read", "tenant": stated.tenant, "namespace": "*"}]
    assert json.loads(good("roles", "-o", "json")) == told
    assert good("roles", "-o", "name") == f"read {stated.tenant} *\n"
    for words in (("grant", "tenant", "user", "ada"), ("tenantusers", "user")):
        status, _, err = call(*words, stated.tenant)
        assert (status, "no right" in err, err.count("\n")) == (2, True, 1)
    monkeypatch.delenv("INFERX_API_KEY")
    status, _, err = call("roles")
    assert (status, "INFERX_API_KEY" in err) == (2, True)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("grant", "cluster", "user", "ada", "t"), "cluster"),
        (("grant", "tenant", "owner", "ada", "t"), "owner"),
        (("grant", "tenant", "user", "ada", "*"), "expected"),
        (("grant", "tenant", "user", "ada", "system"), "a tenant's name"),
        (("grant", "tenant", "user", "ada", "t", "n"), "expected NAME"),
        (("grant", "namespace", "user", "ada", "t"), "expected TENANT/NAMESPACE"),
        (("grant", "tenant", "user", "", "t"), "1 to 256 printable"),
        (("grant", "tenant", "user", "ada", "t", "--issuer", "https://a.test"), "not taken"),
        (("grant", "tenant", "user", "ada"), "TENANT"),
        (("tenantusers", "owner", "t"), "owner"),
    ],
)
def test_what_cannot_be_granted_is_told_in_one_line(call, words, says):
    status, out, err = call(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert says in err


@pytest.mark.parametrize("command", ["grant", "revoke", "tenantusers", "namespaceusers", "roles"])
def test_help_has_an_example_and_shells_complete_the_command(good, monkeypatch, command):
    assert f"inferx {command}" in good(command, "--help").partition("Example")[2]
    monkeypatch.setenv("COMP_WORDS", f"inferx {command[:-1]}")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("_INFERX_COMPLETE", "bash_complete")
    assert f"plain,{command}" in good()


def test_a_shell_completes_scopes_and_roles(good, monkeypatch):
    for words, told in (("inferx grant name", "namespace"), ("inferx grant tenant ad", "admin")):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        monkeypatch.setenv("_INFERX_COMPLETE", "bash_complete")
        assert good() == f"plain,{told}\n"

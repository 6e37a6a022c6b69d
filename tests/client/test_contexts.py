"""Which cluster is asked, and with whose key."""

import pytest

from inferx.client.contexts import (
    Context,
    Contexts,
    chosen,
    contexts_path,
    read_contexts,
    write_contexts,
)
from inferx.client.errors import ClientError

LAB = Context(server="http://10.0.0.1:4000", key="ix_lab", tenant="acme")
HOME = Context(server="http://10.0.0.2:4000", key="ix_home")


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("INFERX_CONTEXTS", str(tmp_path / "inferx" / "context.toml"))
    write_contexts(contexts_path(), Contexts(current="lab", named={"lab": LAB, "home": HOME}))
    return contexts_path()


def test_what_is_written_is_read_again(file):
    assert read_contexts(file) == Contexts(current="lab", named={"lab": LAB, "home": HOME})
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in file.parent.iterdir()] == ["context.toml"]


def test_texts_that_toml_would_read_otherwise_are_kept(file):
    odd = Context(server='http://h:1/"\\', key="é\t")
    write_contexts(file, Contexts(named={"a.b": odd}))
    assert read_contexts(file).named == {"a.b": odd}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_file_that_others_can_reach_is_refused(file, mode):
    file.chmod(mode)
    with pytest.raises(ClientError, match=r"expected 0600.*chmod 600"):
        read_contexts(file)


def test_nothing_is_stated_anywhere(file):
    file.unlink()
    assert chosen(None, None, {}) == Context(server="http://127.0.0.1:4000")


def test_the_environment_comes_before_the_context_in_use():
    environment = {"INFERX_SERVER": "http://h:1", "INFERX_API_KEY": "ix_e"}
    assert chosen(None, None, {}) == LAB
    assert chosen(None, None, environment) == Context(server="http://h:1", key="ix_e")
    assert chosen(None, None, {"INFERX_API_KEY": "ix_e"}).key == "ix_e"


def test_another_tool_s_name_for_the_server_is_taken_where_ours_is_not_there():
    environment = {"INFX_GATEWAY_URL": "http://theirs:1"}
    assert chosen(None, None, environment).server == "http://theirs:1"
    assert chosen(None, None, environment | {"INFERX_SERVER": ""}).server == "http://theirs:1"
    environment["INFERX_SERVER"] = "http://ours:1"
    assert chosen(None, None, environment).server == "http://ours:1"
    assert chosen(None, "home", {"INFX_GATEWAY_URL": "http://theirs:1"}) == HOME
    # No context's key goes there.
    assert chosen(None, None, {"INFX_GATEWAY_URL": "http://theirs:1"}).key == ""


def test_a_context_that_is_named_comes_before_the_environment():
    environment = {"INFERX_SERVER": "http://h:1", "INFERX_API_KEY": "ix_e"}
    assert chosen(None, "home", environment) == HOME
    with pytest.raises(ClientError, match="there are: lab, home"):
        chosen(None, "work", {})


def test_a_context_s_key_goes_to_its_own_server_alone():
    assert chosen("http://elsewhere:1", None, {}).key == ""
    assert chosen("http://elsewhere:1", "home", {}).key == ""
    assert chosen(None, None, {"INFERX_SERVER": "http://elsewhere:1"}).key == ""
    assert chosen("http://10.0.0.1:4000/", None, {}).key == "ix_lab"

"""What words of a command line name."""

import pytest

from inferx.client.errors import ClientError
from inferx.client.names import Name, Place, name_of, place_of, type_of


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("function", "function"),
        ("functions", "function"),
        ("fn", "function"),
        ("policies", "funcpolicy"),
        ("ns", "namespace"),
        ("nodes", "node_info"),
        ("funcstatus", "funcstatus"),
    ],
)
def test_a_type_is_named_in_full_short_or_in_the_plural(word, kind):
    assert type_of(word) == kind


def test_another_type_is_refused_with_those_that_there_are():
    with pytest.raises(ClientError, match=r"'funtcion'; expected one of tenant.*mean function\?"):
        type_of("funtcion")


@pytest.mark.parametrize(
    ("kind", "words", "name"),
    [
        ("function", ["acme/chat/llama"], ("acme", "chat", "llama")),
        ("function", ["acme", "chat", "llama"], ("acme", "chat", "llama")),
        ("function", ["chat/llama"], ("home", "chat", "llama")),
        ("namespace", ["acme/chat"], ("acme", "system", "chat")),
        ("namespace", ["chat"], ("home", "system", "chat")),
        ("namespace", ["acme", "system", "chat"], ("acme", "system", "chat")),
        ("tenant", ["acme"], ("system", "system", "acme")),
        ("tenant", ["system", "system", "acme"], ("system", "system", "acme")),
    ],
)
def test_a_name_is_one_word_or_several(kind, words, name):
    assert name_of(kind, words, tenant="home") == Name(kind, *name)


@pytest.mark.parametrize(
    "words", [["llama"], ["chat", "llama"], ["a/b/c/d"], ["acme//llama"], [""]]
)
def test_a_name_that_is_short_of_a_part_is_refused(words):
    with pytest.raises(ClientError, match="expected"):
        name_of("function", words)


def test_a_place_may_leave_everything_out():
    assert place_of("function", []) == Place()
    assert place_of("function", [], tenant="home") == Place("home")
    assert place_of("function", ["acme"], tenant="home") == Place("acme")
    assert place_of("function", ["acme", "chat"]) == place_of("function", ["acme/chat"])
    assert place_of("tenant", ["system", "system"]) == Place()
    with pytest.raises(ClientError, match="TENANT/NAMESPACE"):
        place_of("function", ["acme/chat/llama"])

"""Objects by command line, at a cluster that is up."""

import json

import pytest
import yaml


@pytest.mark.usefixtures("cluster")
def test_applying_twice_is_applying_once_and_makes_room_first(good, stated):
    file, tenant = stated.write("f", "g"), stated.tenant
    assert good("apply", "-f", file).splitlines() == [
        f"tenant/{tenant} created (for function/{tenant}/chat/f)",
        f"namespace/{tenant}/chat created (for function/{tenant}/chat/f)",
        f"function/{tenant}/chat/f created",
        f"function/{tenant}/chat/g created",
    ]
    unchanged = [f"function/{tenant}/chat/{name} unchanged" for name in "fg"]
    assert good("apply", "-f", file).splitlines() == unchanged
    stated.write("f", "g", commands=["--model", "other"])
    updated = [f"function/{tenant}/chat/{name} updated" for name in "fg"]
    assert good("apply", "-f", file).splitlines() == updated
    limits = json.loads(good("get", "tenant", tenant, "-o", "json"))["object"]["spec"]["limit"]
    assert limits["max_funccount"] == 1000


@pytest.mark.usefixtures("cluster")
def test_what_is_got_can_be_applied(good, stated, tmp_path):
    good("apply", "-f", stated.write("f"))
    for form in ("json", "yaml"):
        text = good("get", "function", f"{stated.tenant}/chat/f", "-o", form)
        file = tmp_path / f"again.{form}"
        file.write_text(text)
        assert good("apply", "-f", file).endswith("chat/f unchanged\n")


@pytest.mark.usefixtures("cluster")
def test_lists_are_of_a_place_and_of_labels(good, stated):
    good("apply", "-f", stated.write("f", "g"))
    place = f"{stated.tenant}/chat"
    names = f"function/{place}/f\nfunction/{place}/g\n"
    assert good("list", "functions", place, "-o", "name") == names
    assert good("list", "fn", stated.tenant, "chat", "-o", "name") == names
    assert good("list", "fn", place, "-l", "team=g", "-o", "name") == f"function/{place}/g\n"
    head, first, _ = good("list", "fn", stated.tenant).splitlines()
    assert head.split() == ["TYPE", "TENANT", "NAMESPACE", "NAME", "LABELS", "REVISION"]
    assert first.split()[:5] == ["function", stated.tenant, "chat", "f", "team=f"]
    assert {one["name"] for one in yaml.safe_load(good("list", "fn", place, "-o", "yaml"))} == {
        "f",
        "g",
    }


@pytest.mark.usefixtures("cluster")
def test_what_is_not_there_exits_with_1_and_one_line(call, good, stated):
    good("apply", "-f", stated.write("f"))
    for words in (("get", "fn"), ("delete", "fn"), ("wait", "--for", "idle")):
        status, out, err = call(*words, f"{stated.tenant}/chat/none")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("inferx: ")
        assert "none" in err


@pytest.mark.usefixtures("cluster")
def test_deleting_what_has_something_in_it_takes_a_word_more(call, good, stated):
    good("apply", "-f", stated.write("f"))
    namespace = f"{stated.tenant}/chat"
    status, _, err = call("delete", "ns", namespace)
    assert (status, err.count("\n")) == (2, 1)
    assert err.endswith(" (--cascade)\n")
    assert good("delete", "ns", namespace, "--cascade") == f"namespace/{namespace} deleted\n"
    assert good("list", "fn", stated.tenant, "-o", "name") == ""
    assert good("delete", "tenant", stated.tenant) == f"tenant/{stated.tenant} deleted\n"


@pytest.mark.usefixtures("cluster")
def test_an_update_needs_the_revision_that_was_read(call, good, stated, tmp_path):
    file = stated.write("f")
    good("apply", "-f", file)
    status, _, err = call("update", file)
    assert (status, "no revision" in err) == (2, True)
    read = json.loads(good("get", "fn", f"{stated.tenant}/chat/f", "-o", "json"))
    read["labels"] = {"team": "new"}
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(read))
    assert good("update", changed) == f"function/{stated.tenant}/chat/f updated\n"
    assert call("update", changed)[0] == 2
    assert good("update", changed, "--force").endswith("updated\n")


@pytest.mark.usefixtures("cluster")
def test_the_verbs_of_another_tool_work_in_its_order(call, good, stated):
    tenant = stated.tenant
    good("apply", "-f", stated.write("f"))
    file = stated.write("h")
    assert good("create", file) == f"function/{tenant}/chat/h created\n"
    assert call("create", file)[0] == 2
    words = ("function", tenant, "chat", "h")
    assert json.loads(good("get", *words, "-o", "json"))["name"] == "h"
    assert "h" in good("list", "function", tenant, "chat")
    assert good("delete", *words) == f"function/{tenant}/chat/h deleted\n"


@pytest.mark.usefixtures("cluster")
def test_what_the_cluster_refuses_is_told_with_its_file(call, stated):
    file = stated.write("f", imagge="x")
    status, out, err = call("apply", "-f", file)
    assert (status, err.count("\n")) == (2, 1)
    assert f"inferx: {file}: " in err
    assert "imagge" in err
    assert "function" not in out.replace("for function", "")


def test_nobody_is_let_in(cluster, call, monkeypatch):
    monkeypatch.setenv("INFERX_API_KEY", "ix_wrong")
    status, out, err = call("list", "tenants")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "INFERX_API_KEY" in err
    assert "ix_wrong" not in err
    assert cluster.key not in err


def test_a_gateway_that_is_not_there_is_one_line(call):
    status, out, err = call("list", "tenants", "--server", "http://127.0.0.1:1")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "http://127.0.0.1:1" in err

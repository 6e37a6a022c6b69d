"""Objects in files."""

import base64
import io
import json
import sys

import pytest

from inferx.client.errors import ClientError
from inferx.client.files import read_objects
from inferx.core.errors import DescriptionError

FUNCTION = {"type": "function", "tenant": "t", "namespace": "n", "name": "f", "object": {}}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_what_others_need_comes_first(tmp_path):
    write(tmp_path / "a.json", json.dumps(FUNCTION))
    write(
        tmp_path / "deep" / "z.yaml",
        "type: namespace\ntenant: t\nname: n\n---\ntype: tenant\nname: t\n---\n",
    )
    write(tmp_path / "README", "not one of them")
    found = read_objects([str(tmp_path)])
    assert [str(one.name) for one in found] == ["tenant/t", "namespace/t/n", "function/t/n/f"]
    assert found[0]["namespace"] == found[1]["namespace"] == "system"
    assert found[2].source == str(tmp_path / "a.json")


def test_a_list_in_a_file_and_standard_input(tmp_path, monkeypatch):
    two = [FUNCTION, FUNCTION | {"name": "g"}]
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(two).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert [one.name.name for one in read_objects(["-"])] == ["f", "g"]


def test_the_older_name_of_the_type_is_the_type(tmp_path):
    one = {"objType" if key == "type" else key: value for key, value in FUNCTION.items()}
    found = read_objects([write(tmp_path / "f.json", json.dumps(one))])
    assert dict(found[0]) == FUNCTION


def test_files_that_a_function_mounts_are_read_beside_it(tmp_path):
    write(tmp_path / "chat.jinja", "{{ messages }}")
    mounts = [
        {"src_path": "chat.jinja", "target_path": "/chat.jinja"},
        {"src_path": "elsewhere", "target_path": "/x", "data": "eA=="},
    ]
    one = FUNCTION | {"object": {"spec": {"mountfiles": mounts}}}
    (found,) = read_objects([write(tmp_path / "f.json", json.dumps(one))])
    inlined = found["object"]["spec"]["mountfiles"]
    assert base64.b64decode(inlined[0]["data"]) == b"{{ messages }}"
    assert inlined[1]["data"] == "eA=="
    mounts[0]["src_path"] = "gone"
    with pytest.raises(ClientError, match=r"mountfiles: .*gone: no such file"):
        read_objects([write(tmp_path / "f.json", json.dumps(one))])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no object in it"),
        ("[]", "no object in it"),
        ("- 7", "the number 7; expected an object"),
        ("type: pod", "expected one of tenant"),
        ("type: function\ntenant: t\nname: f", "namespace: null"),
        ("type: tenant\nname: ../x", "name: the text '../x'"),
        ("a: [", ":1: .*expected YAML"),
        ("a: !!python/object:os.system {}", "expected YAML"),
    ],
)
def test_a_file_that_states_no_object_is_refused_in_one_line(tmp_path, text, told):
    with pytest.raises(ClientError, match=told):
        read_objects([write(tmp_path / "f.yaml", text)])


def test_json_s_faults_have_a_line(tmp_path):
    with pytest.raises(DescriptionError, match=r"f.json:2: .*JSON"):
        read_objects([write(tmp_path / "f.json", '{"type": 1,\n]')])


def test_an_object_that_is_stated_twice_is_refused_with_both_places(tmp_path):
    one, other = (write(tmp_path / name, json.dumps(FUNCTION)) for name in ("a.json", "b.json"))
    with pytest.raises(ClientError, match=r"b.json: function/t/n/f a second time, after .*a.json"):
        read_objects([one, other])


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(ClientError, match="no such file"):
        read_objects([str(tmp_path / "none.json")])
    with pytest.raises(ClientError, match="a folder with 0 of them"):
        read_objects([str(tmp_path)])

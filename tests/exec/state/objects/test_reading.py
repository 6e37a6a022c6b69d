"""Objects as they are read, checked and written down; each fault is told in one line."""

import base64
import json
from pathlib import Path

import pytest
from cluster_objects import SPEC, function, namespace, node, policy, tenant
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.exec.state.objects.envelope import (
    DataObject,
    decode,
    encode,
    key_of_store,
    parse_object,
)
from inferx.exec.state.objects.kinds import KINDS, checked
from inferx.exec.state.objects.selector import Selection, parse_labels
from inferx.exec.state.store import Entry

FILES = Path(__file__).parents[4] / "deploy" / "functions"


def _stored(one: DataObject) -> DataObject:
    return decode(Entry(one.key.path, encode(one), 7))


@pytest.mark.parametrize("path", sorted(FILES.glob("*.json")), ids=lambda path: path.stem)
def test_our_function_files_are_stored_as_they_are_written(path: Path) -> None:
    read = checked(parse_object(path.read_text(), str(path)))
    assert read.object == json.loads(path.read_text())["object"]
    assert checked(_stored(read)) == _stored(read)
    assert _stored(read).revision == 7


_SLOPPY = {
    "texts for numbers": {
        "type": "function", "tenant": "public", "namespace": "a", "name": "b",
        "object": {"spec": SPEC | {"sample_query": {
            "apiType": "text2text", "prompt": "Seattle is a", "path": "v1/completions",
            "body": {"model": "b", "max_tokens": "1000", "temperature": "0", "stream": "true"},
        }}},
    },
    "no object": {
        "type": "function", "tenant": "t1", "namespace": "ns1", "name": "models--Qwen--Qwen2.5-7B",
        "spec": {
            key: SPEC[key] for key in ("image", "commands", "resources")
        } | {
            "endpoint": {"path": "/v1/completions", "port": 8000, "schema": "Http"},
            "probe": {"path": "/health", "port": 8000, "schema": "Http"},
            "api_type": {"openai": {"name": "Qwen/Qwen2.5-7B", "max_tokens": 1000}},
        },
    },
    "bookkeeping": {
        "objType": "function", "tenant": "a", "namespace": "b", "name": "c", "labels": [],
        "annotations": {}, "channelRev": 0, "srcEpoch": 0, "revision": 12,
        "object": {
            "spec": SPEC | {"version": 3},
            "status": {"state": "Normal", "snapshotingFailureCnt": 0},
        },
    },
    "memory": {
        "type": "function", "tenant": "a", "namespace": "b", "name": "c",
        "object": {"spec": SPEC | {
            "standby": {"gpu": "Mem", "pageable": "File", "pinned": "Blob"},
            "policy": {"Link": {
                "objType": "funcpolicy", "namespace": "system", "name": "funcpolicy_2GPU",
            }},
        }},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", _SLOPPY)
def test_files_of_the_reference_are_read_however_they_are_shaped(name: str) -> None:
    document = _SLOPPY[name]
    read = checked(parse_object(json.dumps(document), "f.json"))
    wrapped = document.get("object", document)
    assert isinstance(wrapped, dict)
    spec = dict(wrapped["spec"])
    spec.pop("version", None)
    assert read.object == {"spec": spec}
    assert checked(_stored(read)) == _stored(read)


def test_what_is_not_said_of_a_tenant_is_filled_in() -> None:
    assert checked(tenant("t1", max_gpu=8)).object == {
        "spec": {
            "limit": {
                "max_funccount": 10,
                "allow_mem_standby": False,
                "min_replica_cap": 0,
                "max_gpu": 8,
                "max_replica": 2,
                "max_standby": 1,
                "max_queue_len": 100,
                "max_requests_per_s": 0,
                "max_tokens_per_s": 0,
                "max_concurrency": 0,
                "burst_s": 10,
            },
            "quota_exempt": False,
        },
        "status": {"disable": False, "quota_exceeded": False},
    }


def test_a_policy_is_stored_flat() -> None:
    nested = policy("t1/ns/p", spec={"parallel": 8})
    assert checked(nested).object == {"parallel": 8}
    assert checked(policy("t1/ns/p", parallel=8)) == checked(nested)


def _status(**body: object) -> DataObject:
    return DataObject(type="funcstatus", tenant="t", namespace="n", name="f", object=body)


_FILES_TOO_LARGE = base64.b64encode(bytes(1_000_001)).decode()
_FAULTS: list[tuple[DataObject, str]] = [
    (function("t/n/f", image=3), "function/t/n/f: object.spec.image: the number 3; expected text"),
    (
        function("t/n/f", resources=SPEC["resources"] | {"GPU": {"Count": "1", "vRam": 10}}),
        "object.spec.resources.GPU.Count: the text '1'; expected a whole number from 1 to 8",
    ),
    (
        function("t/n/f", comands=[]),
        "function/t/n/f: object.spec.comands: an unknown key; expected one of",
    ),
    (function("t/n/f", envs=[["A"]]), "object.spec.envs: a list at 0; expected a list of [name"),
    (
        function("t/n/f", commands=[], image=""),
        "object.spec.image: the text ''; expected text",
    ),
    (
        function("t/n/f", commands=[], image="host"),
        "object.spec.commands: nothing to run; expected a program and its arguments",
    ),
    (
        function("t/n/f", mountfiles=[{"target_path": "/a", "data": "%"}]),
        "object.spec.mountfiles[0].data: the text '%'; expected the file's bytes in base64",
    ),
    (
        function("t/n/f", mountfiles=[{"target_path": "a", "data": ""}]),
        "object.spec.mountfiles[0].target_path: the text 'a'; expected a path from /",
    ),
    (
        function("t/n/f", mountfiles=[{"target_path": "/a", "data": _FILES_TOO_LARGE}]),
        "object.spec.mountfiles: 1000001 bytes of files; expected at most 1000000 in all",
    ),
    (
        function("t/n/f", commands=["x" * 1_400_000]),
        "bytes; expected at most 1380000",
    ),
    (
        function("t/n/f", policy={"Obj": {"min_replica": 2}}),
        "object.spec.policy.Obj.min_replica: the number 2; expected at most max_replica",
    ),
    (
        function("t/n/f", policy={"Link": {"objType": "funcpolicy", "namespace": "n"}}),
        "object.spec.policy.Link.name: nothing; expected text",
    ),
    (function("t/n/a b"), "name: the text 'a b'; expected 1 to 128 letters, digits and - _ ."),
    (function("t/n/.."), "name: the text '..'; expected 1 to 128 letters, digits and - _ ., and"),
    (function("t/n/.f"), "name: the text '.f'; expected 1 to 128 letters, digits and - _ ., and"),
    (function("t/n/" + "x" * 129), "expected 1 to 128 letters"),
    (function("t\n/n/f"), "object: tenant: the text 't\\n'; expected 1 to 128 letters"),
    (function("system/n/f"), "tenant: the text 'system'; expected another name"),
    (function("t/system/f"), "namespace: the text 'system'; expected another name"),
    (
        function("t/n/f", labels={"a b": "c"}),
        "labels: the text 'a b'; expected names of 1 to 128 letters",
    ),
    (function("t/n/f", labels={"a": "\n"}), "labels.a: the text '\\n'; expected at most 256"),
    (
        function("t/n/f", labels={f"l{i}": "" for i in range(65)}),
        "labels: 65 labels; expected at most 64",
    ),
    (policy("t/n/p", paralel=1), "object.paralel: an unknown key; expected one of"),
    (policy("t/n/p", parallel=0), "object.parallel: the number 0; expected a whole number from 1"),
    (tenant("t", max_gpus=1), "object.spec.limit.max_gpus: an unknown key; expected one of"),
    (tenant("t", max_gpu=-1), "object.spec.limit.max_gpu: the number -1; expected a whole number"),
    (
        tenant("t", allow_mem_standby="yes"),
        "object.spec.limit.allow_mem_standby: the text 'yes'; expected true or false",
    ),
    (tenant("system"), "tenant/system/system/system: name: the text 'system'; expected another"),
    (namespace("t", "system"), "name: the text 'system'; expected another name"),
    (namespace("system", "n"), "tenant: the text 'system'; expected another name"),
    (
        DataObject(type="namespace", tenant="t", namespace="n", name="n", object={}),
        "namespace: the text 'n'; expected one of system",
    ),
    (
        DataObject(type="tenant", tenant="t", namespace="system", name="t", object={}),
        "tenant: the text 't'; expected one of system",
    ),
    (
        DataObject(type="pod", tenant="t", namespace="n", name="p", object={}),
        "pod/t/n/p: type: the text 'pod'; expected one of tenant, namespace, function",
    ),
    (
        DataObject(type="functoin", tenant="t", namespace="n", name="p", object={}),
        "; did you mean function?",
    ),
    (
        DataObject(
            type="function", tenant="t", namespace="n", name="f",
            annotations={"a": "x" * 262_144}, object={"spec": SPEC},
        ),
        "annotations: 262145 bytes; expected at most 262144",
    ),
    (_status(), "object.version: nothing; expected a whole number"),
    (_status(version=1, state="failed"), "object.state: the text 'failed'; expected one of Fail,"),
    (node("n1", podMgrPort=0), "object.podMgrPort: the number 0; expected a whole number from 1"),
    (node("n1", nodeIp=""), "object.nodeIp: the text ''; expected text"),
    (node("n1", cidr=3), "object.cidr: the number 3; expected text"),
    (node("n1", resources=[]), "object.resources: an empty list; expected a table"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "message"), _FAULTS)
def test_a_fault_is_one_line_with_its_place(one: DataObject, message: str) -> None:
    with pytest.raises(DescriptionError) as told:
        checked(one)
    assert message in str(told.value)
    assert len(str(told.value).splitlines()) == 1


_PLACE = '"tenant": "t", "namespace": "n", "name": "f"'
_TEXT_FAULTS = [
    ("{", "f.json:1: "),
    ("[]", "f.json:1: an empty list; expected a table"),
    ('{"type": "function"}', "f.json:1: tenant: nothing; expected text"),
    (
        '{"type": "function", "tenant": "t", "namespace": "n",\n "name": "f",\n "spcs": {}}',
        "f.json:1: object: nothing; expected what the object says",
    ),
    (
        f'{{"type": "function", {_PLACE},\n "object": {{}},\n "lables": {{}}}}',
        "f.json:3: lables: an unknown key; expected one of",
    ),
    (
        f'{{"type": "x", {_PLACE}, "object": {{}},\n "labels": {{"a": 3}}}}',
        "f.json:2: labels.a: the number 3; expected text",
    ),
    (
        '{"type": "x", "tenant": "t", "namespace": "n", "name": "f", "object": {}, "labels": "a"}',
        "f.json:1: labels: the text 'a'; expected a table of texts",
    ),
]


@pytest.mark.parametrize(("text", "message"), _TEXT_FAULTS)
def test_a_fault_of_a_file_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(DescriptionError) as told:
        parse_object(text, "f.json")
    assert str(told.value).startswith(message)


def test_an_empty_text_is_as_good_as_none_where_none_will_do() -> None:
    assert checked(node("n", naIp="")) == checked(node("n"))


def test_a_megabyte_of_files_fits() -> None:
    data = base64.b64encode(bytes(1_000_000)).decode()
    checked(function("t/n/f", mountfiles=[{"target_path": "/a", "data": data}]))


def test_keys_name_a_type_that_is_known_or_none() -> None:
    assert key_of_store("/registry/uid") is None
    assert key_of_store("/registry/ledger/t1") is None
    assert key_of_store("/other/function/t/n/f") is None
    for kind in KINDS:
        key = key_of_store(f"/registry/{kind}/t/n/f")
        assert key is not None
        assert key.path == f"/registry/{kind}/t/n/f"


def test_prefixes_end_where_a_name_ends() -> None:
    assert Selection("function").prefix == "/registry/function/"
    assert Selection("function", "t1").prefix == "/registry/function/t1/"
    assert Selection("function", "t1", "ns").prefix == "/registry/function/t1/ns/"


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ("", {}, True),
        ("a=1", {"a": "1"}, True),
        ("a==1", {"a": "2"}, False),
        ("a=", {"a": ""}, True),
        ("a!=1", {}, True),
        ("a!=1", {"a": "1"}, False),
        ("a", {"a": ""}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("!a", {"a": "x"}, False),
        ("team/x=1, b=2", {"team/x": "1", "b": "2"}, True),
        ("a=1,b=2", {"a": "1"}, False),
    ],
)
def test_labels_select(text: str, labels: dict[str, str], holds: bool) -> None:
    selection = Selection("function", labels=parse_labels(text))
    assert selection.takes(function("t/n/f", labels=labels)) is holds


@pytest.mark.parametrize("text", ["=a", "!a=b", "a=b=c", "a b", ",".join(["a"] * 33)])
def test_a_selector_that_is_none_is_told(text: str) -> None:
    with pytest.raises(DescriptionError, match=r"label selector: .*; expected at most 32 of"):
        parse_labels(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 1 << 40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_PATHS = [
    (key, inner)
    for key, value in {**SPEC, "policy": {"Obj": {}}, "standby": {}, "sample_query": {}}.items()
    for inner in (None, *(value if isinstance(value, dict) else ()))
]


@given(where=st.sampled_from(_PATHS), junk=_JSON)
def test_whatever_stands_in_a_function_is_taken_or_told(
    where: tuple[str, str | None], junk: object
) -> None:
    key, inner = where
    one = function("t/n/f", **({key: junk} if inner is None else {}))
    if inner is not None:
        one = function("t/n/f", **{key: SPEC.get(key, {}) | {inner: junk}})
    try:
        read = checked(one)
    except DescriptionError as fault:
        told = str(fault)
    else:
        assert checked(_stored(read)) == _stored(read)
        return
    assert "; expected " in told
    assert len(told.splitlines()) == 1

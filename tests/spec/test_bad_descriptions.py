"""Every fault of a description is one `DescriptionError`: file, line, key path, found, expected."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.spec.cluster import load_cluster
from inferx.spec.functions import load_functions

_GOOD_CLUSTER = """\
[[group]]
name = "pool"
instance_type = "g5.xlarge"
count = 2

[[group]]
name = "lab"
gpu_type = "T4"
gpus = 2
hbm_gib = 16
host_gib = 64
links = { pcie_gpu_gb_per_s = 12, network_gbps = 10 }
"""

_GOOD_FUNCTIONS = """\
[[function]]
name = "a"
hbm_gib = 10

[[function]]
name = "b"
gpus = 2
hbm_gib = 20
weight_gib = 12
queue_timeout_s = 30
"""

_GOOD_OBJECT = json.dumps(
    {
        "type": "function",
        "tenant": "t",
        "namespace": "n",
        "name": "f",
        "object": {
            "spec": {
                "image": "i",
                "resources": {"CPU": 1, "Mem": 1, "GPU": {"Count": 1, "vRam": 14000}},
                "policy": {"Obj": {"parallel": 4}},
            }
        },
    },
    indent=1,
)

# What to replace in the good text, with what, and the start of the message after `file:`.
_CLUSTER_FAULTS = [
    ("count = 2", "coutn = 2", "4: group[0].coutn: an unknown key; expected"),
    ("count = 2", "count = 0", "4: group[0].count: the number 0; expected a whole number from 1"),
    ("count = 2", "count = -1", "4: group[0].count: the number -1; expected"),
    ("count = 2", "count = 2.5", "4: group[0].count: the number 2.5; expected a whole number"),
    ("count = 2", "count = true", "4: group[0].count: true; expected a whole number"),
    ("count = 2", 'count = "2"', "4: group[0].count: the text '2'; expected a whole number"),
    ("count = 2", "count = 9999999999", "4: group[0].count: the number 9999999999; expected"),
    ("count = 2", "zones = []", "4: group[0].zones: an empty list; expected at least one zone"),
    ("count = 2", 'zones = ["a", 1]', "4: group[0].zones: a list; expected a list of text"),
    ("count = 2", 'zone = "a"\nzones = ["b"]', "5: group[0].zones: both zone and zones;"),
    ("count = 2", "count = 2\ncount = 2", "5: cannot overwrite a value; expected TOML"),
    ("count = 2", "count = ", "4: invalid value; expected TOML"),
    ('"g5.xlarge"', '"g5.xlrage"', "3: group[0].instance_type: the text 'g5.xlrage'; expected one"),
    ('"pool"', '"po ol"', "2: group[0].name: the text 'po ol'; expected letters, digits"),
    ('"pool"', '""', "2: group[0].name: the text ''; expected text"),
    ('"lab"', '"pool"', "7: group[1].name: pool a second time; expected a name of its own"),
    ('name = "lab"', "", "6: group[1].name: nothing; expected text"),
    ("gpus = 2", "gpus = 0", "9: group[1].gpus: the number 0; expected a whole number from 1 to 8"),
    ("gpus = 2", "gpus = 9", "9: group[1].gpus: the number 9; expected a whole number from 1 to 8"),
    ("hbm_gib = 16", "hbm_gb = 16", "6: group[1]: no hbm; expected one of hbm_bytes, hbm_mib, h"),
    ("hbm_gib = 16", "hbm_gib = -16", "10: group[1].hbm_gib: the number -16; expected a number"),
    ("hbm_gib = 16", "hbm_gib = 0", "10: group[1].hbm_gib: the number 0; expected a number"),
    ("hbm_gib = 16", "hbm_gib = nan", "10: group[1].hbm_gib: the number nan; expected a number"),
    ("hbm_gib = 16", "hbm_gib = inf", "10: group[1].hbm_gib: the number inf; expected a number"),
    ("hbm_gib = 16", "hbm_gib = 1\nhbm_mib = 1", "10: group[1].hbm_gib: both hbm_mib and hbm_gib"),
    ("hbm_gib = 16", "hbm_gib = 1e300", "10: group[1].hbm_gib: the number 1e+300; expected"),
    ("host_gib = 64", "", "6: group[1]: no host; expected one of"),
    ("links = {", "nvme_gb = 9\nlinks = {", "13: group[1].links.nvme_read_gb_per_s: nothing; exp"),
    ("network_gbps = 10", "", "12: invalid initial character for a key part; expected TOML"),
    (", network_gbps = 10", "", "12: group[1].links.network_gbps: nothing; expected a number"),
    ("network_gbps", "network_gbs", "12: group[1].links.network_gbps: nothing; expected"),
    ("links = {", "links = 3 # {", "12: group[1].links: the number 3; expected a table"),
    ("[[group]]", "[group]", "6: cannot declare ('group',) twice; expected TOML"),
    ("[[group]]", "[[grupo]]", "1: grupo: an unknown key; expected one of driver, group; did you"),
    (_GOOD_CLUSTER, "driver = 580\n", "1: driver: the number 580; expected text"),
    (_GOOD_CLUSTER, "group = [1]\n", "1: group[0]: the number 1; expected a table"),
    (_GOOD_CLUSTER, "group = 1\n", "1: group: the number 1; expected a list of tables"),
    (_GOOD_CLUSTER, 'driver = "1"\n', "1: no group; expected at least one [[group]]"),
    (_GOOD_CLUSTER, "  \n", "1: an empty file; expected a description"),
    (_GOOD_CLUSTER, "\0", "1: a NUL byte; expected text"),
    (_GOOD_CLUSTER, "a = " + "[" * 5_000, "1: "),
]


def _message(load, *arguments: object) -> str:
    with pytest.raises(DescriptionError) as caught:
        load(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(("old", "new", "message"), _CLUSTER_FAULTS)
def test_a_faulty_cluster_is_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in _GOOD_CLUSTER
    path = tmp_path / "c.toml"
    path.write_text(_GOOD_CLUSTER)
    assert len(load_cluster(str(path))) == 3
    path.write_text(_GOOD_CLUSTER.replace(old, new))
    told = _message(load_cluster, str(path))
    assert told.startswith(f"{path}:{message}")
    assert re.search(r":\d+: .*; expected .", told)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g5.xlarge=0", "'g5.xlarge=0'; expected TYPE=COUNT"),
        ("g5.xlarge=-1", "'g5.xlarge=-1'; expected TYPE=COUNT"),
        ("g5.xlarge=two", "'g5.xlarge=two'; expected TYPE=COUNT"),
        ("g5.xlarge=1,", "''; expected TYPE=COUNT"),
        ("=1", "'=1'; expected TYPE=COUNT"),
        ("g5.xlarge=1,g5.xlarge=2", "g5.xlarge twice; expected each type once"),
        ("g5.xlrage=1", "g5.xlrage: an unknown instance type; expected one of"),
        ("g5.xlarge=²", "expected TYPE=COUNT"),
    ],
)
def test_a_faulty_inline_cluster_is_told(text: str, message: str) -> None:
    told = _message(load_cluster, text)
    assert told.startswith(f"cluster {text!r}: ")
    assert message in told


def test_a_cluster_that_is_no_file_is_told(tmp_path: Path) -> None:
    assert _message(load_cluster, "nowhere.toml").startswith("nowhere.toml: no such file; expected")
    assert "not a file" in _message(load_cluster, str(tmp_path))
    assert "no such file" in _message(load_cluster, "p5.48xlarge")
    assert "no such file" in _message(load_cluster, "x" * 5_000)
    assert "no such file" in _message(load_cluster, "a\0b")
    assert "g5.xlarge twice" in _message(load_cluster, "g5.xlarge=1," * 5_000)
    (tmp_path / "c.yaml").write_text("a: 1")
    assert "a .yaml file; expected .toml or .json" in _message(
        load_cluster, str(tmp_path / "c.yaml")
    )
    (tmp_path / "b.toml").write_bytes(b"ok = 1\n\xff\xfe")
    assert "b.toml:2: not UTF-8; expected text" in _message(load_cluster, str(tmp_path / "b.toml"))


_FUNCTION_FAULTS = [
    ('name = "b"', 'name = "a"', "6: function[1].name: a a second time"),
    ('name = "b"', 'name = " b"', "6: function[1].name: the text ' b'; expected 1 to 256"),
    ('name = "b"', "name = 7", "6: function[1].name: the number 7; expected text"),
    ('name = "b"', "", "5: function[1].name: nothing; expected text"),
    (
        "gpus = 2",
        "gpus = 0",
        "7: function[1].gpus: the number 0; expected a whole number from 1 to",
    ),
    ("gpus = 2", "gpus = 16", "7: function[1].gpus: the number 16; expected a whole number from 1"),
    ("gpus = 2", "gpus = 2026-07-20", "7: function[1].gpus: the value 2026-07-20; expected"),
    ("gpus = 2", "gpus = { a = 1 }", "7: function[1].gpus: a table; expected a whole number"),
    ("gpus = 2", "gpu = 2", "7: function[1].gpu: an unknown key; expected one of"),
    ("gpus = 2", "milli_gpu = 1001", "7: function[1].milli_gpu: the number 1001; expected"),
    ("gpus = 2", 'enforcement = "mpss"', "7: function[1].enforcement: the text 'mpss'; expected"),
    ("gpus = 2", "min_replica = 2", "7: function[1].min_replica: the number 2; expected at most"),
    ("gpus = 2", "wait_ratio = -0.1", "7: function[1].wait_ratio: the number -0.1; expected"),
    ("weight_gib = 12", "device_gib = 41", "9: function[1].device_gib: 44023414784 bytes of devi"),
    ("weight_gib = 12", "weight_gib = 41", "9: function[1].weight_gib: 46170898432 bytes of devi"),
    ("queue_timeout_s", "queue_timeout", "10: function[1].queue_timeout: an unknown key; expect"),
    ("timeout_s = 30", "timeout_s = 1e12", "10: function[1].queue_timeout_s: the number 1000000"),
    ("[[function]]", "[[func]]", "1: func: an unknown key; expected one of function; did you mean"),
    (_GOOD_FUNCTIONS, "function = []\n", "1: no function; expected at least one [[function]]"),
]


@pytest.mark.parametrize(("old", "new", "message"), _FUNCTION_FAULTS)
def test_a_faulty_function_table_is_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in _GOOD_FUNCTIONS
    path = tmp_path / "f.toml"
    path.write_text(_GOOD_FUNCTIONS)
    assert len(load_functions(path)) == 2
    path.write_text(_GOOD_FUNCTIONS.replace(old, new))
    told = _message(load_functions, path)
    assert told.startswith(f"{path}:{message}")
    assert re.search(r":\d+: .*; expected .", told)


_LINK = '"Link": {"objType": "funcpolicy", "namespace": "n", "name": "gone"}'
_OBJECT_FAULTS = [
    ('"Count": 1', '"Count": 0', "13: object.spec.resources.GPU.Count: the number 0; expected a"),
    ('"Count": 1', '"Count": "1"', "13: object.spec.resources.GPU.Count: the text '1'; expected"),
    ('"Count": 1', '"Cuont": 1', "12: object.spec.resources.GPU.Count: nothing; expected a whole"),
    ('"Count": 1', '"Count": 1, "x": 1', "13: object.spec.resources.GPU.x: an unknown key; exp"),
    ('"Count": 1', '"Count": 1, "Count": 2', "13: object.spec.resources.GPU.Count: a second val"),
    ('"vRam": 14000', '"vRam": -1', "14: object.spec.resources.GPU.vRam: the number -1; expected"),
    ('"vRam": 14000', '"vRam": NaN', "1: NaN is no JSON number; expected JSON"),
    ('"vRam": 14000', '"vRam": 14000,', "15: "),
    ('"vRam": 14000', '"vRam": 1' + "0" * 400, "14: object.spec.resources.GPU.vRam: the number 1"),
    ('"vRam": 14000', '"vRam": 1' + "0" * 5_000, "1: "),
    ('"parallel"', '"paralel"', "19: object.spec.policy.Obj.paralel: an unknown key; expected"),
    ('"parallel": 4', '"queue_timeout": "30"', "19: object.spec.policy.Obj.queue_timeout: the t"),
    ('"image": "i"', '"image": 3', "8: object.spec.image: the number 3; expected text"),
    ('"image": "i"', '"image": null', "8: object.spec.image: null; expected text"),
    ('"image": "i"', '"standby": []', "8: object.spec.standby: an empty list; expected a table"),
    ('"image": "i"', '"commands": "x"', "8: object.spec.commands: the text 'x'; expected a list"),
    ('"image": "i"', '"standby": {"gpu": "Disk"}', "8: object.spec.standby.gpu: the text 'Disk'"),
    ('"image": "i"', '"inferx": {"weights_mib": 1}', "8: object.spec.inferx.weights_mib: an unkn"),
    (
        '"name": "f"',
        '"name": "a b"',
        "5: name: the text 'a b'; expected 1 to 128 letters, digits and - _",
    ),
    ('"name": "f"', '"name": ""', "5: name: the text ''; expected text"),
    ('"type": "function"', '"type": "pod"', "2: type: the text 'pod'; expected one of function,"),
    ('"spec"', '"sepc"', "6: object.spec: nothing; expected the function's specification"),
    (_GOOD_OBJECT, "[]", "1: an empty list; expected at least one object"),
    (_GOOD_OBJECT, "[\n1]", "2: [0]: the number 1; expected an object"),
    (_GOOD_OBJECT, "7", "1: the number 7; expected a table"),
    (_GOOD_OBJECT, f"[\n{_GOOD_OBJECT},\n{_GOOD_OBJECT}]", "30: [1].name: t/n/f a second time;"),
    (_GOOD_OBJECT, "[" * 100_000, "1: "),
    (_GOOD_OBJECT, "{'a': 1}", "1: expecting property name enclosed in double quotes; expected"),
]


@pytest.mark.parametrize(("old", "new", "message"), _OBJECT_FAULTS)
def test_a_faulty_object_is_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in _GOOD_OBJECT
    path = tmp_path / "f.json"
    path.write_text(_GOOD_OBJECT)
    assert len(load_functions(path)) == 1
    path.write_text(_GOOD_OBJECT.replace(old, new))
    told = _message(load_functions, path)
    assert told.startswith(f"{path}:{message}")
    assert re.search(r":\d+: .*; expected .", told)


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    text = json.loads(_GOOD_OBJECT)
    text["object"]["spec"]["policy"] = json.loads("{" + _LINK + "}")
    path.write_text(json.dumps(text))
    told = _message(load_functions, path)
    assert "object.spec.policy.Link: a link to t/n/gone, which is not here; expected" in told


def test_a_directory_without_descriptions_is_told(tmp_path: Path) -> None:
    assert "an empty directory; expected .json or .toml files" in _message(load_functions, tmp_path)


@settings(deadline=None, max_examples=150)
@given(
    start=st.integers(0, 600),
    length=st.integers(0, 40),
    put=st.sampled_from(
        ["", "{", "}", "[", "]", '"', "\n", "=", "-1", "null", "true", "\\u0000", "é"]
    ),
    which=st.sampled_from(["cluster", "functions", "object"]),
)
def test_no_edit_of_a_description_ends_in_a_traceback(
    tmp_path_factory, start: int, length: int, put: str, which: str
) -> None:
    good = {"cluster": _GOOD_CLUSTER, "functions": _GOOD_FUNCTIONS, "object": _GOOD_OBJECT}[which]
    at = start % len(good)
    folder = tmp_path_factory.getbasetemp()
    path = folder / ("edited.json" if which == "object" else "edited.toml")
    path.write_text(good[:at] + put + good[at + length :], encoding="utf-8")
    told = f"{path}: nothing; expected "
    try:
        load_cluster(str(path)) if which == "cluster" else load_functions(path)
    except DescriptionError as error:
        told = str(error)
    assert told.startswith(str(path))
    assert "; expected " in told

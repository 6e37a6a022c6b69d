"""Functions that load: the reference's objects, native tables, and the record of a run."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.core.types import FunctionSpec
from inferx.core.units import GIB, MIB, NS_PER_MS, NS_PER_S
from inferx.spec.functions import dump_functions, load_functions


def _object(name: str = "f", *, kind: str = "function", **spec) -> dict:
    gpu = {"Type": "Any", "Count": 1, "vRam": 14_000}
    spec = {"image": "i", "commands": [], "resources": {"CPU": 1, "Mem": 1, "GPU": gpu}} | spec
    return {"type": kind, "tenant": "t", "namespace": "n", "name": name, "object": {"spec": spec}}


def _policy(name: str = "f", **values) -> dict:
    head = {"type": "funcpolicy", "tenant": "t", "namespace": "n", "name": name}
    return head | {"object": values}


def _load(tmp_path: Path, root: object) -> tuple[FunctionSpec, ...]:
    path = tmp_path / "functions.json"
    path.write_text(json.dumps(root))
    return load_functions(path)


def test_an_object_takes_the_references_defaults(tmp_path: Path) -> None:
    (function,) = _load(tmp_path, _object())
    total = 14_000 * MIB
    assert function == FunctionSpec(
        name="f",
        tenant="t",
        gpus=1,
        milli_gpu=100,
        hbm_bytes=total,
        weight_bytes=total // 2,
        device_bytes=total // 2 + GIB,
        host_bytes=3 * GIB,
        slots=50,
        queue_len=100,
        queue_timeout_ns=30 * NS_PER_S,
        linger_ns=NS_PER_S,
        wait_ratio=0.1,
        min_replica=0,
        max_replica=1,
        standby_per_node=1,
    )


def test_older_shapes_and_texts_for_numbers_in_a_sample_body_load(tmp_path: Path) -> None:
    bare = _object("bare", probe={"path": "/health", "port": 80}, api_type={"openai": {}})
    bare["spec"] = bare.pop("object")["spec"]
    bare["spec"]["endpoint"] = {"path": "/v1/completions", "port": 8000, "schema": "Http"}
    body = {"max_tokens": "1000", "stream": "true"}
    full = _object(
        "full",
        sample_query={"apiType": "text2text", "prompt": "p", "path": "x", "body": body},
        standby={"gpu": "Mem", "pageable": "File", "pinned": "Blob"},
        envs=[["A", "B"]],
        mounts=[{"hostpath": "/a", "mountpath": "/b"}],
    )
    assert [function.name for function in _load(tmp_path, [bare, full])] == ["bare", "full"]


def test_a_policy_object_of_the_same_name_wins_over_the_inline_policy(tmp_path: Path) -> None:
    inline = {"Obj": {"parallel": 2, "max_replica": 3}}
    (tmp_path / "a.json").write_text(json.dumps(_object(policy=inline)))
    (function,) = load_functions(tmp_path)
    assert (function.slots, function.max_replica) == (2, 3)
    (tmp_path / "b.json").write_text(json.dumps(_policy(parallel=7, queue_timeout=2.5)))
    (function,) = load_functions(tmp_path)
    assert (function.slots, function.max_replica) == (7, 1)
    assert function.queue_timeout_ns == 2_500 * NS_PER_MS


def test_a_link_is_resolved_in_the_functions_tenant(tmp_path: Path) -> None:
    link = {"Link": {"objType": "funcpolicy", "namespace": "n", "name": "shared"}}
    ratio = {"WaitQueueRatio": {"wait_ratio": 0.5}}
    objects = [
        _object("a", policy=link),
        _policy("shared", scaleout_policy=ratio, scalein_timeout=0.25, nvidia_replica=0),
        _object("b"),
    ]
    first, second = _load(tmp_path, objects)
    assert (first.wait_ratio, first.linger_ns) == (0.5, 250 * NS_PER_MS)
    assert (second.wait_ratio, second.linger_ns) == (0.1, NS_PER_S)


def test_a_policy_of_its_own_name_makes_a_dangling_link_harmless(tmp_path: Path) -> None:
    link = {"Link": {"objType": "funcpolicy", "namespace": "n", "name": "gone"}}
    (function,) = _load(tmp_path, [_object(policy=link), _policy(spec={"parallel": 9})])
    assert function.slots == 9


def test_the_extension_block_says_what_a_snapshot_weighs(tmp_path: Path) -> None:
    extension = {
        "weight_mib": 2_000,
        "device_mib": 3_000,
        "host_gib": 4,
        "milli_gpu": 250,
        "enforcement": "mps",
        "priority": 2,
    }
    (function,) = _load(tmp_path, _object(inferx=extension))
    assert function.weight_bytes == 2_000 * MIB
    assert function.device_bytes == 3_000 * MIB
    assert function.host_bytes == 4 * GIB
    assert (function.milli_gpu, function.enforcement, function.priority) == (250, "mps", 2)


def test_derived_device_memory_never_exceeds_the_slices(tmp_path: Path) -> None:
    spec = {"resources": {"GPU": {"Count": 2, "vRam": 1_000}}}
    (function,) = _load(tmp_path, _object(**spec))
    assert function.device_bytes == 2_000 * MIB


def test_a_native_table_reads_units_from_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "functions.toml"
    path.write_text(
        '[[function]]\nname = "team/llama"\ntenant = "acme"\ngpus = 2\nhbm_gib = 20.5\n'
        'gpu_type = "L40S"\nqueue_timeout_ms = 1500\nlinger_s = 2\nslots = 8\nmax_replica = 4\n'
    )
    (function,) = load_functions(path)
    assert function.hbm_bytes == 41 * GIB // 2
    assert function.device_bytes == function.weight_bytes + 2 * GIB
    assert function.queue_timeout_ns == 1_500 * NS_PER_MS
    assert (function.linger_ns, function.slots, function.max_replica) == (2 * NS_PER_S, 8, 4)


_SIZES = st.integers(1, 1 << 40)


@st.composite
def _functions(draw: st.DrawFn) -> FunctionSpec:
    gpus, hbm = draw(st.integers(1, 8)), draw(_SIZES)
    low = draw(st.integers(0, 5))
    return FunctionSpec(
        name="x",
        tenant=draw(st.sampled_from(["a", "Grüße", "b/c"])),
        gpus=gpus,
        milli_gpu=draw(st.integers(1, 1_000)),
        hbm_bytes=hbm,
        gpu_type=draw(st.sampled_from(["Any", "H100"])),
        enforcement=draw(st.sampled_from(["none", "mps", "exclusive"])),
        device_bytes=draw(st.integers(1, gpus * hbm)),
        host_bytes=draw(_SIZES),
        weight_bytes=draw(_SIZES),
        slots=draw(st.integers(1, 1_000)),
        queue_len=draw(st.integers(0, 1_000)),
        queue_timeout_ns=draw(st.integers(0, 10**15)),
        linger_ns=draw(st.integers(0, 10**15)),
        wait_ratio=draw(st.floats(0, 100)),
        min_replica=low,
        max_replica=draw(st.integers(max(low, 1), 9)),
        standby_per_node=draw(st.integers(0, 9)),
        priority=draw(st.integers(-9, 9)),
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(_functions(), min_size=1, max_size=4))
def test_what_a_run_records_loads_back_equal(tmp_path_factory, functions) -> None:
    named = [
        FunctionSpec(
            **{field: getattr(f, field) for field in f.__struct_fields__} | {"name": f"f {i}"}
        )
        for i, f in enumerate(functions)
    ]
    path = tmp_path_factory.mktemp("dump") / "functions.json"
    path.write_text(dump_functions(named), encoding="utf-8")
    assert load_functions(path) == tuple(named)
    assert dump_functions(load_functions(path)) == dump_functions(named)


def test_files_of_a_directory_are_read_together_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text('[[function]]\nname = "b"\nhbm_gib = 1\n')
    (tmp_path / "a.toml").write_text('[[function]]\nname = "a"\nhbm_gib = 1\n')
    (tmp_path / "notes.txt").write_text("not a description")
    assert [function.name for function in load_functions(tmp_path)] == ["a", "b"]
    (tmp_path / "c.json").write_text(json.dumps(_object("a")))
    with pytest.raises(
        DescriptionError, match=r"c\.json:1: name: a a second time \(first in .*a\."
    ):
        load_functions(tmp_path)

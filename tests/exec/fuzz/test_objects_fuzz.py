"""An object that says anything at all is written, or refused as its author's fault."""

import asyncio
import copy
import json
import random
from typing import Any

import grpc
import msgspec
import pytest
from cluster_objects import SPEC, namespace, tenant
from grpc_fuzz import BROKEN
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.errors import InferXError
from inferx.exec.clock import WallClock
from inferx.exec.functions import KINDS, FunctionBook
from inferx.exec.gateway.tenants import Tenants
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.objects.actor import ADMIN, SYSTEM, tenant_admin
from inferx.exec.state.objects.envelope import parse_object
from inferx.exec.state.objects.mirror import Changed
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.status import told

POLICY = {
    "parallel": 4, "queue_len": 10, "queue_timeout": 5.0, "min_replica": 0, "max_replica": 2,
    "standby_per_node": 1, "scalein_timeout": 1.0,
    "scaleout_policy": {"WaitQueueRatio": {"wait_ratio": 0.1}}, "runtime_config": {},
}  # fmt: skip
WHOLE = {
    "tenant": {"spec": {"limit": {"max_funccount": 5, "max_gpu": 1, "burst_s": 3}}, "status": {}},
    "namespace": {"spec": {}, "status": {"disable": False}},
    "function": {"spec": {**SPEC, "policy": {"Obj": POLICY}, "inferx": {"milli_gpu": 300}}},
    "funcpolicy": {"spec": POLICY},
    "funcstatus": {"version": 1, "published": True, "state": "Fail"},
    "node_info": {"nodeEpoch": 1, "nodeIp": "10.0.0.1", "podMgrPort": 1233, "resources": {"a": 1}},
    "gateway": {"address": "127.0.0.1:1", "id": 1},
    "scheduler": {"address": "127.0.0.1:1", "epoch": 1},
}
PLACES = {
    "tenant": ("system", "system"), "namespace": ("t", "system"), "node_info": ("system", "system"),
    "gateway": ("system", "system"), "scheduler": ("system", "system"),
}  # fmt: skip
ODD = [
    None, True, 0, -1, 1 << 63, 1 << 70, 0.5, 1e308, "", "x", "\0", "ü" * 300, [], {}, [[]],
    {"": 1}, "a/b", "../..", {"Link": {"objType": "funcpolicy", "namespace": "n", "name": "p"}},
]  # fmt: skip
anything = st.recursive(
    st.sampled_from(ODD) | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where something is in a value."""
    inner = value.items() if isinstance(value, dict) else ()
    return [at, *(path for key, one in inner for path in paths(one, (*at, key)))]


def changed(whole: Any, path: tuple[Any, ...], how: str, what: Any) -> Any:
    """Return a copy that says another thing at one place, says it no more, or says more."""
    if not path:
        return what if how == "other" else whole
    made = copy.deepcopy(whole)
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    if how == "other":
        holder[path[-1]] = what
    elif how == "none":
        del holder[path[-1]]
    else:
        holder[str(path[-1]) + "x"] = what
    return made


def written(kind: str) -> Any:
    """Return a strategy of objects of a type as their authors may write them."""
    place, namespace_name = PLACES.get(kind, ("t", "n"))
    whole = {
        "type": kind, "tenant": place, "namespace": namespace_name, "name": "one",
        "labels": {"a": "b"}, "annotations": {}, "object": WHOLE[kind],
    }  # fmt: skip
    change = st.tuples(
        st.sampled_from(paths(whole)), st.sampled_from(["other", "none", "more"]), anything
    )

    def apply(changes: list[Any]) -> Any:
        made: Any = whole
        for path, how, what in changes:
            try:
                made = changed(made, path, how, what)
            except (KeyError, TypeError):
                # Another change was there first.
                continue
        return made

    return st.lists(change, min_size=1, max_size=3).map(apply)


def is_its_authors(error: InferXError) -> None:
    """Its author is told, in one line, and nobody else is to blame."""
    status = told(error)
    assert status is not None, error
    code, said, _ = status
    assert code not in BROKEN | {grpc.StatusCode.UNAVAILABLE}, said
    assert len(said.splitlines()) == 1, said


async def tried(one: Any) -> None:
    """Apply an object as anybody may; what is taken is then read as services read it."""
    store = MemoryStore(WallClock())
    objects = Objects(store, rng=random.Random(1))
    try:
        await objects.create(tenant("t", max_funccount=100, max_replica=4), who=ADMIN)
        await objects.create(namespace("t", "n"), who=ADMIN)
        book, tenants = FunctionBook(), Tenants()
        for who in (SYSTEM, ADMIN, tenant_admin("t")):
            try:
                taken = (await objects.apply(parse_object(json.dumps(one), "it"), who=who)).object
            except InferXError as error:
                is_its_authors(error)
                continue
            assert await objects.get(taken.key) == taken
            if taken.type in KINDS:
                book.take(Changed(None, taken))
            if taken.type == "tenant":
                tenants.take(taken.name, taken)
    finally:
        await store.close()


@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_what_an_object_says_is_taken_or_refused(kind: str) -> None:
    @given(written(kind))
    def write(one: Any) -> None:
        asyncio.run(tried(one))

    write()


@given(
    st.text(max_size=60) | anything.map(json.dumps) | st.sampled_from(["[" * 5_000, "{" * 5_000])
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InferXError) as caught:
        parse_object(text, "it")
    assert told(caught.value)[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert len(str(caught.value).splitlines()) == 1


def test_the_examples_are_good_ones() -> None:
    async def work() -> None:
        store = MemoryStore(WallClock())
        objects = Objects(store, rng=random.Random(1))
        await objects.create(tenant("t", max_funccount=100, max_replica=4), who=ADMIN)
        await objects.create(namespace("t", "n"), who=ADMIN)
        for kind, body in WHOLE.items():
            if kind == "funcstatus":
                continue  # It comes with its function.
            place, inside = PLACES.get(kind, ("t", "n"))
            one = {
                "type": kind,
                "tenant": place,
                "namespace": inside,
                "name": "one",
                "object": body,
            }
            await objects.apply(parse_object(msgspec.json.encode(one).decode(), "it"), who=SYSTEM)
        await store.close()

    asyncio.run(work())

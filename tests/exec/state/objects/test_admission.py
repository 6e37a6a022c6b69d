"""Who may write what, and when: rights, limits, places, children, revisions, versions."""

from typing import Any

import msgspec
import pytest
from cluster_objects import (
    function,
    namespace,
    new_objects,
    node,
    policy,
    tenant,
    with_tenants,
)

from inferx.core.errors import DescriptionError
from inferx.exec.clock import WallClock
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.objects.actor import (
    ADMIN,
    SYSTEM,
    Actor,
    namespace_admin,
    tenant_admin,
)
from inferx.exec.state.objects.admission import version_of
from inferx.exec.state.objects.bodies import Limits
from inferx.exec.state.objects.envelope import DataObject, Key
from inferx.exec.state.objects.errors import (
    AdmissionError,
    ConflictError,
    ExistsError,
    ForbiddenError,
    LimitError,
    NotFoundError,
)
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.policies import resolve
from inferx.exec.state.objects.results import ANY_REVISION, Outcome
from inferx.exec.state.objects.selector import Selection, parse_labels

OWNER = tenant_admin("t1")
KEY = Key("function", "t1", "ns", "f")
STATUS = msgspec.structs.replace(KEY, type="funcstatus")


async def _refused(error: type[Exception], write: Any, message: str) -> None:
    with pytest.raises(error) as told:
        await write
    assert message in str(told.value)
    assert type(told.value) is error
    assert len(str(told.value).splitlines()) == 1


async def _names(objects: Objects, kind: str, tenant: str = "", namespace: str = "") -> list[str]:
    listed = await objects.list(Selection(kind, tenant, namespace))
    return [one.name for one in listed.objects]


async def test_a_function_comes_with_its_status_in_one_commit_and_goes_with_it() -> None:
    objects = await with_tenants("t1")
    made = await objects.create(function("t1/ns/f"), who=OWNER)
    status = await objects.get(STATUS)
    assert status.revision == made.revision
    assert status.object == {
        "version": version_of(made),
        "published": False,
        "state": "Normal",
        "snapshotingFailureCnt": 0,
        "resumingFailureCnt": 0,
    }
    assert await objects.get(KEY) == made
    assert await objects.delete(KEY, who=OWNER) == made
    for key in (KEY, STATUS):
        await _refused(NotFoundError, objects.get(key), f"{key}: not there")


async def test_a_version_follows_the_specification_and_nothing_else() -> None:
    objects = await with_tenants("t1")
    first = await objects.create(function("t1/ns/f", version=99), who=OWNER)
    same = await objects.apply(function("t1/ns/f"), who=OWNER)
    assert same.outcome is Outcome.UNCHANGED
    assert same.object == first
    labelled = await objects.apply(function("t1/ns/f", labels={"a": "b"}), who=OWNER)
    assert labelled.outcome is Outcome.UPDATED
    assert version_of(labelled.object) == version_of(first)
    status = await objects.get(STATUS)
    failed = msgspec.structs.replace(
        status, object={**status.object, "state": "Fail", "published": True}
    )
    await objects.update(failed, who=SYSTEM, expected=status.revision)
    changed = await objects.apply(function("t1/ns/f", image="other:1"), who=OWNER)
    assert version_of(changed.object) > version_of(first)
    fresh = (await objects.get(STATUS)).object
    assert fresh["version"] == version_of(changed.object)
    assert (fresh["state"], fresh["published"]) == ("Normal", True)
    # What was learnt of the old version is no news of the new one.
    await _refused(
        AdmissionError,
        objects.update(failed, who=SYSTEM, expected=ANY_REVISION),
        f"funcstatus/t1/ns/f: of version {version_of(first)} of the function; it is at",
    )
    await objects.delete(KEY, who=OWNER)
    again = await objects.create(function("t1/ns/f"), who=OWNER)
    assert version_of(again) > version_of(changed.object)


async def test_an_update_needs_the_revision_it_was_made_from() -> None:
    objects = await with_tenants("t1")
    made = await objects.create(function("t1/ns/f"), who=OWNER)
    await _refused(
        ExistsError,
        objects.create(function("t1/ns/f"), who=OWNER),
        f"function/t1/ns/f: is there already, at revision {made.revision}",
    )
    await objects.update(function("t1/ns/f", image="a:1"), who=OWNER, expected=made.revision)
    for write in (
        objects.update(function("t1/ns/f", image="b:1"), who=OWNER, expected=made.revision),
        objects.delete(KEY, who=OWNER, expected=made.revision),
    ):
        await _refused(ConflictError, write, f"expected {made.revision}")
    await objects.update(function("t1/ns/f", image="b:1"), who=OWNER, expected=ANY_REVISION)
    await _refused(
        NotFoundError,
        objects.update(function("t1/ns/g"), who=OWNER, expected=ANY_REVISION),
        "function/t1/ns/g: not there",
    )


_LIMITED: list[tuple[DataObject, dict[str, Any], str]] = [
    (
        function("t1/ns/f", resources={"GPU": {"Count": 2, "vRam": 10}}),
        {"max_gpu": 1},
        "object.spec.resources.GPU.Count: the number 2; expected at most max_gpu of the tenant",
    ),
    (
        function("t1/ns/f", standby={"gpu": "File", "pinned": "Mem"}),
        {},
        "object.spec.standby.pinned: Mem; expected File or Blob",
    ),
    (
        function("t1/ns/f", policy={"Obj": {"max_replica": 3}}),
        {},
        "max_replica: the number 3; expected at most max_replica of the tenant, which is 2",
    ),
    (
        function("t1/ns/f", policy={"min_replica": 1}),
        {},
        "min_replica: the number 1; expected at most min_replica_cap of the tenant, which is 0",
    ),
    (policy("t1/ns/f", standby_per_node=2), {}, "expected at most max_standby of the tenant"),
    (policy("t1/system/f", queue_len=101), {}, "expected at most max_queue_len of the tenant"),
]


@pytest.mark.parametrize(("one", "limit", "message"), _LIMITED)
async def test_a_tenant_gets_no_more_than_its_limits(
    one: DataObject, limit: dict[str, Any], message: str
) -> None:
    objects = await with_tenants("t1", **limit)
    await _refused(LimitError, objects.create(one, who=ADMIN), message)
    wide = {
        "max_gpu": 8, "allow_mem_standby": True, "max_replica": 3, "min_replica_cap": 1,
        "max_standby": 2, "max_queue_len": 101,
    }  # fmt: skip
    await objects.apply(tenant("t1", **wide), who=ADMIN)
    await objects.create(one, who=OWNER)


async def test_the_count_of_functions_is_bounded_over_all_namespaces_of_one_tenant() -> None:
    objects = await with_tenants("t1", "t10", max_funccount=2)
    await objects.create(namespace("t1", "other"), who=OWNER)
    for place in ("t10/ns/a", "t10/ns/b", "t1/ns/a", "t1/other/a"):
        await objects.create(function(place), who=ADMIN)
    await _refused(
        LimitError,
        objects.create(function("t1/ns/b"), who=ADMIN),
        "function/t1/ns/b: tenant t1 has 2 functions; expected fewer than max_funccount",
    )
    await objects.update(function("t1/ns/a", image="b:1"), who=OWNER, expected=ANY_REVISION)
    await objects.delete(Key("function", "t1", "other", "a"), who=OWNER)
    await objects.create(function("t1/ns/b"), who=OWNER)


async def test_objects_are_made_only_where_tenant_and_namespace_are_and_are_open() -> None:
    objects = new_objects()
    one = function("t1/ns/f")
    await _refused(AdmissionError, objects.create(one, who=ADMIN), "there is no tenant t1")
    await _refused(AdmissionError, objects.create(namespace("t1", "ns"), who=ADMIN), "no tenant t1")
    await objects.create(tenant("t1"), who=ADMIN)
    for write in (one, policy("t1/ns/f")):
        await _refused(
            AdmissionError, objects.create(write, who=ADMIN), "there is no namespace t1/ns"
        )
    await objects.create(namespace("t1", "ns", disable=True), who=OWNER)
    await _refused(AdmissionError, objects.create(one, who=ADMIN), "namespace t1/ns is disabled")
    await objects.apply(namespace("t1", "ns"), who=OWNER)
    await objects.create(one, who=OWNER)
    await objects.apply(tenant("t1", status={"disable": True}), who=ADMIN)
    for write in (
        function("t1/ns/f", image="b:1"),
        function("t1/ns/g"),
        policy("t1/ns/f"),
        policy("t1/system/f"),
        namespace("t1", "ns", disable=True),
        namespace("t1", "more"),
    ):
        await _refused(AdmissionError, objects.apply(write, who=OWNER), "tenant t1 is disabled")
    await objects.delete(KEY, who=OWNER)


_WRITERS: list[tuple[DataObject, tuple[Actor, ...]]] = [
    (tenant("t1", max_gpu=8), (SYSTEM, ADMIN)),
    (namespace("t1", "more"), (SYSTEM, ADMIN, OWNER)),
    (policy("t1/system/p"), (SYSTEM, ADMIN, OWNER)),
    (function("t1/ns/f"), (SYSTEM, ADMIN, OWNER, namespace_admin("t1", "ns"))),
    (policy("t1/ns/p"), (SYSTEM, ADMIN, OWNER, namespace_admin("t1", "ns"))),
    (node("n1"), (SYSTEM,)),
]
_ALL = (
    SYSTEM,
    ADMIN,
    OWNER,
    tenant_admin("t10"),
    tenant_admin(""),
    namespace_admin("t1", "ns"),
    namespace_admin("t1", "ns2"),
    namespace_admin("t10", "ns"),
    namespace_admin("t1", "system"),
)


@pytest.mark.parametrize("who", _ALL, ids=str)
@pytest.mark.parametrize(("one", "writers"), _WRITERS, ids=lambda value: str(value)[:40])
async def test_only_those_write_whose_it_is(
    one: DataObject, writers: tuple[Actor, ...], who: Actor
) -> None:
    objects = await with_tenants("t1")
    if who in writers:
        await objects.apply(one, who=who)
        return
    with pytest.raises(ForbiddenError):
        await objects.apply(one, who=who)
    with pytest.raises(ForbiddenError):
        await objects.delete(one.key, who=who, cascade=True)


async def test_a_tenants_administrator_describes_it_but_sets_no_limit_of_it() -> None:
    objects = await with_tenants("t1", max_funccount=3)
    for change in (
        tenant("t1", max_funccount=4),
        tenant("t1"),
        tenant("t1", max_funccount=3, status={"quota_exceeded": True}),
    ):
        await _refused(
            ForbiddenError,
            objects.apply(change, who=OWNER),
            "tenant t1: limits and status are an administrator's to set, not the tenant admin",
        )
    named = msgspec.structs.replace(tenant("t1", max_funccount=3), annotations={"owner": "ada"})
    assert (await objects.apply(named, who=OWNER)).outcome is Outcome.UPDATED
    key = named.key
    await _refused(ForbiddenError, objects.delete(key, who=OWNER), "not for the tenant admin")
    other = Key("tenant", "system", "system", "t2")
    await _refused(ForbiddenError, objects.delete(other, who=OWNER), "not for the tenant admin")
    new = objects.create(tenant("t2"), who=tenant_admin("t2"))
    await _refused(ForbiddenError, new, "limits and status")


async def test_what_has_children_is_deleted_with_them_or_not_at_all() -> None:
    objects = await with_tenants("t1", "t10")
    for place in ("t1/ns/f", "t1/ns/g", "t10/ns/f"):
        await objects.create(function(place), who=ADMIN)
    await objects.create(policy("t1/ns/f"), who=OWNER)
    await objects.create(policy("t1/system/p"), who=OWNER)
    space, owner = namespace("t1", "ns").key, tenant("t1").key
    await _refused(
        AdmissionError,
        objects.delete(space, who=OWNER),
        "namespace t1/ns: has 2 functions and 1 policy; expected none",
    )
    await _refused(AdmissionError, objects.delete(owner, who=ADMIN), "tenant t1: has namespace ns")
    await objects.delete(space, who=OWNER, cascade=True)
    assert await _names(objects, "function", "t1") == []
    assert await _names(objects, "funcstatus", "t1") == []
    await _refused(AdmissionError, objects.delete(owner, who=ADMIN), "tenant t1: has 1 policy")
    await objects.create(namespace("t1", "a"), who=OWNER)
    await objects.create(namespace("t1", "b"), who=OWNER)
    await objects.create(function("t1/b/f"), who=OWNER)
    await _refused(AdmissionError, objects.delete(owner, who=ADMIN), "has namespace a and 1 more")
    await objects.delete(owner, who=ADMIN, cascade=True)
    for kind in ("tenant", "namespace", "function", "funcstatus", "funcpolicy"):
        left = (await objects.list(Selection(kind))).objects
        assert {one.name if kind == "tenant" else one.tenant for one in left} <= {"t10"}
    assert await _names(objects, "function") == ["f"]
    await objects.create(tenant("t1"), who=ADMIN)
    await objects.delete(owner, who=ADMIN)


async def test_a_cascade_that_cannot_end_leaves_the_place_closed() -> None:
    objects = await with_tenants("t1")
    await objects.create(namespace("t1", "other"), who=OWNER)
    await objects.create(policy("t1/ns/p"), who=OWNER)
    await objects.create(function("t1/ns/f"), who=OWNER)
    link = {"Link": {"objType": "funcpolicy", "namespace": "ns", "name": "p"}}
    await objects.create(function("t1/other/f", policy=link), who=OWNER)
    space = namespace("t1", "ns").key
    await _refused(
        AdmissionError,
        objects.delete(space, who=OWNER, cascade=True),
        "funcpolicy/t1/ns/p: function/t1/other/f links to it",
    )
    await _refused(
        AdmissionError, objects.create(function("t1/ns/f"), who=OWNER), "t1/ns is disabled"
    )
    await objects.delete(Key("function", "t1", "other", "f"), who=OWNER)
    await objects.delete(space, who=OWNER, cascade=True)
    assert await _names(objects, "namespace", "t1") == ["other"]


async def test_a_link_leads_somewhere_for_as_long_as_it_is_there() -> None:
    objects = await with_tenants("t1")
    link = {"Link": {"objType": "funcpolicy", "namespace": "system", "name": "p"}}
    linked = function("t1/ns/f", policy=link)
    await _refused(
        AdmissionError,
        objects.create(linked, who=OWNER),
        "object.spec.policy.Link: there is no funcpolicy/t1/system/p",
    )
    await objects.create(policy("t1/system/p"), who=OWNER)
    await objects.create(linked, who=OWNER)
    key = policy("t1/system/p").key
    await _refused(AdmissionError, objects.delete(key, who=OWNER), "function/t1/ns/f links to it")
    await objects.apply(function("t1/ns/f"), who=OWNER)
    await objects.delete(key, who=OWNER)


def test_a_policy_is_found_as_the_reference_finds_it_and_cut_to_the_limits() -> None:
    link = {"Link": {"objType": "funcpolicy", "namespace": "system", "name": "p"}}
    wide = Limits(max_replica=9, min_replica_cap=9, max_standby=9, max_queue_len=999)
    linked, inline = function("t1/ns/f", policy=link), function("t1/ns/f", policy={"parallel": 7})
    shared, own = policy("t1/system/p", parallel=8), policy("t1/ns/f", parallel=9)

    def slots(one: DataObject, *policies: DataObject) -> int | None:
        found = resolve(one, {each.key: each for each in policies}, wide)
        return None if found is None else found.slots

    assert slots(inline) == 7
    assert slots(linked) is None
    assert slots(linked, shared) == 8
    assert slots(linked, shared, own) == 9
    assert slots(inline, shared, own) == 9
    assert slots(linked, policy("t10/system/p", parallel=3)) is None
    asked = {"min_replica": 4, "max_replica": 8, "standby_per_node": 3, "queue_len": 500}
    full = resolve(function("t1/ns/f", policy=asked), {}, wide)
    assert full is not None
    assert (full.min_replica, full.max_replica, full.standby_per_node, full.queue_len) == (
        4,
        8,
        3,
        500,
    )
    narrow = Limits(max_replica=2, min_replica_cap=5, max_standby=0, max_queue_len=10)
    cut = resolve(function("t1/ns/f", policy=asked), {}, narrow)
    assert cut is not None
    assert (cut.min_replica, cut.max_replica, cut.standby_per_node, cut.queue_len) == (2, 2, 0, 10)


async def test_a_status_comes_and_goes_with_its_function_only() -> None:
    objects = await with_tenants("t1")
    made = await objects.create(function("t1/ns/f"), who=OWNER)
    status = await objects.get(STATUS)
    for write in (
        objects.delete(STATUS, who=SYSTEM),
        objects.create(msgspec.structs.replace(status, name="g"), who=SYSTEM),
    ):
        await _refused(AdmissionError, write, "comes and goes with its function")
    other = {**status.object, "version": version_of(made) - 1}
    await _refused(
        AdmissionError,
        objects.update(
            msgspec.structs.replace(status, object=other),
            who=SYSTEM,
            expected=status.revision,
        ),
        f"it is at {version_of(made)}",
    )
    await _refused(
        ForbiddenError,
        objects.update(status, who=ADMIN, expected=status.revision),
        "funcstatus/t1/ns/f: not for the admin to write",
    )


async def test_what_a_service_registers_is_gone_with_its_lease() -> None:
    store = MemoryStore(WallClock())
    objects = Objects(store)
    lease = await store.grant(60)
    await objects.create(node("n1"), who=SYSTEM, lease=lease)
    other = await store.grant(60)
    assert (await objects.apply(node("n1"), who=SYSTEM, lease=other)).outcome is Outcome.UPDATED
    await store.revoke(lease)
    assert await _names(objects, "node_info") == ["n1"]
    await store.revoke(other)
    assert await _names(objects, "node_info") == []
    await objects.create(tenant("t1"), who=ADMIN)
    await _refused(
        DescriptionError,
        objects.create(namespace("t1", "ns"), who=ADMIN, lease=await store.grant(60)),
        "namespace/t1/system/ns: a lease; expected one only for what services write",
    )


async def test_lists_keep_tenants_apart_and_select_by_labels() -> None:
    objects = await with_tenants("t1", "t10", "t")
    for place, team in (("t1/ns/a", "x"), ("t1/ns/b", "y"), ("t10/ns/c", "x"), ("t/ns/d", "x")):
        await objects.create(function(place, labels={"team": team}), who=ADMIN)
    assert await _names(objects, "function", "t1") == ["a", "b"]
    assert await _names(objects, "function", "t10") == ["c"]
    assert await _names(objects, "function", "t", "n") == []
    selection = Selection("function", labels=parse_labels("team=x"))
    assert [one.name for one in (await objects.list(selection)).objects] == ["d", "a", "c"]


@pytest.mark.parametrize(
    "key",
    [
        Key("pod", "t", "n", "p"),
        Key("function", "", "n", "p"),
        Key("function", "t", "n", "a/b"),
        Key("function", "..", "n", "p"),
        Key("function", "t", "n\n", "p"),
    ],
)
async def test_what_no_object_is_called_is_told(key: Key) -> None:
    objects = new_objects()
    for call in (objects.get(key), objects.delete(key, who=SYSTEM)):
        with pytest.raises(DescriptionError) as told:
            await call
        assert len(str(told.value).splitlines()) == 1

"""Who may do what: the table, and what no grant ever gives."""

import re
import string
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.exec.identity.acting import actor_for
from inferx.exec.identity.oidc import grants_of
from inferx.exec.identity.principal import (
    ANONYMOUS,
    EVERY,
    SERVICE,
    Denied,
    Grant,
    Level,
    Principal,
)
from inferx.exec.identity.rights import RIGHTS, Action, Allowed, authorize
from inferx.exec.state.objects.actor import SYSTEM
from inferx.spec.reference import is_name

ACTIONS: tuple[Action, ...] = get_args(Action)
KINDS = sorted(RIGHTS)

names = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=6).filter(
    is_name
)
targets = names | st.just(EVERY)
levels = st.sampled_from([Level.INFERENCE, Level.READ, Level.FULL])
actions = st.sampled_from(ACTIONS)
kinds = st.sampled_from(KINDS)


def allowed(who: Principal, action: Action, tenant: str, namespace: str, kind: str) -> bool:
    return isinstance(authorize(who, action, tenant, namespace, kind), Allowed)


@given(st.lists(st.tuples(levels, names, targets), max_size=4), actions, targets, targets, kinds)
def test_a_tenants_grants_reach_no_other_tenant(
    grants: list[tuple[Level, str, str]], action: Action, tenant: str, namespace: str, kind: str
):
    who = Principal("p", tuple(Grant(*grant) for grant in grants))
    if kind != "health" and tenant not in {grant[1] for grant in grants}:
        assert not allowed(who, action, tenant, namespace, kind)


@given(levels, names, names, actions, targets, targets, kinds)
def test_a_namespaces_grant_reaches_no_other_namespace(
    level: Level, own: str, space: str, action: Action, tenant: str, namespace: str, kind: str
):
    who = Principal("p", (Grant(level, own, space),))
    if kind != "health" and (tenant, namespace) != (own, space):
        assert not allowed(who, action, tenant, namespace, kind)


@given(targets, targets, actions, targets, targets, kinds)
def test_a_grant_of_inference_reads_and_writes_nothing(
    own: str, space: str, action: Action, tenant: str, namespace: str, kind: str
):
    who = Principal("p", (Grant(Level.INFERENCE, own, space),))
    if allowed(who, action, tenant, namespace, kind):
        assert (action, kind) in {("invoke", "function"), ("read", "health")}


@given(targets, targets, actions, targets, targets, kinds)
def test_a_grant_of_reading_changes_nothing(
    own: str, space: str, action: Action, tenant: str, namespace: str, kind: str
):
    who = Principal("p", (Grant(Level.READ, own, space),))
    if allowed(who, action, tenant, namespace, kind):
        assert action in {"invoke", "read"}


@given(levels, levels, targets, targets, actions, targets, targets, kinds)
def test_a_higher_level_allows_what_a_lower_one_does(
    one: Level, two: Level, own: str, space: str, action: Action, t: str, n: str, kind: str
):
    low, high = sorted((one, two))
    if allowed(Principal("p", (Grant(low, own, space),)), action, t, n, kind):
        assert allowed(Principal("p", (Grant(high, own, space),)), action, t, n, kind)


@given(actions, st.text(max_size=4) | targets, st.text(max_size=4) | targets, kinds)
def test_nobody_in_particular_sees_health_alone(
    action: Action, tenant: str, namespace: str, kind: str
):
    if allowed(ANONYMOUS, action, tenant, namespace, kind):
        assert (action, kind) == ("read", "health")


@given(st.sampled_from(["", "a/b", "..", ".", "t\n", "t ", "t1\0", "ü", "a" * 129]), actions, kinds)
def test_what_is_no_name_is_no_target(odd: str, action: Action, kind: str):
    root = Principal("root", (Grant(Level.FULL, EVERY, EVERY), Grant(Level.FULL, odd, EVERY)))
    if kind != "health":
        assert not allowed(root, action, odd, "n", kind)
        assert not allowed(root, action, "t", odd, kind)


def test_t1_does_not_see_t10():
    who = Principal("p", (Grant(Level.FULL, "t1", EVERY),))
    assert allowed(who, "read", "t1", "n", "function")
    assert authorize(who, "read", "t10", "n", "function") == Denied("no right")
    assert authorize(who, "read", EVERY, EVERY, "function") == Denied("no right")


def test_a_tenants_administrator_does_not_change_its_limits():
    who = Principal("p", grants_of(["/tenant/admin/t1"]))
    assert allowed(who, "read", "t1", EVERY, "tenant")
    assert authorize(who, "write", "t1", EVERY, "tenant") == Denied("no right")
    assert allowed(who, "write", "t1", "new", "namespace")
    assert allowed(who, "administer", "t1", EVERY, "apikey")


def test_a_namespaces_administrator_makes_no_namespace_and_no_key_of_the_tenant():
    who = Principal("p", grants_of(["/namespace/admin/t1/n"]))
    assert allowed(who, "write", "t1", "n", "function")
    assert allowed(who, "administer", "t1", "n", "apikey")
    assert not allowed(who, "administer", "t1", EVERY, "apikey")
    assert not allowed(who, "write", "t1", "n", "namespace")
    assert not allowed(who, "read", "t1", "n", "tenant")


def test_what_services_tell_is_written_by_services_alone():
    root = Principal("root", (Grant(Level.FULL, EVERY, EVERY),))
    for kind in ("node_info", "scheduler", "gateway", "funcstatus"):
        assert not allowed(root, "write", "system", "system", kind)
        assert allowed(SERVICE, "write", "system", "system", kind)


@given(st.lists(st.tuples(levels, targets, targets), max_size=4), names, names)
def test_an_actor_goes_as_far_as_the_rights_and_no_further(
    grants: list[tuple[Level, str, str]], tenant: str, namespace: str
):
    who = Principal("p", tuple(Grant(*grant) for grant in grants))
    actor = actor_for(who, tenant, namespace)
    assert (actor is not None) == allowed(who, "write", tenant, namespace, "function")
    if actor is None:
        return
    assert actor.keeps(tenant, namespace)
    assert actor.owns(tenant) == allowed(who, "write", tenant, namespace, "namespace")
    assert actor.is_admin == allowed(who, "write", tenant, EVERY, "tenant")
    assert not actor.keeps(tenant + "0", namespace) or actor.is_admin
    assert actor_for(SERVICE, tenant, namespace) == SYSTEM != actor


@pytest.mark.parametrize("kind", ["nothing", "", "Function", "function/"])
def test_what_is_not_in_the_table_is_refused(kind: str):
    for action in ACTIONS:
        assert not allowed(SERVICE, action, "t", "n", kind)


@pytest.mark.parametrize(
    ("role", "grant"),
    [
        ("/tenant/admin/T", Grant(Level.FULL, "T", EVERY)),
        ("/tenant/user/T", Grant(Level.READ, "T", EVERY)),
        ("/namespace/admin/T/N", Grant(Level.FULL, "T", "N")),
        ("/namespace/user/T/N", Grant(Level.READ, "T", "N")),
    ],
)
def test_realm_roles_are_the_references(role: str, grant: Grant):
    assert grants_of([role, 7, None, "offline_access"]) == (grant,)


@pytest.mark.parametrize(
    "role",
    [
        "/tenant/admin/*",
        "/tenant/admin/",
        "/tenant/admin/T/",
        "/tenant/admin/T/N",
        "/tenant/admin/system",
        "/tenant/owner/T",
        "/namespace/admin/T",
        "/namespace/admin/T/*",
        "/namespace/admin/T/N/M",
        "/namespace/user//N",
        "tenant/admin/T",
        " /tenant/admin/T",
        "/tenant/admin/T\n",
        "",
    ],
)
def test_a_role_that_reads_a_little_otherwise_grants_nothing(role: str):
    assert grants_of([role]) == ()


def test_the_clusters_role_is_whatever_it_is_called_and_nothing_by_default():
    assert grants_of(["/admin"]) == ()
    assert grants_of([""], admin_role="") == ()
    assert grants_of(["/admin"], admin_role="/admin") == (Grant(Level.FULL, EVERY, EVERY),)


def test_the_page_has_every_type_in_the_table():
    page = (Path(__file__).parents[3] / "docs/identity.md").read_text()
    table = page.partition("## Rights")[2].partition("## Limits")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(RIGHTS)

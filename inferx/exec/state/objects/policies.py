"""The policy that a function runs under, and what its tenant's limits leave of it.

Resolution follows the reference: a `funcpolicy` of the function's own tenant, namespace and name
wins; else the function's inline policy, or the one that its link names.
"""

from collections.abc import Iterator, Mapping

import msgspec

from inferx.core.types import FunctionSpec
from inferx.exec.state.objects.bodies import Limits
from inferx.exec.state.objects.envelope import Body, DataObject, Key, table_of
from inferx.spec.document import is_table
from inferx.spec.reference import chosen_policy, read_function_object, read_policy_object
from inferx.spec.shape import Policy

__all__ = ["limited", "link_of", "own_policy_key", "resolve", "stated_policy", "violations"]


def stated_policy(one: DataObject) -> Body:
    """Return the policy keys that a function or a policy object states; none of a link's."""
    if one.type == "funcpolicy":
        return one.object
    policy = _table_in(_table_in(one.object, "spec"), "policy")
    if "Link" in policy:
        return {}
    return _table_in(policy, "Obj") if "Obj" in policy else policy


def link_of(function: DataObject) -> Key | None:
    """Return the policy object that a function's link names; None if it has no link."""
    policy = _table_in(_table_in(function.object, "spec"), "policy")
    if "Link" not in policy:
        return None
    link = _table_in(policy, "Link")
    return Key("funcpolicy", function.tenant, str(link["namespace"]), str(link["name"]))


def own_policy_key(function: DataObject) -> Key:
    """Return what the policy object is called that wins over all that a function says."""
    return Key("funcpolicy", function.tenant, function.namespace, function.name)


def violations(stated: Body, limits: Limits) -> Iterator[tuple[str, object, str, object]]:
    """Yield the keys of a policy that ask for more than a tenant may: key, value, limit, bound.

    What is not stated is not asked for: a default above a limit is cut where it is used.
    """
    for key, limit in _LIMIT_OF.items():
        bound = getattr(limits, limit)
        value = stated.get(key, 0)
        assert isinstance(value, int), "a checked policy"
        if value > bound:
            yield key, value, limit, bound


def limited(policy: Policy, limits: Limits) -> Policy:
    """Return what is left of a policy: a limit that was lowered holds at once."""
    cut = {key: getattr(limits, limit) for key, limit in _LIMIT_OF.items()}
    least = {field: min(getattr(policy, field), bound) for field, bound in cut.items()}
    least["min_replica"] = min(least["min_replica"], least["max_replica"])
    return msgspec.structs.replace(policy, **least)


def resolve(
    function: DataObject, policies: Mapping[Key, DataObject], limits: Limits
) -> FunctionSpec | None:
    """Return a function as the kernel knows it; None while the policy it links to is not known.

    Args:
        function: A checked function.
        policies: At least the one of the function's own name, and the one it links to.
        limits: Its tenant's.
    """
    read = read_function_object(table_of(function))
    keys = (own_policy_key(function), link_of(function))
    known = {
        (key.tenant, key.namespace, key.name): read_policy_object(table_of(policies[key]))
        for key in keys
        if key is not None and key in policies
    }
    policy = chosen_policy(read, known)
    return None if policy is None else read.spec(limited(policy, limits))


def _table_in(body: Body, key: str) -> Body:
    value = body.get(key)
    return value if is_table(value) else {}


_LIMIT_OF = {
    "min_replica": "min_replica_cap",
    "max_replica": "max_replica",
    "standby_per_node": "max_standby",
    "queue_len": "max_queue_len",
}

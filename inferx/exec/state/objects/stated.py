"""What functions and policy objects say of a policy: the keys, and the links between them."""

from inferx.exec.state.objects.envelope import Body, DataObject, Key
from inferx.spec.document import is_table

__all__ = ["link_of", "own_policy_key", "stated_policy"]


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


def _table_in(body: Body, key: str) -> Body:
    value = body.get(key)
    return value if is_table(value) else {}

"""What a tenant's limits leave of what its functions and policies ask for.

What an object states above a limit is refused. What it does not state is not asked for: a default
above a limit is cut where it is used, and so is all that was there before a limit was lowered.
"""

from collections.abc import Mapping
from typing import cast

import msgspec

from inferx.exec.state.objects.bodies import Limits
from inferx.exec.state.objects.envelope import DataObject
from inferx.exec.state.objects.errors import LimitError
from inferx.exec.state.objects.stated import stated_policy
from inferx.spec.shape import Policy

__all__ = ["check_function", "check_policy", "limited"]

_LIMIT_OF: Mapping[str, str] = {
    "min_replica": "min_replica_cap",
    "max_replica": "max_replica",
    "standby_per_node": "max_standby",
    "queue_len": "max_queue_len",
}
"""Of each bounded key of a policy."""


def check_function(one: DataObject, limits: Limits) -> None:
    """Refuse a function that asks for more than its tenant may.

    Raises:
        LimitError: It does.
    """
    spec = cast("dict[str, dict[str, object]]", one.object["spec"])
    gpus = cast("dict[str, int]", spec.get("resources", {}).get("GPU", {})).get("Count", 1)
    if gpus > limits.max_gpu:
        raise LimitError(
            f"{one.key}: object.spec.resources.GPU.Count: the number {gpus}; "
            f"expected at most max_gpu of the tenant, which is {limits.max_gpu}"
        )
    if not limits.allow_mem_standby:
        for key, where in spec.get("standby", {}).items():
            if where == "Mem":
                raise LimitError(
                    f"{one.key}: object.spec.standby.{key}: Mem; expected File or Blob, "
                    "as allow_mem_standby of the tenant is false"
                )
    check_policy(one, limits)


def check_policy(one: DataObject, limits: Limits) -> None:
    """Refuse a policy object, or a function's own policy, that asks for more than its tenant may.

    Raises:
        LimitError: It does.
    """
    stated = stated_policy(one)
    for key, limit in _LIMIT_OF.items():
        value, bound = stated.get(key, 0), getattr(limits, limit)
        assert isinstance(value, int), "a checked policy"
        if value > bound:
            raise LimitError(
                f"{one.key}: {key}: the number {value}; "
                f"expected at most {limit} of the tenant, which is {bound}"
            )


def limited(policy: Policy, limits: Limits) -> Policy:
    """Return what is left of a policy: a limit that was lowered holds at once."""
    cut = {key: getattr(limits, limit) for key, limit in _LIMIT_OF.items()}
    least = {field: min(getattr(policy, field), bound) for field, bound in cut.items()}
    least["min_replica"] = min(least["min_replica"], least["max_replica"])
    return msgspec.structs.replace(policy, **least)

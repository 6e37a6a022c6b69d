"""A function as the kernel knows it: its own object, its policy, its tenant's limits, as one.

Resolution of the policy follows the reference: a `funcpolicy` of the function's own tenant,
namespace and name wins; else the inline policy, or the one that its link names.
"""

from collections.abc import Mapping

from inferx.core.types import FunctionSpec
from inferx.exec.state.objects.bodies import Limits
from inferx.exec.state.objects.envelope import DataObject, Key, table_of
from inferx.exec.state.objects.limits import limited
from inferx.exec.state.objects.stated import link_of, own_policy_key
from inferx.spec.reference import chosen_policy, read_function_object, read_policy_object

__all__ = ["resolve"]


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

"""The reference's JSON objects: `function` and `funcpolicy`.

Resolution of a function's policy follows the reference: a `funcpolicy` object of the same tenant,
namespace and name wins; else the inline policy, or the object that its link names.

Differs: a link that leads nowhere is an error, where the reference silently takes the defaults.
`nvidia_replica`, `standby`, `resources.CPU` and the container's own settings are checked for their
kind and otherwise ignored: they do not bear on scheduling here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferx.core.types import FunctionSpec
from inferx.core.units import MIB, NS_PER_S
from inferx.spec.container import check_container
from inferx.spec.document import Document, is_list, is_table, shown
from inferx.spec.hardware import MAX_GPUS
from inferx.spec.shape import (
    Policy,
    Shape,
    build,
    check_replicas,
    read_shape,
)
from inferx.spec.table import MAX_BYTES, Table, top_table

__all__ = [
    "NAME",
    "NAME_LIMIT",
    "NAME_PATTERN",
    "FunctionObject",
    "Key",
    "chosen_policy",
    "is_name",
    "kind_of",
    "objects_of",
    "read_function_object",
    "read_key",
    "read_objects",
    "read_policy_object",
]

Key = tuple[str, str, str]
"""Tenant, namespace, name."""

NAME_LIMIT = 128
NAME = f"1 to {NAME_LIMIT} letters, digits and - _ ., and no . first"

NAME_PATTERN = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"

_NAME = re.compile(NAME_PATTERN)
_BOOKKEEPING = ("labels", "annotations", "channelRev", "srcEpoch", "revision")
_TIMEOUT_LIMIT_S = 86_400 * 366


@dataclass(frozen=True, slots=True)
class FunctionObject:
    """What a function object says of scheduling. `policy` is its own, or the key of a link."""

    key: Key
    shape: Shape
    policy: Policy | Key
    table: Table
    policy_table: Table

    def spec(self, policy: Policy) -> FunctionSpec:
        """Return the kernel's description under a policy."""
        return build(self.key[2], self.key[0], self.shape, policy)


def objects_of(document: Document) -> list[Table]:
    """Return the objects of a document: itself, or the elements of a list."""
    if not is_list(document.root):
        return [top_table(document)]
    if not document.root:
        raise document.error((), "an empty list", "at least one object")
    objects: list[Table] = []
    for index, item in enumerate(document.root):
        if not is_table(item):
            raise document.error((index,), shown(item), "an object")
        objects.append(Table(document, (index,), item))
    return objects


def read_objects(objects: Sequence[Table]) -> list[tuple[FunctionSpec, Table]]:
    """Read all objects of a deployment together, since policies are found by name."""
    functions: dict[Key, FunctionObject] = {}
    policies: dict[Key, Policy] = {}
    for table in objects:
        kind = kind_of(table, ("function", "funcpolicy"))
        key = read_key(table)
        if key in (functions if kind == "function" else policies):
            raise table.error("name", f"{'/'.join(key)} a second time", f"each {kind} once")
        if kind == "function":
            functions[key] = read_function_object(table)
        else:
            policies[key] = read_policy_object(table)
    return [(one.spec(_policy_in(one, policies)), one.table) for one in functions.values()]


def kind_of(table: Table, choices: Sequence[str]) -> str:
    """Return the type of an object, one of `choices`."""
    return table.text("objType" if "objType" in table else "type", choices=choices)


def is_name(text: str) -> bool:
    """Say whether objects may be called `text`: names are parts of keys, paths and URLs."""
    return len(text) <= NAME_LIMIT and _NAME.fullmatch(text) is not None


def read_key(table: Table) -> Key:
    """Return what an object is called."""
    parts: list[str] = []
    for key in ("tenant", "namespace", "name"):
        text = table.text(key)
        if not is_name(text):
            raise table.error(key, shown(text), NAME)
        parts.append(text)
    table.opaque(*_BOOKKEEPING)
    return parts[0], parts[1], parts[2]


def chosen_policy(function: FunctionObject, policies: Mapping[Key, Policy]) -> Policy | None:
    """Return the policy that a function runs under; None if its link leads nowhere.

    One of the function's own name wins over what the function says.
    """
    named = policies.get(function.key)
    if named is not None:
        return named
    return policies.get(function.policy) if isinstance(function.policy, tuple) else function.policy


def read_function_object(table: Table) -> FunctionObject:
    """Read a `function` object, and check all of it."""
    kind_of(table, ("function",))
    key = read_key(table)
    # Some published files leave out the `object` around the specification.
    holder = table.table("object") if "object" in table else table
    if "spec" not in holder:
        raise holder.error("spec", "nothing", "the function's specification")
    spec = holder.table("spec")
    policy_table = spec.table("policy")
    policy = _stated_policy(policy_table, key[0])
    shape = _shape(spec)
    check_container(spec)
    spec.close()
    if holder is not table:
        holder.opaque("status")
        holder.close()
    table.close()
    return FunctionObject(key, shape, policy, table, policy_table)


def _shape(spec: Table) -> Shape:
    resources = spec.table("resources")
    for key in ("CPU", "Mem", "ReadyMem", "CacheMem"):
        resources.number(key, 0)
    gpu = resources.table("GPU")
    gpus = gpu.integer("Count", minimum=1, maximum=MAX_GPUS)
    hbm_bytes = gpu.integer("vRam", minimum=1, maximum=MAX_BYTES // MIB) * MIB
    gpu_type = gpu.text("Type", "Any")
    gpu.integer("contextCount", 0)
    gpu.close()
    resources.close()
    extension = spec.table("inferx")
    shape = read_shape(extension, gpus=gpus, hbm_bytes=hbm_bytes, gpu_type=gpu_type)
    for key in ("quiesce", "wake"):
        _check_hook(extension, key)
    # How long a node waits for it does not bear on scheduling.
    extension.opaque("ready_timeout_ns", "ready_timeout_ms", "ready_timeout_s")
    extension.close()
    return shape


def _check_hook(extension: Table, key: str) -> None:
    """Check what a node agent posts before it freezes a pod (`quiesce`), or after (`wake`)."""
    if key not in extension:
        return
    hook = extension.table(key)
    path = hook.text("path")
    if not path.startswith("/"):
        raise hook.error("path", shown(path), "a path of the pod's HTTP server, from its /")
    hook.opaque("body")
    hook.close()


def _policy_in(function: FunctionObject, policies: Mapping[Key, Policy]) -> Policy:
    policy = chosen_policy(function, policies)
    if policy is None:
        assert isinstance(function.policy, tuple)
        found = f"a link to {'/'.join(function.policy)}, which is not here"
        raise function.policy_table.error("Link", found, "a funcpolicy object of the same load")
    return policy


def _stated_policy(reference: Table, tenant: str) -> Policy | Key:
    if "Link" in reference:
        link = reference.table("Link")
        target = (tenant, link.text("namespace"), link.text("name"))
        link.text("objType", choices=("funcpolicy",))
        link.close()
        reference.close()
        return target
    if "Obj" in reference:
        policy = _policy(reference.table("Obj"))
        reference.close()
        return policy
    return _policy(reference)


def read_policy_object(table: Table) -> Policy:
    """Read a `funcpolicy` object, and check all of it."""
    kind_of(table, ("funcpolicy",))
    read_key(table)
    body = table.table("object")
    if "spec" in body:
        inner = body.table("spec")
        body.opaque("status")
        body.close()
        body = inner
    table.close()
    return _policy(body)


def _policy(table: Table) -> Policy:
    base = Policy()
    scaleout = table.table("scaleout_policy")
    ratio = scaleout.table("WaitQueueRatio")
    count = 1_000_000
    policy = Policy(
        slots=table.integer("parallel", base.slots, minimum=1, maximum=count),
        queue_len=table.integer("queue_len", base.queue_len, maximum=count),
        queue_timeout_ns=_seconds(table, "queue_timeout", base.queue_timeout_ns),
        linger_ns=_seconds(table, "scalein_timeout", base.linger_ns),
        wait_ratio=ratio.number("wait_ratio", base.wait_ratio, maximum=1_000),
        min_replica=table.integer("min_replica", base.min_replica, maximum=count),
        max_replica=table.integer("max_replica", base.max_replica, minimum=1, maximum=count),
        standby_per_node=table.integer("standby_per_node", base.standby_per_node, maximum=count),
    )
    table.integer("nvidia_replica", 0)
    table.opaque("runtime_config")
    for part in (ratio, scaleout, table):
        part.close()
    check_replicas(table, policy)
    return policy


def _seconds(table: Table, key: str, default_ns: int) -> int:
    return round(table.number(key, default_ns / NS_PER_S, maximum=_TIMEOUT_LIMIT_S) * NS_PER_S)

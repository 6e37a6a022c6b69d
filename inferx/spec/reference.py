"""The reference's JSON objects: `function` and `funcpolicy`.

Resolution of a function's policy follows the reference: a `funcpolicy` object of the same tenant,
namespace and name wins; else the inline policy, or the object that its link names.

Differs: a link that leads nowhere is an error, where the reference silently takes the defaults.
`nvidia_replica`, `standby`, `resources.CPU` and the container's own settings are checked for their
kind and otherwise ignored: they do not bear on scheduling here.
"""

import re
from collections.abc import Mapping, Sequence

from inferx.core.types import FunctionSpec
from inferx.core.units import MIB, NS_PER_S
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

__all__ = ["objects_of", "read_objects"]

_Key = tuple[str, str, str]
"""Tenant, namespace, name."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_STANDBY = ("File", "Mem", "Blob")
_BOOKKEEPING = ("labels", "annotations", "channelRev", "srcEpoch", "revision")
_TIMEOUT_LIMIT_S = 86_400 * 366


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
    functions: dict[_Key, Table] = {}
    policies: dict[_Key, Policy] = {}
    for table in objects:
        alias = "objType" if "objType" in table else "type"
        kind = table.text(alias, choices=("function", "funcpolicy"))
        key = _key(table)
        if key in (functions if kind == "function" else policies):
            raise table.error("name", f"{'/'.join(key)} a second time", f"each {kind} once")
        if kind == "function":
            functions[key] = table
        else:
            policies[key] = _policy_object(table)
    return [(_function(key, table, policies), table) for key, table in functions.items()]


def _key(table: Table) -> _Key:
    parts: list[str] = []
    for key in ("tenant", "namespace", "name"):
        text = table.text(key)
        if not _NAME.fullmatch(text):
            raise table.error(key, shown(text), "letters, digits and - _ .")
        parts.append(text)
    table.opaque(*_BOOKKEEPING)
    return parts[0], parts[1], parts[2]


def _function(key: _Key, table: Table, policies: Mapping[_Key, Policy]) -> FunctionSpec:
    # Some published files leave out the `object` around the specification.
    holder = table.table("object") if "object" in table else table
    if "spec" not in holder:
        raise holder.error("spec", "nothing", "the function's specification")
    spec = holder.table("spec")
    inline = _inline_policy(spec, key, policies)
    shape = _shape(spec)
    _check_container(spec)
    spec.close()
    if holder is not table:
        holder.opaque("status")
        holder.close()
    table.close()
    return build(key[2], key[0], shape, policies.get(key, inline))


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


def _inline_policy(spec: Table, key: _Key, policies: Mapping[_Key, Policy]) -> Policy:
    reference = spec.table("policy")
    if "Link" in reference:
        link = reference.table("Link")
        target = (key[0], link.text("namespace"), link.text("name"))
        link.text("objType", choices=("funcpolicy",))
        link.close()
        reference.close()
        if target in policies:
            return policies[target]
        if key in policies:
            return Policy()
        found = f"a link to {'/'.join(target)}, which is not here"
        raise reference.error("Link", found, "a funcpolicy object of the same load")
    if "Obj" in reference:
        policy = _policy(reference.table("Obj"))
        reference.close()
        return policy
    return _policy(reference)


def _policy_object(table: Table) -> Policy:
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


def _check_container(spec: Table) -> None:
    """Check the kind of what the container needs; nothing of it is kept."""
    spec.text("image", "-")
    spec.integer("version", 0, maximum=1 << 62)
    for key in ("commands", "entrypoint", "envs", "mounts", "mountfiles"):
        if key in spec and not is_list(spec.values[key]):
            raise spec.error(key, shown(spec.values[key]), "a list")
    endpoint = spec.table("endpoint")
    endpoint.integer("port", 8000, minimum=1, maximum=65_535)
    endpoint.text("schema", "Http", ("Http", "Https"))
    endpoint.integer("probeTimeout", 1000)
    # `path` is from before `probe`; the other keys say how the container is asked for its health.
    endpoint.opaque("probe", "path", "probetype", "root_svc", "sub_svcs")
    endpoint.close()
    standby = spec.table("standby")
    for key in ("gpu", "pageable", "pinned"):
        standby.text(key, "File", _STANDBY)
    standby.close()
    sample = spec.table("sample_query")
    sample.opaque("apiType", "raw_query", "path", "prompt", "prompts", "dataUrl", "max_tokens")
    sample.opaque("body", "loadingTimeout")
    sample.close()
    # `probe` and `api_type` beside `endpoint` are an older form of `endpoint` and `sample_query`.
    spec.opaque("probe", "api_type", "model_type", "catalog_source", "runtime")

"""What one pod holds and how it is scaled: the two halves of a function, and their defaults.

A snapshot is taken after the KV cache was released. Where only the memory of a slice is known:

- `weight` is half of all slices: engines give weights and KV cache comparable room.
- `device` is the weights and 1 GiB a GPU, for a CUDA context (0.5 to 1 GiB a process) and captured
  graphs; never more than all slices.
- `host` is 2 GiB and 1 GiB a GPU: Python and torch hold 1 to 5 GiB of host pages.
"""

import msgspec

from inferx.core.types import FunctionSpec
from inferx.core.units import GIB, MILLI_PER_GPU, NS_PER_S
from inferx.spec.hardware import MAX_GPUS
from inferx.spec.table import Table

__all__ = [
    "DEFAULT_MILLI_GPU",
    "ENFORCEMENTS",
    "LABEL",
    "LABEL_LIMIT",
    "Policy",
    "Shape",
    "build",
    "check_replicas",
    "is_label",
    "read_policy",
    "read_shape",
    "read_slice_shape",
]

DEFAULT_MILLI_GPU = 100
"""Compute share where none is stated: small, so that memory decides how many pods share a GPU."""
ENFORCEMENTS = ("none", "env", "hook", "mps", "mig", "exclusive")
LABEL_LIMIT = 256
LABEL = f"1 to {LABEL_LIMIT} printable characters, none of them a blank at an end"

_PRIORITY_LIMIT = 1_000
_COUNT_LIMIT = 1_000_000


class Shape(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How much one pod holds and how it shares; the fields are `FunctionSpec`'s."""

    gpus: int
    hbm_bytes: int
    gpu_type: str
    milli_gpu: int
    enforcement: str
    weight_bytes: int
    device_bytes: int
    host_bytes: int
    priority: int


class Policy(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How a function queues and scales; the defaults are the reference's."""

    slots: int = 50
    queue_len: int = 100
    queue_timeout_ns: int = 30 * NS_PER_S
    linger_ns: int = NS_PER_S
    wait_ratio: float = 0.1
    min_replica: int = 0
    max_replica: int = 1
    standby_per_node: int = 1


def build(name: str, tenant: str, shape: Shape, policy: Policy) -> FunctionSpec:
    """Join the halves into the kernel's description."""
    halves = msgspec.structs.asdict(shape) | msgspec.structs.asdict(policy)
    return FunctionSpec(name=name, tenant=tenant, **halves)


def is_label(text: str) -> bool:
    """Say whether a trace may call a function or tenant `text`: printable, and no stray blanks."""
    return 0 < len(text) <= LABEL_LIMIT and text.isprintable() and text == text.strip()


def read_shape(table: Table, *, gpus: int, hbm_bytes: int, gpu_type: str) -> Shape:
    """Read the keys that refine a pod of `gpus` slices of `hbm_bytes`; absent ones are derived."""
    total = gpus * hbm_bytes
    weight = table.size("weight", total // 2, minimum=1)
    device = table.size("device", 0, minimum=1)
    if not device:
        # Weights above the slices are quantised on the way in; then only the author knows.
        device = weight + gpus * GIB if weight > total else min(total, weight + gpus * GIB)
    if device > total:
        stems = ("device_", "weight_")
        key = next((key for stem in stems for key in table.values if key.startswith(stem)), None)
        found = f"{device} bytes of device memory"
        raise table.error(key, found, f"at most {total}, all GPU memory of a pod")
    return Shape(
        gpus=gpus,
        hbm_bytes=hbm_bytes,
        gpu_type=gpu_type,
        milli_gpu=table.integer("milli_gpu", DEFAULT_MILLI_GPU, minimum=1, maximum=MILLI_PER_GPU),
        enforcement=table.text("enforcement", "none", ENFORCEMENTS),
        weight_bytes=weight,
        device_bytes=device,
        host_bytes=table.size("host", (2 + gpus) * GIB, minimum=1),
        priority=table.integer("priority", 0, minimum=-_PRIORITY_LIMIT, maximum=_PRIORITY_LIMIT),
    )


def read_slice_shape(table: Table) -> Shape:
    """Read a whole shape: `gpus`, `hbm_*` and `gpu_type` as well."""
    return read_shape(
        table,
        gpus=table.integer("gpus", 1, minimum=1, maximum=MAX_GPUS),
        hbm_bytes=table.size("hbm", minimum=1),
        gpu_type=table.text("gpu_type", "Any"),
    )


def read_policy(table: Table, base: Policy) -> Policy:
    """Read the scaling keys of a table; a key that is absent keeps `base`'s value."""
    policy = Policy(
        slots=table.integer("slots", base.slots, minimum=1, maximum=_COUNT_LIMIT),
        queue_len=table.integer("queue_len", base.queue_len, maximum=_COUNT_LIMIT),
        queue_timeout_ns=table.duration("queue_timeout", base.queue_timeout_ns),
        linger_ns=table.duration("linger", base.linger_ns),
        wait_ratio=table.number("wait_ratio", base.wait_ratio, maximum=1_000),
        min_replica=table.integer("min_replica", base.min_replica, maximum=_COUNT_LIMIT),
        max_replica=table.integer("max_replica", base.max_replica, minimum=1, maximum=_COUNT_LIMIT),
        standby_per_node=table.integer(
            "standby_per_node", base.standby_per_node, maximum=_COUNT_LIMIT
        ),
    )
    check_replicas(table, policy)
    return policy


def check_replicas(table: Table, policy: Policy) -> None:
    """Refuse a floor above the ceiling."""
    if policy.min_replica > policy.max_replica:
        raise table.error(
            "min_replica",
            f"the number {policy.min_replica}",
            f"at most max_replica, which is {policy.max_replica}",
        )

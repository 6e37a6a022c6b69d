"""The least times of a world: starts and services as if everything else stood still.

Whatever a policy does, no start and no service of a run is shorter, but for one draw of jitter in a
billion (`Profile.least_ns`). Links carry one start alone, a request has its GPUs to itself, and the
best node that could hold the function is the one it is on.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from inferx.core.errors import DescriptionError
from inferx.core.types import F64, FunctionSpec, NodeSpec, Tier
from inferx.core.units import MILLI_PER_GPU, NS_PER_S
from inferx.sim.clock import SimClock
from inferx.sim.device import Link, NodeDevices
from inferx.sim.profile import Operation, Profile
from inferx.sim.workload.trace import Trace
from inferx.sim.world import World
from inferx.spec.serving import serving_for

__all__ = ["LeastStarts", "least_service_s", "least_starts"]

_ROUNDING_S = 1e-8
"""The simulator rounds instants to nanoseconds, a few times a request."""


@dataclass(frozen=True, slots=True)
class LeastStarts:
    """Least start-up times in seconds; shape (functions,), infinite where no node fits."""

    any_s: F64
    """From the warmest tier that the profile offers, host memory before all."""
    below_s: F64
    """From below host memory: what was not suspended there."""
    first_s: F64
    """The first start of a run: nothing is in host memory yet, snapshots are where they were
    prepared."""


def _fits(function: FunctionSpec, node: NodeSpec) -> bool:
    return (
        function.gpu_type in {"Any", node.gpu_type}
        and function.gpus <= node.gpus
        and function.hbm_bytes <= node.hbm_bytes
        and function.milli_gpu <= MILLI_PER_GPU
    )


def _kinds(nodes: Sequence[NodeSpec]) -> list[NodeSpec]:
    """One node of each kind: of equal links, GPUs and host memory, all times are equal."""
    kinds = {(n.links, n.gpu_type, n.gpus, n.hbm_bytes, n.host_bytes): n for n in nodes}
    return list(kinds.values())


def least_starts(world: World) -> LeastStarts:
    """Return the least start-up times of a world's functions."""
    kinds = _kinds(world.nodes)
    store = Link("object-store", max(1, sum(node.links.network for node in world.nodes)))
    if world.object_store_bytes_per_s:
        store = Link("object-store", world.object_store_bytes_per_s)
    devices = [NodeDevices(SimClock(), node, store) for node in kinds]
    any_s = np.full(len(world.functions), math.inf)
    below_s, first_s = any_s.copy(), any_s.copy()
    for row, function in enumerate(world.functions):
        for node, device in zip(kinds, devices, strict=True):
            if _fits(function, node):
                first, resumed, below = _on(world.profile, function, device, world.prepared)
                first_s[row] = min(first_s[row], first)
                below_s[row] = min(below_s[row], below)
                any_s[row] = min(any_s[row], first, resumed, below)
    return LeastStarts(any_s, below_s, first_s)


def _on(
    profile: Profile, function: FunctionSpec, devices: NodeDevices, prepared: str
) -> tuple[float, float, float]:
    """Return the least first start on a kind of node; of later ones, a resume's and all others'."""
    gpus = tuple(range(function.gpus))

    def least_s(operation: Operation, source: Tier, on: tuple[int, ...] = gpus) -> float:
        if not profile.offers(operation):
            return math.inf
        try:
            took_ns = profile.least_ns(operation, function, devices, gpus=on, source=source)
        except DescriptionError:  # A link that it needs is absent: nothing starts so.
            return math.inf
        return took_ns / NS_PER_S - _ROUNDING_S

    resume_s = math.inf
    if function.host_bytes + function.device_bytes <= devices.node.host_bytes:
        resume_s = least_s("resume", Tier.DRAM)
    disk_s, store_s = least_s("restore", Tier.NVME), least_s("restore", Tier.REMOTE)
    first_s = least_s("cold", Tier.REMOTE)
    below_s = min(disk_s, store_s, least_s("cold", Tier.NVME), first_s)
    if prepared != "none":
        fetched_s = least_s("copy_in", Tier.REMOTE, ()) + disk_s
        first_s = min(first_s, store_s, fetched_s)
        # Into host memory without a GPU, and from there onto one.
        first_s = min(first_s, least_s("restore", Tier.REMOTE, ()) + resume_s)
    if prepared == "nvme":
        first_s = min(first_s, disk_s, least_s("restore", Tier.NVME, ()) + resume_s)
    return max(0.0, first_s), max(0.0, resume_s), max(0.0, below_s)


def least_service_s(
    trace: Trace, functions: Sequence[FunctionSpec], nodes: Iterable[NodeSpec], profile: Profile
) -> F64:
    """Return each request's least service time, alone on the best GPUs. Shape (requests,)."""
    service = trace.duration_ns.astype(np.float64) / NS_PER_S
    tokens = trace.output_tokens > 0
    if tokens.any():
        prefill = np.full(len(functions), math.inf)
        step = prefill.copy()
        kinds = _kinds(list(nodes))
        used: list[int] = np.unique(trace.function[tokens]).tolist()
        for row in used:
            function = functions[row]
            for node in kinds:
                if not _fits(function, node):
                    continue
                try:
                    speed = profile.speed(function.name) or serving_for(function, node.gpu_type)
                except DescriptionError:  # Such a run is refused; another GPU's may not be.
                    continue
                prefill[row] = min(prefill[row], 1.0 / speed.prefill_tokens_per_s)
                step_s = (speed.decode_base_ns + speed.decode_per_request_ns) / NS_PER_S
                step[row] = min(step[row], step_s)
        # Where nothing fits nothing is served; its requests time out whatever they need.
        prefill[np.isinf(prefill)] = step[np.isinf(step)] = 0.0
        at = trace.function
        # In two steps: a function without token speed must not make 0 x infinity.
        spent = trace.input_tokens * prefill[at] + np.maximum(trace.output_tokens - 1, 0) * step[at]
        service = np.where(tokens, spent, service)
    least: F64 = np.maximum(service - _ROUNDING_S, 0.0)
    return least

"""What an agent tells: its counts, and how its node stands.

The driver, the disks and the pods' cgroups are asked when somebody scrapes, in a thread: they may
take their time, and one that cannot answer hides nothing else.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from inferx.core.units import MILLI_PER_GPU
from inferx.exec.agent.host_memory import available_bytes
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.service import AgentService
from inferx.exec.agent.store import FolderTier
from inferx.exec.metrics.families import Family, Piece

__all__ = ["FAMILIES", "NodeSource"]

_GPU: Final = ("gpu", "uuid")
STATES: Final = (
    *("creating", "restoring", "ready", "suspending", "standby", "resuming", "snapshotting"),
    "stopping",
)
"""Of pods, as their records have them."""

COMMANDS: Final = Family(
    "inferx_agent_commands",
    "counter",
    "Commands carried out, by how they ended: done, or the step that failed.",
    ("command", "outcome"),
)
PHASES: Final = Family(
    "inferx_agent_phase_seconds", "histogram", "Steps of commands, failed ones too.",
    ("command", "phase"),
)  # fmt: skip
MOVED: Final = Family(
    "inferx_agent_phase_moved_bytes", "counter", "Bytes that steps moved.", ("command", "phase")
)
THROTTLES: Final = Family(
    "inferx_agent_throttles",
    "counter",
    "Pods stopped for holding more GPU memory than their share.",
)
ERRORS: Final = Family(
    "inferx_agent_scrape_errors",
    "counter",
    "Times that a part of the node did not answer a scrape.",
)
PODS: Final = Family("inferx_agent_pods", "gauge", "Pods by state.", ("state",))
STUCK: Final = Family("inferx_agent_stuck_pods", "gauge", "Pods that could not be ended.")
THROTTLED: Final = Family("inferx_agent_throttled_pods", "gauge", "Pods stopped at present.")
GPU_TOTAL: Final = Family("inferx_agent_gpu_memory_bytes", "gauge", "Memory of a GPU.", _GPU)
GPU_USED: Final = Family(
    "inferx_agent_gpu_memory_used_bytes", "gauge", "Memory in use, as the driver tells.", _GPU
)
GPU_CHARGED: Final = Family(
    "inferx_agent_gpu_memory_charged_bytes", "gauge", "Memory promised to pods.", _GPU
)
GPU_SHARE: Final = Family(
    "inferx_agent_gpu_compute_charged_ratio", "gauge", "Part of a GPU promised to pods.", _GPU
)
HOST_PROMISED: Final = Family(
    "inferx_agent_host_memory_promised_bytes", "gauge", "Host memory promised and not yet taken."
)
HOST_FREE: Final = Family(
    "inferx_agent_host_memory_available_bytes", "gauge", "What the kernel could give now."
)
TIER_USED: Final = Family(
    "inferx_agent_snapshot_bytes", "gauge", "Snapshots, and what is reserved for them.", ("tier",)
)
TIER_BUDGET: Final = Family(
    "inferx_agent_snapshot_budget_bytes", "gauge", "What snapshots may take.", ("tier",)
)
SNAPSHOTS: Final = Family(
    "inferx_agent_snapshots", "gauge", "Snapshots that can be used.", ("tier",)
)
UNREADABLE: Final = Family(
    "inferx_agent_unreadable_snapshots", "gauge", "Snapshots that cannot be used.", ("tier",)
)
FAMILIES: Final = (
    *(COMMANDS, PHASES, MOVED, THROTTLES, ERRORS, PODS, STUCK, THROTTLED, GPU_TOTAL, GPU_USED),
    *(GPU_CHARGED, GPU_SHARE, HOST_PROMISED, HOST_FREE, TIER_USED, TIER_BUDGET, SNAPSHOTS),
    UNREADABLE,
)

_log = logging.getLogger(__name__)


class NodeSource:
    """One agent's."""

    def __init__(self, service: AgentService) -> None:
        self._service = service

    async def pieces(self) -> AsyncIterator[Piece]:
        """See `MetricSource`."""
        service, counts = self._service, self._service.counts
        for look in (self._pods, self._gpus, self._host, self._snapshots):
            try:
                found = await asyncio.to_thread(_all, look)
            except (AgentError, OSError) as error:
                counts.scrape_errors += 1
                _log.warning("metrics: %s", error)
                continue
            for piece in found:
                yield piece
        yield THROTTLED.one(len(service.guard.throttled))
        yield THROTTLES.one(service.guard.throttles)
        yield COMMANDS.of(sorted(counts.commands.items()))
        yield MOVED.of(sorted(counts.moved.items()))
        yield PHASES.spread(sorted(counts.phases.items(), key=lambda item: item[0]))
        yield ERRORS.one(counts.scrape_errors)

    def _pods(self) -> Iterator[Piece]:
        pods = self._service.executor.pods
        states = dict.fromkeys(STATES, 0)
        stuck = pods.stuck()
        for record in (*(one.record for one in pods.all()), *stuck):
            states[record.state] = states.get(record.state, 0) + 1
        yield PODS.of(((state,), count) for state, count in states.items())
        yield STUCK.one(len(stuck))

    def _gpus(self) -> Iterator[Piece]:
        room = self._service.executor.pods.room
        gpus = [((str(gpu.index), gpu.uuid), gpu) for gpu in room.gpus() if not gpu.mig_enabled]
        slices = [one for held in room.held().values() for one in held]
        charged = {key: [one for one in slices if one.gpu == gpu.uuid] for key, gpu in gpus}
        yield GPU_TOTAL.of((key, gpu.memory_total) for key, gpu in gpus)
        yield GPU_USED.of((key, gpu.memory_used) for key, gpu in gpus)
        yield GPU_CHARGED.of(
            (key, sum(one.hbm_bytes for one in held)) for key, held in charged.items()
        )
        yield GPU_SHARE.of(
            (key, sum(one.milli_gpu for one in held) / MILLI_PER_GPU)
            for key, held in charged.items()
        )

    def _host(self) -> Iterator[Piece]:
        yield HOST_PROMISED.one(self._service.executor.pods.host_room.promised_bytes())
        yield HOST_FREE.one(available_bytes())

    def _snapshots(self) -> Iterator[Piece]:
        # Not of a bucket: a scrape must not wait for it, and every node would count the same.
        tiers = [
            (tier.name, tier, tier.contents())
            for tier in self._service.executor.pods.node.store.tiers
            if isinstance(tier, FolderTier)
        ]
        yield TIER_USED.of(((name,), tier.used_bytes()) for name, tier, _ in tiers)
        yield TIER_BUDGET.of(((name,), tier.budget_bytes) for name, tier, _ in tiers)
        yield SNAPSHOTS.of(((name,), len(one.manifests)) for name, _, one in tiers)
        yield UNREADABLE.of(((name,), len(one.unreadable)) for name, _, one in tiers)


def _all(look: Callable[[], Iterator[Piece]]) -> list[Piece]:
    return list(look())

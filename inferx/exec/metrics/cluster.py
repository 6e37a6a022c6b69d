"""What a scheduler tells: its counts, and while it leads how the cluster stands.

The kernel's own counters begin anew with each term; here they go on. Names in one word are the
reference's.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Final

from inferx.core.cluster import Cluster
from inferx.core.lifecycle import REFERENCE_NAME
from inferx.core.units import MILLI_PER_GPU
from inferx.exec.metrics.families import Counts, Family, Piece
from inferx.exec.metrics.scheduler import SchedulerCounts, called
from inferx.exec.scheduler.leader import Term

__all__ = ["FAMILIES", "KERNEL", "SchedulerSource"]

_REFERENCE: Final = ("tenant", "namespace", "funcname")

LEADER: Final = Family("inferx_scheduler_leader", "gauge", "1 while this scheduler leads.")
EPOCH: Final = Family(
    "inferx_scheduler_epoch", "gauge", "The latest term that it led; 0 before the first."
)
TERMS: Final = Family("inferx_scheduler_terms", "counter", "Terms that it began to lead.")
DECISIONS: Final = Family(
    "inferx_scheduler_decisions", "counter", "Decisions by kind.", ("policy", "kind")
)
DEFERRALS: Final = Family(
    "inferx_scheduler_deferrals",
    "counter",
    "Decisions to wait, by the policy's reason.",
    ("reason",),
)
STEP: Final = Family(
    "inferx_scheduler_step_seconds",
    "histogram",
    "How long a step of the machine took, its journal included; whether something was decided.",
    ("decided",),
)
START: Final = Family(
    "inferx_scheduler_start_seconds",
    "histogram",
    "From the command to a started pod, by what it was started from.",
    ("start",),
)
COMMANDS: Final = Family(
    "inferx_scheduler_commands", "counter", "Commands to nodes, repeated ones too.", ("command",)
)
WANTS: Final = Family(
    "inferx_scheduler_wants_waiting", "gauge", "Functions of which a pod waits for room."
)
UNANSWERED: Final = Family(
    "inferx_scheduler_commands_unanswered", "gauge", "Commands whose answer is not there yet."
)
PODS: Final = Family("inferx_scheduler_pods", "gauge", "Pods by the reference's state.", ("state",))
NODES: Final = Family(
    "inferx_scheduler_nodes", "gauge", "Nodes: all alive, and those with a line.", ("state",)
)
GATEWAYS: Final = Family("inferx_scheduler_gateways", "gauge", "Gateways that have a line.")
CHARGED: Final = Family(
    "inferx_scheduler_gpus_charged", "gauge", "GPUs charged to pods, in parts of a GPU.", ("node",)
)
HBM: Final = Family(
    "inferx_scheduler_gpu_memory_charged_bytes", "gauge", "GPU memory charged to pods.", ("node",)
)
HOST: Final = Family(
    "inferx_scheduler_host_memory_charged_bytes", "gauge", "Host memory charged to pods.", ("node",)
)
JOURNAL: Final = Family(
    "inferx_scheduler_journal_bytes", "gauge", "Size of the present term's journal."
)
LEASES: Final = Family(
    "podLeaseCnt",
    "counter",
    "Leases given, by function, its version, and node.",
    (*_REFERENCE, "revision", "nodename"),
)
COLD_LEASE: Final = Family(
    "coldStartPodLatency",
    "histogram",
    "Seconds from the oldest waiting request to the lease of a pod started for it.",
    _REFERENCE,
)
USED: Final = Family(
    "usedGPU", "gauge", "GPUs of pods that are leased, in parts of one.", ("nodename",)
)
TOTAL: Final = Family("totalGPU", "gauge", "GPUs of a node.", ("nodename",))
GPU_COUNT: Final = Family(
    "gpu_count",
    "gauge",
    "GPUs of each leased pod, in parts of a GPU.",
    (*_REFERENCE, "kind", "node_name", "pod_id"),
)

KERNEL: Final[Mapping[str, Family]] = {
    name: Family(f"inferx_scheduler_{name}", "counter", says)
    for name, says in (
        ("evictions", "Pods that left for others."),
        ("forced_drains", "Wants that waited too long and got the room of pods that served."),
        ("recalls", "Pods whose leases were called back."),
        ("suspends", "Pods moved to host memory."),
        ("snapshots", "Snapshots ordered."),
        ("stops", "Pods ordered to end."),
        ("stops_again", "Ends ordered again, of pods that could not be ended."),
        ("ends", "Ends of pods that whoever runs the cluster asked for."),
        ("kills", "Of these, pods that were ended at once while they served."),
        ("no_room_in_dram", "Pods that found no room in host memory and went further down."),
        ("no_room_on_disk", "Pods that found no room on the disk and went further down."),
        ("pods_failed", "Pods that broke, or did not come up."),
        ("pods_adopted", "Pods taken over from an older leader."),
        ("orphans", "Pods that nobody knew and that were ended."),
        ("nodes_lost", "Nodes given up."),
        ("nodes_unhealthy", "Nodes closed for a pod that could not be ended."),
        ("policy_errors", "Answers of the policy that could not be used."),
        ("commands_repeated", "Commands that had to be sent again."),
        ("commands_refused", "Commands that a node refused for a newer leader."),
        ("wrong_answers", "Facts of nodes that do not answer what they were asked."),
    )
}
"""The kernel's counters, but those of starts."""
STARTS_OF: Final = "starts_"
"""Begins the kernel's counters of starts."""
STARTED: Final = Family(
    "inferx_scheduler_starts", "counter", "Pods that became ready, by what from.", ("start",)
)
CLUSTER: Final = (
    *(WANTS, UNANSWERED, GATEWAYS, NODES, PODS, USED, GPU_COUNT, TOTAL, CHARGED, HBM, HOST),
)
FAMILIES: Final = (
    *(LEADER, EPOCH, TERMS, DECISIONS, DEFERRALS, STEP, START, STARTED, COMMANDS, JOURNAL),
    *(LEASES, COLD_LEASE, *KERNEL.values(), *CLUSTER),
)


class SchedulerSource:
    """Tells what a scheduler counted, and while it leads how the cluster stands.

    Args:
        counts: The scheduler's.
        term: Gives its present term; None while it does not lead.
    """

    def __init__(self, counts: SchedulerCounts, term: Callable[[], Term | None]) -> None:
        self._counts = counts
        self._term = term

    async def pieces(self) -> AsyncIterator[Piece]:
        """See `MetricSource`."""
        term = self._term()
        for piece in (*self._counted(term), *self._cluster(term)):
            yield piece

    def _counted(self, term: Term | None) -> Iterator[Piece]:
        counts = self._counts
        yield LEADER.one(term is not None)
        yield EPOCH.one(counts.epoch)
        yield TERMS.one(counts.terms)
        yield DECISIONS.of(counts.decisions.by_label(counts.policy))
        yield DEFERRALS.of(counts.deferrals.by_label())
        yield COMMANDS.of(counts.commands.by_label())
        yield STEP.spread(((decided,), one) for decided, one in counts.steps.items())
        yield START.spread(((start,), one) for start, one in counts.starts.items())
        kernel = Counts(counts.kernel)
        for name, count in (term.machine.fleet.counters if term else {}).items():
            kernel.add(name, count)
        for name, family in KERNEL.items():
            yield family.one(kernel.get(name, 0))
        yield STARTED.of(((one,), kernel.get(STARTS_OF + one, 0)) for one in counts.starts)
        yield JOURNAL.one(term.journal.size_bytes if term and term.journal else 0)
        if term:
            names = term.book.names
            counts.forget_others(
                {called(names.name_of(one.id)) for one in term.book.all().values()}
            )
        yield LEASES.of(
            ((*one, node), count) for (one, node), count in sorted(counts.leases.items())
        )
        yield COLD_LEASE.spread(sorted(counts.cold.items(), key=lambda item: item[0]))

    def _cluster(self, term: Term | None) -> Iterator[Piece]:
        """Yield how the cluster stands; nothing of who does not lead, for another one tells it."""
        if term is None:
            for family in CLUSTER:
                yield family.of()
            return
        machine = term.machine
        yield WANTS.one(len(machine.placing.waiting))
        yield UNANSWERED.one(len(machine.fleet.outbox))
        yield GATEWAYS.one(len(term.routers.connected()))
        alive, connected = machine.cluster.node_alive.sum(), len(term.nodes.connected())
        yield NODES.of(((("alive",), int(alive)), (("connected",), connected)))
        yield from _pods(term)
        yield from _nodes(machine.cluster)


def _pods(term: Term) -> Iterator[Piece]:
    cluster, names = term.machine.cluster, term.book.names
    states = dict.fromkeys(REFERENCE_NAME.values(), 0)
    nodes = enumerate(cluster.nodes)
    used = {spec.name: 0.0 for n, spec in nodes if cluster.node_alive[n]}
    leased: list[tuple[tuple[str, ...], float]] = []
    for pod in cluster.pods.values():
        states[REFERENCE_NAME[pod.state]] += 1
        if pod.leases:
            gpus = len(pod.gpus) * cluster.functions[pod.function].milli_gpu / MILLI_PER_GPU
            node = cluster.nodes[pod.node].name
            used[node] = used.get(node, 0.0) + gpus
            name = called(names.name_of(pod.function))[:3]
            leased.append(((*name, "function", node, str(pod.id)), gpus))
    yield PODS.of(((state,), count) for state, count in states.items())
    yield USED.of(((node,), gpus) for node, gpus in used.items())
    yield GPU_COUNT.of(leased)


def _nodes(c: Cluster) -> Iterator[Piece]:
    alive = [
        (n, (spec.name,), slice(c.first_gpu[n], c.first_gpu[n + 1]))
        for n, spec in enumerate(c.nodes)
        if c.node_alive[n]
    ]
    yield TOTAL.of((name, gpus.stop - gpus.start) for _, name, gpus in alive)
    yield CHARGED.of(
        (name, int(c.gpu_milli_charged[gpus].sum()) / MILLI_PER_GPU) for _, name, gpus in alive
    )
    yield HBM.of((name, int(c.gpu_hbm_charged[gpus].sum())) for _, name, gpus in alive)
    yield HOST.of((name, int(c.node_host_charged[n])) for n, name, _ in alive)

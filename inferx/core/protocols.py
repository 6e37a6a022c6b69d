"""The policy seam: decisions, the slots, and the bundle that fills them.

A policy is synchronous, must not change the view, reads time only from `view.now_ns`, and takes
randomness only from the `rng` it is handed. A policy proposes, the kernel checks: an impossible
proposal is a `PolicyError` in a strict run and a counted `Defer` in production.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from numpy.random import Generator

from inferx.core.events import RequestArrived
from inferx.core.explain import Explanation
from inferx.core.types import F64, I32, Bool, FunctionId, GpuId, NodeId, PodId, Tier, Want
from inferx.core.view import ClusterView

__all__ = [
    "AdmissionPolicy",
    "Admit",
    "Defer",
    "Demote",
    "Evict",
    "EvictionPolicy",
    "Explains",
    "Filter",
    "KeepAlivePolicy",
    "LeasedPod",
    "Observer",
    "Place",
    "PlacementPolicy",
    "PodCost",
    "PolicyBundle",
    "PrewarmPolicy",
    "Promote",
    "QueuePolicy",
    "QueueWatcher",
    "Reject",
    "Retain",
    "RouterView",
    "RoutingPolicy",
    "ScalingPolicy",
    "Scorer",
    "Waiting",
]


# -- decisions ---
@dataclass(frozen=True, slots=True)
class Admit:
    """Let a request in."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse a request; `reason` is from a small closed set, for it labels a metric."""

    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    """Start the wanted pod on `gpus`: as many as it wants, all of one node."""

    gpus: tuple[GpuId, ...]


@dataclass(frozen=True, slots=True)
class Evict:
    """Move `victims` out, then start the wanted pod on `gpus`.

    A victim is `(pod, tier)`: where its state goes. Ready and suspended pods can be victims; one
    that routers have leased is drained first. Without `gpus`, victims leave and the want is asked
    for again when they are gone.
    """

    gpus: tuple[GpuId, ...]
    victims: tuple[tuple[PodId, Tier], ...]


@dataclass(frozen=True, slots=True)
class Defer:
    """Decide nothing now; `reason` is from a small closed set."""

    reason: str


@dataclass(frozen=True, slots=True)
class Retain:
    """Stay where you are for `hold_ns`, then sink to `then`."""

    hold_ns: int
    then: Tier


@dataclass(frozen=True, slots=True)
class Promote:
    """Bring a function's state up to tier `to` on a node.

    HBM starts a pod, DRAM leaves one suspended, NVME copies the snapshot there, or takes one where
    none exists.
    """

    function: FunctionId
    node: NodeId
    to: Tier


@dataclass(frozen=True, slots=True)
class Demote:
    """Take a function's state off a tier of a node.

    NVME deletes its snapshot from the disk; DRAM sinks its suspended pods there to the disk; HBM
    sinks the one of its pods there that is idle longest to where keep-alive says.
    """

    function: FunctionId
    node: NodeId
    tier: Tier


# -- what the router shows -----------------------------------------------------------------------
class LeasedPod(Protocol):
    """A pod of which this router holds slots."""

    @property
    def id(self) -> PodId: ...
    @property
    def free_slots(self) -> int: ...
    @property
    def inflight(self) -> int: ...


class Waiting(NamedTuple):
    """A request that waits for a slot; it is refused at `deadline_ns`."""

    request: RequestArrived
    since_ns: int
    deadline_ns: int


class RouterView(Protocol):
    """What a router knows, for one call."""

    @property
    def now_ns(self) -> int: ...
    def queued(self, function: FunctionId) -> int:
        """Requests of a function that wait here."""
        ...

    def inflight(self, function: FunctionId) -> int:
        """Requests of a function in service from here."""
        ...


# -- the slots ---
class AdmissionPolicy(Protocol):
    """Lets requests in; asked by the router for each one."""

    def admit(self, request: RequestArrived, queued: int, view: RouterView) -> Admit | Reject: ...


class RoutingPolicy(Protocol):
    """Chooses among warm pods; asked by the router when there are several."""

    def route(
        self,
        request: RequestArrived,
        candidates: Sequence[LeasedPod],
        view: RouterView,
        rng: Generator,
    ) -> int:
        """Return the index of one of `candidates`: leased pods with a free slot."""
        ...


class PlacementPolicy(Protocol):
    """Chooses GPUs for a pod."""

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer: ...


class EvictionPolicy(Protocol):
    """Chooses who must leave; asked only after `place` deferred."""

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer: ...


class KeepAlivePolicy(Protocol):
    """Says how long a pod stays where it is, and where it sinks then."""

    def retain(self, function: FunctionId, at: Tier, view: ClusterView) -> Retain:
        """Asked when a pod falls idle at HBM, and when it has arrived suspended at DRAM."""
        ...


class PrewarmPolicy(Protocol):
    """Moves state up or down the tiers without a request; asked once a control period."""

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]: ...


class ScalingPolicy(Protocol):
    """Says how many pods a function should have."""

    def target(self, function: FunctionId, view: ClusterView) -> int:
        """Pods of one function wanted now; asked when its requests lack slots."""
        ...

    def targets(self, view: ClusterView) -> I32 | None:
        """Pods wanted of each function, -1 for no opinion; asked once a control period.

        Returns:
            Shape (functions,), or None for no opinion at all.
        """
        ...


class QueuePolicy(Protocol):
    """Says whose turn it is. The one slot that may stay empty: then it is whoever waits longest.

    It orders those who wait for something that has become free, and is not asked where one waits
    alone. Fairness between functions is bounded by the kernel: a want that has waited for the
    bundle's patience gets its room by draining others, whatever its turn.
    """

    def next_request(self, waiting: Sequence[Waiting], view: RouterView) -> int:
        """Return the index of the request that takes a slot; asked by the router for each slot.

        Args:
            waiting: At least two requests of one function, in the order in which they came.
            view: What the router knows.
        """
        ...

    def next_want(self, wants: Sequence[Want], view: ClusterView) -> int:
        """Return the index of the want to place next, now that room came; asked for each pod.

        Args:
            wants: At least two, each of another function, the longest wait first. One that finds
                no room is left out when the question is asked again.
            view: The cluster.
        """
        ...


class QueueWatcher(Protocol):
    """A queue policy that keeps accounts. The router tells it, if it has these methods."""

    def arrived(
        self, request: RequestArrived, waiting: Sequence[Waiting], view: RouterView
    ) -> None:
        """Take in a request that was let in; `waiting` are those of its function before it."""
        ...

    def started(self, request: RequestArrived, view: RouterView) -> None:
        """Take in that a request was given a slot."""
        ...

    def ended(self, request: RequestArrived, output_tokens: int, view: RouterView) -> None:
        """Take in that a request left its slot; one that failed has no tokens."""
        ...


class Observer(Protocol):
    """Any policy that learns. Sees every event, in order, before the decisions it may change."""

    def observe(self, now_ns: int, event: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBundle:
    """A whole policy: one object for each slot, and how the kernel should work for it.

    Attributes:
        name: What tables call it.
        snapshots: Whether starts may use snapshots and suspended pods; otherwise all are cold.
        mechanism: Which start-up mechanism it presumes: `snapshot`, `loader` or `none`; the
            simulator chooses a profile by it, a node checks that it has it.
        whole_gpus: Whether every slice is a whole GPU, whatever its function asks for.
        control_period_ns: How often `promote` and `targets` are asked.
        settle_ns: How long after the latest event they still are; then the control loop sleeps
            until something happens.
        patience_ns: How long a want may wait before the kernel itself drains busy pods for it.
        observers: Policies that learn; they see every event of the scheduler.
        queueing: Whose turn it is among those who wait; None is whoever waits longest.
    """

    name: str
    admission: AdmissionPolicy
    routing: RoutingPolicy
    placement: PlacementPolicy
    eviction: EvictionPolicy
    keep_alive: KeepAlivePolicy
    prewarm: PrewarmPolicy
    scaling: ScalingPolicy
    snapshots: bool
    mechanism: str
    whole_gpus: bool
    control_period_ns: int
    settle_ns: int
    patience_ns: int
    observers: tuple[Observer, ...] = ()
    queueing: QueuePolicy | None = None


# -- parts of the standard pipelines, see inferx.policy.compose ---
class Filter(Protocol):
    """A hard constraint on GPUs."""

    def mask(self, want: Want, view: ClusterView) -> Bool:
        """GPUs that pass. Shape (gpus,)."""
        ...


class Scorer(Protocol):
    """A preference over GPUs."""

    def score(self, want: Want, view: ClusterView) -> F64:
        """In [0, 1], higher is better. Shape (gpus,)."""
        ...


class PodCost(Protocol):
    """What losing a pod costs."""

    def cost(self, view: ClusterView) -> F64:
        """Cost of evicting each pod; `inf` is never evicted. Shape (rows of view.pods,)."""
        ...


class Explains(Protocol):
    """A placement policy that can say why."""

    def explain(self, want: Want, view: ClusterView) -> Explanation: ...

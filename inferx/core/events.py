"""What happened: past tense, frozen, one struct an event. The machines' only input."""

import msgspec

from inferx.core.types import (
    NO_FUNCTION,
    FunctionId,
    FunctionSpec,
    GpuId,
    LeaseId,
    NodeId,
    NodeSpec,
    PodId,
    RequestId,
    RouterId,
    Tier,
)

__all__ = [
    "CommandAccepted",
    "CommandRefused",
    "Fact",
    "FoundPod",
    "FunctionDefined",
    "FunctionRetired",
    "HeldLease",
    "LeaderChanged",
    "LeaderLost",
    "LeaseAsked",
    "LeaseGranted",
    "LeaseRecalled",
    "LeaseRefused",
    "LeaseReturned",
    "LeaseRevoked",
    "LoadReported",
    "NodeDescribed",
    "NodeDraining",
    "NodeJoined",
    "NodeLost",
    "Performed",
    "PhaseTiming",
    "PodEndAsked",
    "PodExited",
    "PodFailed",
    "PodFound",
    "PodGone",
    "PodReady",
    "PodStuck",
    "PodSuspended",
    "RequestArrived",
    "RequestCancelled",
    "RequestFailed",
    "RequestFinished",
    "RouterEvent",
    "RouterJoined",
    "RouterLost",
    "SchedulerEvent",
    "SnapshotCopied",
    "SnapshotDropped",
    "SnapshotTaken",
]


# -- to router and scheduler: what may be asked for ---
class FunctionDefined(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A function can be called from now on. A new one has the next id; a known one is served anew.

    What pods of a known one hold cannot change: that takes another function.
    """

    function: FunctionId
    spec: FunctionSpec


class FunctionRetired(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A function is no more. What waits for it goes to `successor`, where there is one."""

    function: FunctionId
    successor: FunctionId = NO_FUNCTION


# -- to router and agent: who leads ---
class LeaderChanged(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A scheduler was connected to and wants to know how things stand here."""

    epoch: int


class LeaderLost(msgspec.Struct, frozen=True, gc=False, tag=True):
    """No scheduler has been heard of for so long that it may have given leases to others."""


# -- to the router ---
class RequestArrived(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A request came in. `deadline_ns` ends its wait, not its service; 0 takes the function's."""

    request: RequestId
    function: FunctionId
    input_tokens: int = 0
    tenant: int = 0
    priority: int = 0
    deadline_ns: int = 0


class RequestFinished(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A pod answered a request in full; `output_tokens` is 0 where nobody counted them."""

    request: RequestId
    pod: PodId
    output_tokens: int = 0


class RequestFailed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A pod did not answer a request; it is not sent again, for its body reached a pod."""

    request: RequestId
    pod: PodId


class RequestCancelled(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The client of a waiting request left."""

    request: RequestId
    function: FunctionId


class LeaseGranted(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The scheduler gave this router `slots` slots of a pod; `cold` if it was started for it."""

    lease: LeaseId
    function: FunctionId
    pod: PodId
    slots: int
    cold: bool


class LeaseRevoked(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A leased pod is lost."""

    lease: LeaseId
    pod: PodId


class LeaseRecalled(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The scheduler wants a lease back."""

    lease: LeaseId
    pod: PodId


class LeaseRefused(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The scheduler will not meet a function's demand."""

    function: FunctionId
    reason: str


# -- to the scheduler, from routers ---
class LeaseAsked(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A router lacks `slots` slots of a function; see `AskLease`."""

    router: RouterId
    function: FunctionId
    slots: int
    inflight: int
    oldest_ns: int
    sequence: int


class LeaseReturned(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A router gave a lease back."""

    router: RouterId
    lease: LeaseId
    pod: PodId
    failed: bool


class LoadReported(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A router's load since its last report; see `ReportLoad`."""

    router: RouterId
    window_ns: int
    functions: tuple[FunctionId, ...]
    arrivals: tuple[int, ...]
    concurrency_milli: tuple[int, ...]
    queued: tuple[int, ...]


class HeldLease(msgspec.Struct, frozen=True, gc=False):
    """A lease as the router that holds it tells."""

    lease: LeaseId
    pod: PodId
    function: FunctionId
    slots: int


class RouterJoined(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A router is there, for the first time or again, and tells which leases it holds."""

    router: RouterId
    leases: tuple[HeldLease, ...] = ()


class RouterLost(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A router is gone; what it leased is free once its requests have ended."""

    router: RouterId


# -- to the scheduler, from nodes: facts ---
class PhaseTiming(msgspec.Struct, frozen=True, gc=False):
    """How long one stage of a start took, and the bytes it moved."""

    phase: str
    duration_ns: int
    moved_bytes: int


class PodReady(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A pod answers requests; the answer to Create, Restore, Resume and to Snapshot that stayed."""

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId
    phases: tuple[PhaseTiming, ...] = ()


class PodSuspended(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A pod's GPUs are free and its state is in host memory."""

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId
    phases: tuple[PhaseTiming, ...] = ()


class PodGone(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A pod's process has ended and all it held is free."""

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId


class PodFailed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A pod broke and was killed; all it held is free. `reason` is from a small closed set."""

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId
    reason: str


class PodStuck(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A command failed, or was a stop, and its pod could not be ended: it is there still.

    It serves nobody and holds all it held; `reason` as in `PodFailed`.
    """

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId
    reason: str


class SnapshotTaken(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A snapshot with a checked manifest is on the node's disk; `left` says the process ended."""

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId
    left: bool
    phases: tuple[PhaseTiming, ...] = ()


class SnapshotCopied(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A snapshot is at `target` as well; without `ok`, it is not and the copy was undone."""

    node: NodeId
    epoch: int
    sequence: int
    function: FunctionId
    target: Tier
    ok: bool = True


class SnapshotDropped(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A snapshot is no longer on a tier of the node; without `ok`, it is there still, whole."""

    node: NodeId
    epoch: int
    sequence: int
    function: FunctionId
    tier: Tier
    ok: bool = True


class CommandAccepted(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A node has a command and is at work on it; sent when one is repeated."""

    node: NodeId
    epoch: int
    sequence: int


class CommandRefused(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A node refused a command: its epoch is older than one it has obeyed."""

    node: NodeId
    epoch: int
    sequence: int


class NodeDescribed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A node was never heard of before; it has the next id, and joins later."""

    node: NodeId
    spec: NodeSpec


class FoundPod(msgspec.Struct, frozen=True, gc=False):
    """A pod as its node tells.

    `state` is `ready` or `suspended`; while something is done to it, `moving` where that takes its
    GPU state to host memory or back, `busy` where not. `stuck` is one that could not be ended.
    """

    pod: PodId
    function: FunctionId
    gpus: tuple[GpuId, ...]
    state: str


class NodeJoined(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A node is there and tells the truth about what it runs.

    `boot` grows with each report. `snapshots` are the functions whose snapshot is on its disk,
    `remote` those whose snapshot is in the shared store and fits it.
    """

    node: NodeId
    boot: int
    pods: tuple[FoundPod, ...] = ()
    snapshots: tuple[FunctionId, ...] = ()
    remote: tuple[FunctionId, ...] = ()


class PodFound(msgspec.Struct, frozen=True, gc=False, tag=True):
    """What was being done to a pod when its node joined is over: what it is now."""

    node: NodeId
    pod: PodId
    state: str


class NodeDraining(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A node will be taken away at `until_ns`: a spot interruption, or an operator's drain."""

    node: NodeId
    until_ns: int


class PodEndAsked(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Who runs the cluster wants a pod ended; with `now` without waiting for whom it serves."""

    pod: PodId
    now: bool


class NodeLost(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A node is gone with all it held."""

    node: NodeId


# -- to the agent ---
class Performed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A device action ended; `error` is empty on success, else from a small closed set.

    With `stays` its pod could not be ended after the error, and is there still.
    """

    action: int
    phases: tuple[PhaseTiming, ...] = ()
    error: str = ""
    stays: bool = False


class PodExited(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A pod's process ended by itself and all it held is free; `reason` as in `PodFailed`."""

    pod: PodId
    reason: str


RouterEvent = (
    RequestArrived
    | RequestFinished
    | RequestFailed
    | RequestCancelled
    | LeaseGranted
    | LeaseRevoked
    | LeaseRecalled
    | LeaseRefused
    | FunctionDefined
    | FunctionRetired
    | LeaderChanged
    | LeaderLost
)
Fact = (
    PodReady
    | PodSuspended
    | PodGone
    | PodFailed
    | PodStuck
    | SnapshotTaken
    | SnapshotCopied
    | SnapshotDropped
    | CommandAccepted
    | CommandRefused
    | NodeJoined
    | NodeDraining
    | PodFound
)
SchedulerEvent = (
    LeaseAsked
    | LeaseReturned
    | LoadReported
    | RouterJoined
    | RouterLost
    | FunctionDefined
    | FunctionRetired
    | NodeDescribed
    | PodEndAsked
    | Fact
    | NodeLost
)

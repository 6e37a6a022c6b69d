"""What the machines ask of the world: imperative, frozen, one struct a command.

Commands to a node carry the leader's epoch and a sequence number; a node answers each
`(epoch, pod, sequence)` exactly once and refuses an epoch older than the newest it has seen.
"""

import msgspec

from inferx.core.events import Fact, FoundPod, HeldLease, LeaderChanged, Performed, PodExited
from inferx.core.types import FunctionId, GpuId, LeaseId, NodeId, PodId, RequestId, RouterId, Tier

__all__ = [
    "REMOVED",
    "AgentCommand",
    "AgentEvent",
    "AskLease",
    "Copy",
    "Create",
    "Dispatch",
    "Drop",
    "GrantLease",
    "Join",
    "NodeCommand",
    "Perform",
    "PodCommand",
    "RecallLease",
    "Refuse",
    "RefuseLease",
    "Report",
    "ReportLeases",
    "ReportLoad",
    "Restore",
    "Resume",
    "ReturnLease",
    "RevokeLease",
    "RouterCommand",
    "SchedulerCommand",
    "Snapshot",
    "Stop",
    "Suspend",
]

REMOVED = "function removed"
"""Reason of a refusal: the function is no more."""


# -- router: to pods and clients, and to the scheduler ---
class Dispatch(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Send a request to a pod: it holds one slot from here on."""

    request: RequestId
    pod: PodId


class Refuse(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Answer a request with an error; `reason` is from a small closed set."""

    request: RequestId
    reason: str


class AskLease(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Say how many slots a function lacks now; a level, not an increment.

    `sequence` orders the asks of one router: an older one is ignored.
    """

    router: RouterId
    function: FunctionId
    slots: int
    inflight: int
    oldest_ns: int
    sequence: int


class ReturnLease(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Give a lease back: no request of this router is on the pod."""

    router: RouterId
    lease: LeaseId
    pod: PodId
    failed: bool


class ReportLoad(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Load since the last report, for the functions that had any.

    Tuples run in parallel: arrivals in the window, requests inside (waiting or served) averaged
    over it and in thousandths, and requests waiting now.
    """

    router: RouterId
    window_ns: int
    functions: tuple[FunctionId, ...]
    arrivals: tuple[int, ...]
    concurrency_milli: tuple[int, ...]
    queued: tuple[int, ...]


class ReportLeases(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Tell a scheduler that was connected to which leases are held here."""

    router: RouterId
    leases: tuple[HeldLease, ...]


# -- scheduler: to routers ---
class GrantLease(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Give a router `slots` slots of a ready pod until it returns them."""

    router: RouterId
    lease: LeaseId
    function: FunctionId
    pod: PodId
    slots: int
    cold: bool


class RevokeLease(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Take a lease away: its pod is lost. What was on it has failed."""

    router: RouterId
    lease: LeaseId
    pod: PodId


class RecallLease(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Ask for a lease back: dispatch nothing more to it, return it when what runs has ended."""

    router: RouterId
    lease: LeaseId
    pod: PodId


class RefuseLease(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Say that a function's demand will not be met: its waiting requests are refused."""

    router: RouterId
    function: FunctionId
    reason: str


# -- scheduler: to node agents ---
class Create(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Start a pod from its image: a cold start."""

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId
    function: FunctionId
    gpus: tuple[GpuId, ...]


class Restore(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Start a pod from its snapshot at `source`; without GPUs it ends suspended.

    With `keep`, what is fetched from the shared store stays on the node's disk, where room for it
    is charged; without, it does not, for the scheduler has promised that room to something else.
    """

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId
    function: FunctionId
    gpus: tuple[GpuId, ...]
    source: Tier
    keep: bool


class Resume(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Move a suspended pod's GPU state back onto `gpus`."""

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId
    function: FunctionId
    gpus: tuple[GpuId, ...]


class Suspend(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Move a pod's GPU state to host memory and free its GPUs."""

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId
    function: FunctionId
    gpus: tuple[GpuId, ...]


class Snapshot(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Write a pod's frozen state to local disk; with `leave` the process ends with it."""

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId
    function: FunctionId
    gpus: tuple[GpuId, ...]
    leave: bool


class Stop(msgspec.Struct, frozen=True, gc=False, tag=True):
    """End a pod."""

    node: NodeId
    epoch: int
    sequence: int
    pod: PodId
    function: FunctionId
    gpus: tuple[GpuId, ...]


class Copy(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Copy a snapshot between this node's disk and the shared store."""

    node: NodeId
    epoch: int
    sequence: int
    function: FunctionId
    source: Tier
    target: Tier


class Drop(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Delete a snapshot from a tier of this node."""

    node: NodeId
    epoch: int
    sequence: int
    function: FunctionId
    tier: Tier


PodCommand = Create | Restore | Resume | Suspend | Snapshot | Stop
NodeCommand = PodCommand | Copy | Drop


# -- agent: to the devices, and to the scheduler ---
class Perform(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Carry out a command on this node's devices now; answered by `Performed`."""

    action: int
    command: NodeCommand


class Report(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Tell the scheduler a fact."""

    fact: Fact


class Join(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Tell the scheduler all that is here.

    `busy` are the pods that something is being done to; snapshots of `dropping` are on their way
    off the disk, and are told of no more.
    """

    busy: tuple[FoundPod, ...]
    dropping: tuple[FunctionId, ...] = ()


RouterCommand = Dispatch | Refuse | AskLease | ReturnLease | ReportLoad | ReportLeases
SchedulerCommand = GrantLease | RevokeLease | RecallLease | RefuseLease | NodeCommand
AgentCommand = Perform | Report | Join
AgentEvent = NodeCommand | Performed | PodExited | LeaderChanged

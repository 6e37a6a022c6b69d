"""The InferX reference's own policy, its waste included: the baseline to beat.

Source: repository inferx-net/inferx at 875cb0f, `ixshare/src/scheduler/scheduler_handler.rs`
(FindNode4Pod, line 3444; TryCreateSnapshotOnNode, 4201; TryAdjustStandbyPodsOnNode, 4475) and
`ixshare/src/gateway/func_agent_mgr.rs` (NeedNewWorker, line 693).

- A start is a resume: only nodes that hold a suspended pod of the function are candidates, in the
  order of their names; the first on which it fits wins, on the GPUs with the lowest numbers.
- Memory is counted in slots of 256 MB, a GPU holds one resumed context unless set otherwise, and at
  most one pod of several GPUs.
- With no room, the global list of idle pods is walked from the least recently used: each is added
  to the victims of its node until one node has room. Every victim gathered there is killed, those
  on other GPUs too (the over-eviction that `trim` would avoid).
- A killed pod's suspended twin is rebuilt at no more than one a node and second, for a random
  function, and not while anything starts on the node.
- Every function is snapshotted on every node, eagerly.
- Scale-out on the ratio of active requests to slots, at most two at once and one a second.
- Nothing leaves a GPU until something else needs the room.
- What does not fit a node's disk or host memory is passed over; nothing makes room for it there.

Differs: a snapshot that the shared store has is copied, where the original takes it again on each
node; snapshotting does not evict idle pods to have a GPU, as the original's does; min_replica is
filled at once, where the original fills one in 4 s, over all functions; returned leases serve
whoever waits, where the original lets a request wait for a new pod; a request waits as long as its
function's queue allows, where a reaper ends leases that have waited for 30 s; a want beyond
max_replica waits, where the original answers it with an error; a function is not given up after
three failed snapshots, nor a gateway's worker after its fourth failure; status reports do not make
an idle pod recently used.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from inferx.policy import (
    FOREVER_NS,
    I32,
    NS_PER_S,
    ClusterView,
    Defer,
    Demote,
    FunctionId,
    NodeId,
    Place,
    PodState,
    PolicyBundle,
    Promote,
    Tier,
    Want,
)
from inferx.policy.basics import AdmitAll, FixedHold, LeastOutstanding
from inferx.policy.eviction.lru_prefix import LruPrefix
from inferx.policy.parts.slot_books import SlotBooks

__all__ = [
    "EagerStandby",
    "NameOrderedFirstFit",
    "WaitQueueRatio",
    "bundle",
]

_NO_STANDBY = Defer("no standby")
_NO_ROOM = Defer("no GPU fits")


@dataclass(frozen=True, slots=True)
class NameOrderedFirstFit:
    """The first node by name, the first GPUs by number."""

    books: SlotBooks

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the first fit among nodes with a suspended pod."""
        nodes = self.books.nodes(want, view)
        if not nodes:
            return _NO_STANDBY
        free, fits = self.books.free(view), view.fits(want)
        for node in nodes:
            here = np.flatnonzero((view.gpus.node == node) & fits).tolist()
            if want.node >= 0:
                # A snapshot is taken on GPUs of its own.
                here = [gpu for gpu in here if view.gpus.pods[gpu] == 0]
            found = free.first_fit(want, here)
            if found is not None:
                return Place(found)
        return _NO_ROOM


_STARTING = np.zeros(len(PodState), np.bool_)
_STARTING[
    [PodState.INIT, PodState.CREATING, PodState.RESTORING, PodState.RESUMING]  # "BlockStandby"
] = True


@dataclass(frozen=True, slots=True)
class EagerStandby:
    """A snapshot of every function on every node, and a suspended pod of each, built one by one."""

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        """Return missing snapshots, and at most one new suspended pod a node."""
        nodes, pods, functions = view.nodes, view.pods, view.functions
        wanted = functions.standby_per_node
        need = functions.host_bytes + functions.device_bytes
        shape = nodes.snapshots.shape
        moves: list[Promote] = []
        absent = ~nodes.snapshots & (wanted > 0) & nodes.schedulable[:, None]
        absent &= need <= nodes.nvme_bytes_free[:, None]
        for node in np.flatnonzero(absent.any(axis=1)).tolist():
            remote = nodes.remote_snapshots[nodes.platform[node]]
            here = np.flatnonzero(absent[node]).tolist()
            baked = [f for f in here if not remote[f]][:1]
            moves += [
                Promote(FunctionId(f), NodeId(node), Tier.NVME)
                for f in [f for f in here if remote[f]] + baked
            ]
        standby = np.flatnonzero(pods.standby)
        at = pods.node[standby] * shape[1] + pods.function[standby]
        have = np.bincount(at, minlength=shape[0] * shape[1]).reshape(shape)
        short = (have < wanted) & nodes.snapshots & nodes.schedulable[:, None]
        short[pods.node[_STARTING[pods.state]]] = False
        # The original picks first and logs an error where it does not fit: nothing happens.
        fits = need <= nodes.host_bytes_free[:, None]
        for node in np.flatnonzero((short & fits).any(axis=1)).tolist():
            choices = np.flatnonzero(short[node])
            pick = int(choices[rng.integers(len(choices))])
            if fits[node, pick]:
                moves.append(Promote(FunctionId(pick), NodeId(node), Tier.DRAM))
        return moves


@dataclass(slots=True)
class WaitQueueRatio:
    """The gateway's scale-out: one more pod when active requests exceed the slots by a ratio.

    A token bucket of two, refilled by one a second, bounds each function.
    """

    _tokens: dict[FunctionId, tuple[float, int]] = field(
        default_factory=dict[FunctionId, tuple[float, int]]
    )

    def target(self, function: FunctionId, view: ClusterView) -> int:
        """Return the pods there are, or one more if the ratio and the bucket allow."""
        table, spec = view.functions, view.spec(function)
        workers = int(table.ready[function]) + int(table.starting[function])
        active = int(table.queued[function]) + int(table.inflight[function])
        if active <= (1.0 + spec.wait_ratio) * workers * spec.slots:
            return workers
        left, since_ns = self._tokens.get(function, (2.0, view.now_ns))
        left = min(2.0, left + (view.now_ns - since_ns) / NS_PER_S)
        if left < 1.0:
            self._tokens[function] = (left, view.now_ns)
            return workers
        self._tokens[function] = (left - 1.0, view.now_ns)
        return workers + 1

    def targets(self, view: ClusterView) -> I32 | None:
        """No opinion: nothing is scaled without a request."""
        return None


def bundle(contexts_per_gpu: int = 1, *, trim: bool = False) -> PolicyBundle:
    """Return the bundle.

    Args:
        contexts_per_gpu: How many resumed pods share a GPU (`MaxContextPerGPU`).
        trim: Whether victims that do not help are spared; the original kills them.

    Raises:
        ValueError: No pod would ever share a GPU, or more than any GPU holds.
    """
    if not 1 <= contexts_per_gpu <= 1_000:
        raise ValueError(f"contexts_per_gpu is {contexts_per_gpu}; expected 1 to 1000")
    books = SlotBooks(contexts_per_gpu)
    return PolicyBundle(
        name="inferx-reference",
        admission=AdmitAll(),
        routing=LeastOutstanding(),
        placement=NameOrderedFirstFit(books),
        eviction=LruPrefix(books, trim=trim),
        keep_alive=FixedHold(FOREVER_NS, Tier.ABSENT),
        prewarm=EagerStandby(),
        scaling=WaitQueueRatio(),
        snapshots=True,
        mechanism="snapshot",
        whole_gpus=False,
        control_period_ns=NS_PER_S,
        settle_ns=5 * NS_PER_S,
        patience_ns=FOREVER_NS,
    )

"""What a router keeps for each function and for each pod that it has leased. Plain slots: hot."""

from collections import deque

from inferx.core.protocols import Waiting
from inferx.core.types import FunctionId, LeaseId, PodId
from inferx.core.units import FOREVER_NS

__all__ = ["FunctionQueue", "LeasedPod"]


class LeasedPod:
    """What the router knows of a leased pod."""

    __slots__ = (
        "free_slots",
        "function",
        "id",
        "idle_since_ns",
        "inflight",
        "lease",
        "open",
        "timed",
    )

    def __init__(self, pod: PodId, lease: LeaseId, function: FunctionId, slots: int) -> None:
        self.id = pod
        self.lease = lease
        self.function = function
        self.free_slots = slots
        self.inflight = 0
        self.idle_since_ns = 0
        self.open = True
        """Recalled pods take no more requests."""
        self.timed = False
        """A linger timer is armed for it."""


class FunctionQueue:
    """Queue, leases and load of one function."""

    __slots__ = (
        "arrivals",
        "ask_sequence",
        "ask_timed",
        "asked",
        "changed_ns",
        "dirty",
        "due_ns",
        "inflight",
        "inside_ns",
        "mixed",
        "open_pods",
        "queue",
        "repeats",
    )

    def __init__(self) -> None:
        self.queue: deque[Waiting] = deque()
        """Requests that wait, in the order in which they came."""
        self.open_pods: list[LeasedPod] = []
        """Leased pods with a free slot."""
        self.inflight = 0
        self.asked = 0
        """Slots that the scheduler was asked for and that were not granted since."""
        self.ask_sequence = 0
        self.repeats = 0
        """How often the demand was repeated since a lease last came."""
        self.ask_timed = False
        """A timer is armed to ask again."""
        self.due_ns = FOREVER_NS
        """When the queue's timer fires: no later than the first deadline in it."""
        self.mixed = False
        """Deadlines do not come in the queue's order: some request brought its own."""
        self.dirty = False
        self.arrivals = 0
        self.inside_ns = 0
        """Integral of requests inside over time, since the last report."""
        self.changed_ns = 0

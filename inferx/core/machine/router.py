"""The router machine: one a gateway. Queues requests, holds leases of pods, hands out their slots.

Laws:
1. A request holds exactly one slot from `Dispatch` to its end; a slot serves one request (INV-10).
2. A request is dispatched at most once: what reached a pod is never sent to another.
3. arrived = finished + failed + refused + cancelled + waiting + running, always (INV-2).
4. A warm request touches nothing but this machine. The scheduler hears of a function when its
   requests lack slots, when a lease falls idle, and once a report period.

This is the hot path: O(1) a request, plain lists and slots, no arrays. Only where a bundle has a
queue policy does a freed slot cost a look at all who wait for it.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import assert_never

from msgspec import structs
from numpy.random import Generator

from inferx.core.commands import (
    REMOVED,
    AskLease,
    Dispatch,
    Refuse,
    ReportLeases,
    ReturnLease,
    RouterCommand,
)
from inferx.core.errors import LocalProtocolError, PolicyError
from inferx.core.events import (
    FunctionDefined,
    FunctionRetired,
    HeldLease,
    LeaderChanged,
    LeaderLost,
    LeaseGranted,
    LeaseRecalled,
    LeaseRefused,
    LeaseRevoked,
    RequestArrived,
    RequestCancelled,
    RequestFailed,
    RequestFinished,
    RouterEvent,
)
from inferx.core.machine.load import Load
from inferx.core.machine.step import Step
from inferx.core.machine.turns import Turns
from inferx.core.machine.waiting import FunctionQueue, LeasedPod
from inferx.core.protocols import Admit, PolicyBundle, Reject, Waiting
from inferx.core.types import (
    NO_FUNCTION,
    FunctionId,
    FunctionSpec,
    LeaseId,
    PodId,
    RequestId,
    RouterId,
)
from inferx.core.units import FOREVER_NS, NS_PER_S
from inferx.core.watched import WatchedQueueing, watched

__all__ = ["Router"]

REMEMBERED = 4_096
"""Leases that ended and are remembered, to know a late or repeated message about one."""
ASK_AGAIN_NS = NS_PER_S
ASK_AGAIN_LIMIT = 3
"""An unmet demand is repeated after 1, 2, 4, 8, 8, ... s; at once where it doubles."""

_ADMIT = Admit()
_REPORT, _QUEUE, _LINGER, _ASK = 0, 1, 2, 3


class Router:
    """One gateway's queues and leases. `step` is the only mutator; see the module's laws."""

    def __init__(
        self,
        router: RouterId,
        functions: Sequence[FunctionSpec],
        policies: PolicyBundle,
        rng: Generator,
        *,
        report_period_ns: int = NS_PER_S,
        strict: bool = True,
    ) -> None:
        self._id = router
        self._specs = list(functions)
        self._retired: dict[FunctionId, FunctionId] = {}
        """Functions that are no more, and what came in their place."""
        self._f = [FunctionQueue() for _ in functions]
        self._pods: dict[PodId, LeasedPod] = {}
        self._over: OrderedDict[LeaseId, None] = OrderedDict()
        """Leases that ended, oldest first. Links repeat and reorder: a lease never comes back."""
        self._strict = strict
        self.policy_errors = 0
        self._timers: list[tuple[int, int, int, int]] = []
        self._timer_count = 0
        policies = watched(policies)
        self._admit = policies.admission.admit
        self._route = policies.routing.route
        self._turns: Turns | None = None
        if isinstance(policies.queueing, WatchedQueueing):
            self._turns = Turns(policies.queueing, self, strict=strict, on_error=self._forgive)
        self._rng = rng
        self._load = Load(
            router, report_period_ns, self._f, lambda at_ns: self._arm(at_ns, _REPORT, 0)
        )
        self._out: list[RouterCommand] = []
        self._quiet: Step[RouterCommand] = Step((), (), None)
        """The latest answer without commands: most steps give it again."""
        self.now_ns = 0
        self.arrived = 0
        self.finished = 0
        self.refused = 0
        self.failed = 0
        self.cancelled = 0

    # -- what policies may ask ---
    def queued(self, function: FunctionId) -> int:
        """Requests of a function that wait here."""
        return len(self._f[function].queue)

    def inflight(self, function: FunctionId) -> int:
        """Requests of a function in service from here."""
        return self._f[function].inflight

    def waiting(self) -> int:
        """Requests that wait, over all functions."""
        return sum(len(f.queue) for f in self._f)

    def running(self) -> int:
        """Requests in service, over all functions."""
        return sum(f.inflight for f in self._f)

    def step(self, now_ns: int, events: Sequence[RouterEvent]) -> Step[RouterCommand]:
        """Take events in, give commands out."""
        assert now_ns >= self.now_ns, "INV-5: time went back"
        self.now_ns = now_ns
        for event in events:
            kind = type(event)
            if kind is RequestArrived:
                self._arrived(event)  # type: ignore[arg-type]  # the type was compared above
            elif kind is RequestFinished:
                self.finished += 1
                if self._turns is not None:
                    self._turns.ended(event)  # type: ignore[arg-type]  # the type was compared above
                self._ended(event.pod)  # type: ignore[union-attr]  # the type was compared above
            else:
                self._rare(event)
        timers = self._timers
        if timers and timers[0][0] <= now_ns:
            self._fire()
        deadline = timers[0][0] if timers else None
        out = self._out
        if out:
            self._out = []
            return Step((), tuple(out), deadline)
        quiet = self._quiet
        if quiet.deadline_ns != deadline:
            self._quiet = quiet = Step((), (), deadline)
        return quiet

    def _rare(self, event: RouterEvent) -> None:
        match event:
            case RequestFailed():
                self.failed += 1
                if self._turns is not None:
                    self._turns.ended(event)
                self._ended(event.pod)
            case LeaseGranted():
                self._granted(event)
            case LeaseRevoked():
                pod = self._pods.get(event.pod)
                self._end_lease(event.lease)
                if pod is not None and pod.lease == event.lease:
                    # What ran there is reported failed one by one by whoever held the stream.
                    self._close(pod)
                    if pod.inflight == 0:
                        del self._pods[pod.id]
            case LeaseRecalled():
                pod = self._pods.get(event.pod)
                if pod is not None and pod.lease == event.lease:
                    self._close(pod)
                    if pod.inflight == 0:
                        self._give_back(pod, failed=False)
                elif event.lease not in self._over:
                    # It overtook its grant, which will be ignored.
                    self._end_lease(event.lease)
                    self._out.append(ReturnLease(self._id, event.lease, event.pod, failed=False))
            case LeaseRefused():
                f = self._f[event.function]
                self._load.count(f, event.function, self.now_ns)
                while f.queue:
                    self._refuse(f.queue.popleft().request.request, event.reason)
                f.asked = 0
            case RequestCancelled():
                function = self._current(event.function)
                if function == NO_FUNCTION:
                    return
                f = self._f[function]
                for entry in f.queue:
                    if entry.request.request == event.request:
                        self._load.count(f, function, self.now_ns)
                        f.queue.remove(entry)
                        self.cancelled += 1
                        if not f.queue:
                            f.asked = 0
                        break
            case FunctionDefined():
                self._defined(event.function, event.spec)
            case FunctionRetired():
                self._retire(event.function, event.successor)
            case LeaderChanged():
                self._resync()
            case LeaderLost():
                self._forget_leases()
            case RequestArrived() | RequestFinished():
                raise LocalProtocolError("events of the hot path were taken before")
            case _:
                assert_never(event)

    # -- functions ---
    def _defined(self, function: FunctionId, spec: FunctionSpec) -> None:
        if function == len(self._specs):
            self._specs.append(spec)
            self._f.append(FunctionQueue())
        elif 0 <= function < len(self._specs):
            self._specs[function] = spec
        else:
            raise LocalProtocolError(
                f"function {function} is defined, expected one up to {len(self._specs)}"
            )

    def _retire(self, function: FunctionId, successor: FunctionId) -> None:
        """Let who waits go to the successor, in their order; without one they are refused."""
        if function in self._retired:
            return
        f = self._f[function]
        self._retired[function] = successor
        self._load.count(f, function, self.now_ns)
        waiting, f.queue = f.queue, deque()
        f.asked = 0
        for one in waiting:
            # It is let in anew, by the successor's rules; the time that it may wait runs on.
            self.arrived -= 1
            self._arrived(structs.replace(one.request, deadline_ns=one.deadline_ns))

    def _current(self, function: FunctionId) -> FunctionId:
        """Return the function that answers for another one now."""
        while function in self._retired:
            function = self._retired[function]
        return function

    # -- leaders ---
    def _resync(self) -> None:
        """Tell a scheduler that was connected to which leases are held, and what is lacked."""
        held = tuple(
            HeldLease(pod.lease, pod.id, pod.function, pod.inflight + pod.free_slots)
            for pod in self._pods.values()
            if pod.lease not in self._over
        )
        self._out.append(ReportLeases(self._id, held))
        for function, f in enumerate(self._f):
            if f.queue:
                f.repeats = 0
                self._ask(f, FunctionId(function))

    def _forget_leases(self) -> None:
        """Send nothing more to any pod: its slots may be others' by now."""
        for pod in list(self._pods.values()):
            self._close(pod)
            self._end_lease(pod.lease)
            if pod.inflight == 0:
                del self._pods[pod.id]

    # -- requests ---
    def _arrived(self, event: RequestArrived) -> None:
        self.arrived += 1
        function = event.function
        if self._retired:
            function = self._current(function)
            if function == NO_FUNCTION:
                self._refuse(event.request, REMOVED)
                return
            if function != event.function:
                event = structs.replace(event, function=function)
        f = self._f[function]
        queued = len(f.queue)
        try:
            verdict = self._admit(event, queued, self)
        except PolicyError:
            if self._strict:
                raise
            # In production, a request that the policy fails on is let in.
            self.policy_errors += 1
            verdict = _ADMIT
        now = self.now_ns
        if f.dirty:
            f.inside_ns += (f.inflight + queued) * (now - f.changed_ns)
            f.changed_ns = now
        else:
            self._load.mark(f, function, now)
        f.arrivals += 1
        if type(verdict) is Reject:
            self._refuse(event.request, verdict.reason)
            return
        pods = f.open_pods
        if pods and not queued:
            pod = pods[0] if len(pods) == 1 else self._chosen(event, pods)
            f.inflight += 1
            pod.inflight += 1
            pod.free_slots -= 1
            if not pod.free_slots:
                pods.remove(pod)
            if self._turns is not None:
                self._turns.arrived(event, f.queue)
                self._turns.started(event)
            self._out.append(Dispatch(event.request, pod.id))
            return
        spec = self._specs[function]
        if queued >= spec.queue_len:
            self._refuse(event.request, "queue full")
            return
        deadline = event.deadline_ns or now + spec.queue_timeout_ns
        if self._turns is not None:
            self._turns.arrived(event, f.queue)
        f.mixed = queued > 0 and (f.mixed or deadline < f.queue[-1].deadline_ns)
        f.queue.append(Waiting(event, now, deadline))
        if deadline < f.due_ns:
            f.due_ns = deadline
            self._arm(deadline, _QUEUE, function)
        lack = queued + 1
        # Ask at once, then at each doubling; in between, the repeated ask tells the level.
        if lack >= 2 * f.asked:
            self._ask(f, function)

    def _chosen(self, event: RequestArrived, pods: list[LeasedPod]) -> LeasedPod:
        """Ask the policy; in production, where it fails, it is the first pod."""
        try:
            return pods[self._route(event, pods, self, self._rng)]
        except PolicyError:
            if self._strict:
                raise
        self.policy_errors += 1
        return pods[0]

    def _ended(self, pod_id: PodId) -> None:
        pod = self._pods.get(pod_id)
        if pod is None:
            raise LocalProtocolError(f"pod {pod_id}: a request ended on a pod that is not leased")
        f = self._f[pod.function]
        now = self.now_ns
        # A function with requests inside is always dirty.
        f.inside_ns += (f.inflight + len(f.queue)) * (now - f.changed_ns)
        f.changed_ns = now
        if not pod.open:
            f.inflight -= 1
            pod.inflight -= 1
            if pod.inflight == 0:
                self._give_back(pod, failed=False)
            return
        queue = f.queue
        if queue and pod.free_slots >= 0:
            # The slot passes on: neither the pod's nor the function's count changes.
            turns = self._turns
            request = queue.popleft().request if turns is None else turns.take(queue)
            self._out.append(Dispatch(request.request, pod_id))
            if not queue:
                f.asked = 0
            return
        f.inflight -= 1
        if not pod.free_slots:
            f.open_pods.append(pod)
        pod.free_slots += 1
        pod.inflight -= 1
        if not pod.inflight:
            pod.idle_since_ns = now
            if not pod.timed:
                pod.timed = True
                self._arm(now + self._specs[pod.function].linger_ns, _LINGER, pod_id)

    def _forgive(self) -> None:
        self.policy_errors += 1

    def _refuse(self, request: RequestId, reason: str) -> None:
        self.refused += 1
        self._out.append(Refuse(request, reason))

    # -- leases ---
    def _granted(self, event: LeaseGranted) -> None:
        known = self._pods.get(event.pod)
        if event.lease in self._over or (known is not None and known.lease not in self._over):
            return  # A repeated grant, or one that its recall or revocation overtook.
        f = self._f[event.function]
        pod = LeasedPod(event.pod, event.lease, event.function, event.slots)
        if known is not None:
            # Its lease was forgotten with its leader, and requests are on it still.
            pod.inflight = known.inflight
            pod.free_slots -= known.inflight
        self._pods[event.pod] = pod
        f.asked = max(0, f.asked - event.slots)
        f.repeats = 0
        self._load.count(f, event.function, self.now_ns)
        queue = f.queue
        while queue and pod.free_slots > 0:
            pod.free_slots -= 1
            pod.inflight += 1
            f.inflight += 1
            turns = self._turns
            request = queue.popleft().request if turns is None else turns.take(queue)
            self._out.append(Dispatch(request.request, pod.id))
        if pod.free_slots > 0:
            f.open_pods.append(pod)
        if not queue:
            f.asked = 0
        if not pod.inflight:
            pod.idle_since_ns = self.now_ns
            pod.timed = True
            self._arm(self.now_ns + self._specs[event.function].linger_ns, _LINGER, pod.id)

    def _close(self, pod: LeasedPod) -> None:
        if pod.open:
            pod.open = False
            if pod.free_slots > 0:
                self._f[pod.function].open_pods.remove(pod)

    def _end_lease(self, lease: LeaseId) -> None:
        self._over[lease] = None
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)

    def _give_back(self, pod: LeasedPod, *, failed: bool) -> None:
        assert pod.inflight == 0, "INV-10: a lease goes back without requests on it"
        self._close(pod)
        self._end_lease(pod.lease)
        del self._pods[pod.id]
        self._out.append(ReturnLease(self._id, pod.lease, pod.id, failed))

    def _ask(self, f: FunctionQueue, function: FunctionId) -> None:
        lack = len(f.queue)
        if not f.ask_timed:
            f.ask_timed = True
            self._arm(self.now_ns + (ASK_AGAIN_NS << f.repeats), _ASK, function)
        f.asked = lack
        f.ask_sequence += 1
        self._out.append(
            AskLease(self._id, function, lack, f.inflight, f.queue[0].since_ns, f.ask_sequence)
        )

    # -- timers ---
    def _arm(self, at_ns: int, kind: int, key: int) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (at_ns, self._timer_count, kind, key))

    def _fire(self) -> None:
        timers, now = self._timers, self.now_ns
        while timers and timers[0][0] <= now:
            _, _, kind, key = heapq.heappop(timers)
            if kind == _LINGER:
                self._lingered(PodId(key))
            elif kind == _QUEUE:
                self._expire(FunctionId(key))
            elif kind == _ASK:
                f = self._f[key]
                f.ask_timed = False
                if f.queue:
                    f.repeats = min(f.repeats + 1, ASK_AGAIN_LIMIT)
                    self._ask(f, FunctionId(key))
            else:
                self._out.append(self._load.report(now))

    def _lingered(self, pod_id: PodId) -> None:
        pod = self._pods.get(pod_id)
        if pod is None:
            return
        pod.timed = False
        if pod.inflight or not pod.open:
            return
        due = pod.idle_since_ns + self._specs[pod.function].linger_ns
        if due <= self.now_ns:
            self._give_back(pod, failed=False)
        else:
            # It worked in between: the one timer moves on instead of one a request.
            pod.timed = True
            self._arm(due, _LINGER, pod_id)

    def _expire(self, function: FunctionId) -> None:
        f, now = self._f[function], self.now_ns
        if f.due_ns > now:
            return  # An earlier timer was set after this one.
        f.due_ns = FOREVER_NS
        queue = f.queue
        if queue and (f.mixed or queue[0].deadline_ns <= now):
            self._load.count(f, function, self.now_ns)
            if f.mixed:
                late = [one for one in queue if one.deadline_ns <= now]
                f.queue = queue = deque(one for one in queue if one.deadline_ns > now)
            else:
                late = []
                while queue and queue[0].deadline_ns <= now:
                    late.append(queue.popleft())
            for one in late:
                self._refuse(one.request.request, "queue timeout")
            if not queue:
                f.asked = 0
        if queue:
            first = min(one.deadline_ns for one in queue) if f.mixed else queue[0].deadline_ns
            f.due_ns = first
            self._arm(f.due_ns, _QUEUE, function)

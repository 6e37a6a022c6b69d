"""One function's queue on one pod, by hand: who arrives, who starts, who ends."""

from dataclasses import replace

from kernel_world import function

from inferx.core.commands import Dispatch, Refuse
from inferx.core.events import LeaseGranted, RequestArrived, RequestFinished
from inferx.core.machine.router import Router
from inferx.core.rng import stream
from inferx.core.types import FunctionId, LeaseId, PodId, RequestId, RouterId
from inferx.core.units import FOREVER_NS
from inferx.policy import plain


class OneQueue:
    """A router, one function, one pod. Requests are told apart by the order of their coming."""

    def __init__(self, queueing, *, slots=1, open_=True):
        spec = function(
            "f",
            slots=slots,
            queue_len=1_000_000,
            queue_timeout_ns=FOREVER_NS // 2,
            linger_ns=FOREVER_NS // 2,
        )
        bundle = replace(plain.bundle(), queueing=queueing)
        self.router = Router(RouterId(0), [spec], bundle, stream(1, "r"))
        self.slots = slots
        self.now = 0
        self.requests = []
        self.started = []
        """Requests in the order in which they began."""
        self.refused = []
        self.running = []
        if open_:
            self.open()

    def _step(self, at, *events):
        self.now = at
        step = self.router.step(at, events)
        for command in step.commands:
            if isinstance(command, Dispatch):
                self.started.append(command.request)
                self.running.append(command.request)
            elif isinstance(command, Refuse):
                self.refused.append(command.request)

    def open(self):
        self._step(self.now, LeaseGranted(LeaseId(0), FunctionId(0), PodId(0), self.slots, False))

    def pass_time(self, at):
        self._step(at)

    def arrive(self, at=None, **more):
        request = RequestArrived(RequestId(len(self.requests)), FunctionId(0), **more)
        self.requests.append(request)
        self._step(self.now if at is None else at, request)
        return request.request

    def end(self, request=None, at=None, tokens=0):
        request = self.running[0] if request is None else request
        self.running.remove(request)
        self._step(
            self.now if at is None else at, RequestFinished(RequestId(request), PodId(0), tokens)
        )

    def drain(self):
        """End one after the other until nobody is left."""
        while self.running:
            self.end()

    def tenants(self):
        """Tenants of the requests that began, in that order."""
        return [self.requests[request].tenant for request in self.started]

"""A gateway without HTTP: the real router machine and its line; a request ends as it begins."""

import asyncio
from typing import Any

from inferx.core.commands import Dispatch, Refuse, RouterCommand
from inferx.core.events import LeaseGranted, RequestArrived, RequestFinished, RouterEvent
from inferx.core.machine.router import Router
from inferx.core.rng import stream
from inferx.core.types import RequestId, RouterId
from inferx.exec.clock import Clock
from inferx.exec.driver import Driver
from inferx.exec.functions import KINDS, FunctionBook
from inferx.exec.gateway.scheduler_line import SchedulerLine
from inferx.exec.state.objects.informer import Informer
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.selector import Selection
from inferx.exec.wire.codec import Codec
from inferx.load import load_bundle

__all__ = ["Caller"]


class Caller:
    """Asks for functions, and gives them back as soon as it has them."""

    def __init__(self, objects: Objects, scheduler: str, clock: Clock) -> None:
        self._objects = objects
        self._scheduler = scheduler
        self.book = FunctionBook()
        router = Router(RouterId(0), (), load_bundle("default"), stream(1, "router/0"))
        self._driver: Driver[RouterEvent, RouterCommand] = Driver("router", router, clock, self)
        self._line = SchedulerLine(
            "caller",
            self._leader,
            codec=Codec(self.book.names),
            clock=clock,
            post=self._heard,
            locate=lambda _pod, _address: None,
        )
        self._known = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[Dispatch | Refuse]] = {}
        self._next = 0
        self.leased = 0
        """Leases that it was granted."""

    async def _leader(self) -> str:
        return self._scheduler

    async def persist(self, records: Any) -> None:
        """Never called: a router persists nothing."""

    def send(self, command: RouterCommand) -> None:
        """Take the machine's answer, or pass its demand on."""
        if isinstance(command, Dispatch | Refuse):
            self._waiting.pop(command.request).set_result(command)
        else:
            self._line.send(command)

    def _heard(self, event: RouterEvent) -> None:
        self.leased += isinstance(event, LeaseGranted)
        self._driver.post(event)

    async def knows(self, functions: int) -> None:
        """Wait until so many functions are known."""
        while len(self.book.all()) < functions:
            self._known.clear()
            await self._known.wait()

    async def ask(self, name: str) -> bool:
        """Have a function for an instant; False if it was refused."""
        called = self.book.get("t", "n", name)
        assert called is not None
        request = RequestId(self._next)
        self._next += 1
        answer = self._waiting[request] = asyncio.get_running_loop().create_future()
        self._driver.post(RequestArrived(request, called.id))
        got = await answer
        if isinstance(got, Dispatch):
            self._driver.post(RequestFinished(request, got.pod))
        return isinstance(got, Dispatch)

    async def run(self) -> None:
        """Follow objects and the scheduler, until cancelled."""
        informer = Informer(self._objects, *(Selection(type=kind) for kind in KINDS))

        async def follow() -> None:
            async for changed in informer.changes():
                self._driver.post(*self.book.take(changed))
                self._known.set()

        async with asyncio.TaskGroup() as tasks:
            for one in (informer.run(), follow(), self._driver.run(), self._line.run()):
                tasks.create_task(one)

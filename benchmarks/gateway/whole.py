"""The gateway, over a real router that holds one pod. python -m benchmarks.gateway.whole PORT

Its one function is `t/n/f`, which serves the model `tiny`; leave is given to everybody.
"""

import os
import sys

import uvloop

from inferx.core.commands import AskLease, RouterCommand
from inferx.core.events import LeaseGranted
from inferx.core.machine.router import Router
from inferx.core.rng import stream
from inferx.core.types import FunctionId, FunctionSpec, LeaseId, PodId, RouterId
from inferx.exec.clock import WallClock
from inferx.exec.driver import Driver
from inferx.exec.gateway.dispatch import FunctionName, RouterDispatch, Target
from inferx.exec.gateway.limits import HttpLimits
from inferx.exec.gateway.requests import Requests
from inferx.exec.gateway.server import Gateway
from inferx.exec.identity.principal import Principal
from inferx.load import load_bundle

UPSTREAM = os.environ["UPSTREAM"]
NAME = FunctionName("t", "n", "f")
CALLER = Principal("key:1")
SPEC = FunctionSpec(
    name="f",
    hbm_bytes=1,
    device_bytes=1,
    host_bytes=1,
    weight_bytes=1,
    slots=4096,
    queue_len=4096,
)


class World:
    """Grants the one pod when it is asked for, and lets everybody in."""

    def __init__(self) -> None:
        clock = WallClock()
        router = Router(RouterId(0), [SPEC], load_bundle("default"), stream(1, "r"))
        self.driver = Driver("router", router, clock, self)
        self.dispatch = RouterDispatch(
            self.driver.post,
            clock,
            function=lambda name: (
                Target(FunctionId(0), SPEC.queue_timeout_ns) if name == NAME else None
            ),
            address=lambda _pod: UPSTREAM,
        )
        self.leases = 0

    async def persist(self, records):
        raise AssertionError("a router persists nothing")

    def send(self, command: RouterCommand) -> None:
        if not self.dispatch.take(command) and isinstance(command, AskLease):
            self.leases += 1
            pod = PodId(self.leases)
            lease = LeaseId(self.leases)
            self.driver.post(LeaseGranted(lease, FunctionId(0), pod, SPEC.slots, cold=False))

    async def who(self, head):
        return CALLER

    def enter(self, who, head, function):
        return self

    def ended(self, usage):
        """Somebody's quota would be settled here."""

    def find(self, model):
        return NAME if model == "tiny" else None

    async def visible(self, head):
        return ["tiny"]


async def main():
    world = World()
    gateway = Gateway(
        world.dispatch, world, world, HttpLimits(), Requests(WallClock()), fault=print
    )
    await gateway.listen("127.0.0.1", int(sys.argv[1]))
    await world.driver.run()


uvloop.run(main())

"""L1: SimPy and asyncio on virtual time, the same world: the same commands, byte for byte."""

import asyncio
from dataclasses import replace

import msgspec
import pytest
from fake_world import END_NS, FakeWorld, machines
from kernel_world import FUNCTIONS, NODES
from virtual_loop import VirtualClock, VirtualLoop

from inferx.core.machine.step import Step
from inferx.exec.driver import Driver, drive
from inferx.load import load_bundle
from inferx.sim.clock import Alarm, SimClock

REQUESTS = 600
Log = list[tuple[str, int, bytes]]


def bundle(policy: str):
    # Short control periods: more decisions in less time.
    return replace(load_bundle(policy), control_period_ns=3_000_000_001)


def note(log: Log, name: str, now_ns: int, step: Step) -> None:
    if step.commands or step.persist:
        log.append((name, now_ns, msgspec.msgpack.encode((step.persist, step.commands))))


def on_simpy(policy: str, seed: int) -> tuple[Log, FakeWorld]:
    clock = SimClock()
    made = machines(bundle(policy), NODES, FUNCTIONS, seed)
    log: Log = []

    def tell(name: str, *events: object) -> None:
        step = made[name].step(clock.now_ns(), events)
        note(log, name, clock.now_ns(), step)
        for command in step.commands:
            world.act(name, command)
        alarms[name].arm(step.deadline_ns)

    alarms = {name: Alarm(clock, lambda name=name: tell(name)) for name in made}
    world = FakeWorld(clock, tell, len(NODES), seed)
    world.begin(len(FUNCTIONS), REQUESTS)
    clock.run(END_NS)
    return log, world


def on_asyncio(policy: str, seed: int, patience: int) -> tuple[Log, FakeWorld]:
    log: Log = []

    async def main() -> FakeWorld:
        clock = VirtualClock(asyncio.get_running_loop())
        made = machines(bundle(policy), NODES, FUNCTIONS, seed)

        class Noted:
            def __init__(self, name: str) -> None:
                self.name = name

            def step(self, now_ns, events):
                step = made[self.name].step(now_ns, events)
                note(log, self.name, now_ns, step)
                return step

        class Acts:
            def __init__(self, name: str) -> None:
                self.name = name

            async def persist(self, records) -> None:
                # A store answers after some turns of the loop.
                for _ in range(patience):
                    await asyncio.sleep(0)

            def send(self, command) -> None:
                world.act(self.name, command)

        drivers = {name: Driver(name, Noted(name), clock, Acts(name)) for name in made}
        world = FakeWorld(clock, lambda name, e: drivers[name].post(e), len(NODES), seed)
        running = asyncio.create_task(drive(drivers.values()))
        over = asyncio.Event()
        clock.call_at(END_NS, over.set)
        world.begin(len(FUNCTIONS), REQUESTS)
        await over.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return world

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        world = runner.run(main())
    return log, world


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    "policy", ["default", "dedicated", "inferx-reference", "scale-to-zero", "serverlessllm"]
)
def test_inv_7_both_drivers_give_the_same_bytes(policy: str, seed: int) -> None:
    simpy_log, simpy_world = on_simpy(policy, seed)
    asyncio_log, asyncio_world = on_asyncio(policy, seed, patience=seed - 1)
    for one, two in zip(simpy_log, asyncio_log, strict=False):
        assert one == two
    assert len(simpy_log) == len(asyncio_log)
    assert simpy_world.ended == asyncio_world.ended
    # It is a run worth comparing: machines of all kinds spoke, at instants that floats cannot hold.
    assert {name.partition("/")[0] for name, _, _ in simpy_log} == {"scheduler", "router", "agent"}
    assert len(simpy_log) > 1_000
    assert simpy_world.ended > 500
    assert any(now_ns != int(now_ns / 1e9 * 1e9) for _, now_ns, _ in simpy_log)

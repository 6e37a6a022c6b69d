"""Transcripts of the flows that matter: who was told what, and what was answered.

`pytest --regen` rewrites tests/golden; commit a change only if every line of it can be explained.
Load reports and bare ticks are left out.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from kernel_world import World, function, node

from inferx.core.events import LeaseGranted
from inferx.core.types import Tier
from inferx.core.units import GIB, NS_PER_MS, NS_PER_S
from inferx.policy import PolicyBundle, plain
from inferx.policy.basics import FixedHold

GOLDEN = Path(__file__).parents[1] / "golden"
S = NS_PER_S
ONE = (function("f"),)
NODES = (node("a-0", gpus=1),)


def bundle(hold_s: float = 10, then: Tier = Tier.DRAM) -> PolicyBundle:
    return replace(plain.bundle(), keep_alive=FixedHold(int(hold_s * S), then))


def world(functions=ONE, nodes=NODES, **more) -> World:
    return World(more.pop("policy", bundle()), nodes=nodes, functions=functions, **more)


FLOWS: dict[str, Callable[[], World]] = {}


def flow(make: Callable[[], World]) -> Callable[[], World]:
    FLOWS[make.__name__] = make
    return make


@flow
def cold_start() -> World:
    w = world(remote=False)
    w.arrive(0)
    w.run(16 * S)
    return w


@flow
def warm_request() -> World:
    w = world([function("f", max_replica=1)], remote=False)
    w.arrive(0)
    w.run(12 * S + NS_PER_S // 2)
    w.log.clear()
    # The pod has two slots: the second request goes at once, and the scheduler hears nothing. The
    # third waits for a slot; there may be no other pod.
    w.arrive(0)
    w.arrive(0)
    w.run(4 * S)
    return w


@flow
def idle_suspend_resume() -> World:
    w = world(on_disk=[0])
    w.arrive(0)
    # Restored, served, idle for a second, given back, held for ten, suspended.
    w.run(20 * S)
    w.arrive(0)
    w.run(5 * S)
    return w


@flow
def evict_then_place() -> World:
    big = [function(name, hbm_bytes=60 * GIB, milli_gpu=1000) for name in "ab"]
    w = world(big, on_disk=[0, 1], policy=bundle(hold_s=1000))
    w.arrive(0)
    w.run(9 * S)
    w.log.clear()
    w.arrive(1)
    w.run(10 * S)
    return w


@flow
def failed_restore_backs_off() -> World:
    w = world(on_disk=[0])
    w.arrive(0)
    for _ in range(2):
        w.run(1100 * NS_PER_MS)
        while not w.actions:
            w.run(100 * NS_PER_MS)
        w.end(w.actions[0], "restore failed")
    w.run(9 * S)
    return w


@flow
def stop_fails_and_is_tried_again() -> World:
    w = world(remote=False, policy=bundle(hold_s=1, then=Tier.ABSENT))
    w.arrive(0)
    w.run(16 * S)
    w.log.clear()
    while not w.actions:
        w.run(100 * NS_PER_MS)
    w.end(w.actions[0], "processes outlive it")
    w.run(3 * S)
    return w


@flow
def node_lost_with_requests_in_flight() -> World:
    w = world(nodes=[node("a-0", gpus=1), node("a-1", gpus=1)], on_disk=[0])
    w.arrive(0)
    w.run(4500 * NS_PER_MS)
    w.log.clear()
    w.lose(0)
    w.arrive(0)
    w.run(S)
    w.detect(0)
    w.run(8 * S)
    w.restart(0)
    w.report(0)
    w.run(S)
    return w


@flow
def drained_node_ends_what_serves_first() -> World:
    w = world(nodes=[node("a-0", gpus=1), node("a-1", gpus=1)], on_disk=[0])
    w.arrive(0)
    w.run(4500 * NS_PER_MS)
    w.log.clear()
    w.drain(0)
    w.arrive(0)
    w.run(10 * S)
    return w


@flow
def repeated_and_reordered_facts() -> World:
    w = world(on_disk=[0])
    w.arrive(0)
    w.run(4002 * NS_PER_MS)
    (ready,) = [m for m in w.wire if m.to == "scheduler" and "Ready" in type(m.payload).__name__]
    # It is lost; the command is repeated after ten seconds, and the agent tells again.
    w.wire.remove(ready)
    w.run(6100 * NS_PER_MS)
    w.log.append("# The lost fact comes after all, twice.")
    w.tell_scheduler(ready.payload)
    w.tell_scheduler(ready.payload)
    w.run(S)
    return w


@flow
def lease_return_race() -> World:
    """A recall crosses the return of its lease; then the old grant comes a second time."""
    big = [function(name, hbm_bytes=60 * GIB, milli_gpu=1000) for name in "ab"]
    w = world(big, on_disk=[0, 1], policy=replace(bundle(hold_s=1000), patience_ns=0))
    w.arrive(0)
    w.run(4003 * NS_PER_MS)
    (grant,) = [m for m in w.wire if isinstance(m.payload, LeaseGranted)]
    # Ended at 6.004, given back a second later; the ask that makes the scheduler recall it comes
    # half a millisecond before the lease does.
    w.run(3 * S + NS_PER_MS // 2)
    w.log.clear()
    w.arrive(1)
    w.run(2 * NS_PER_MS)
    w.log.append("# The grant comes again: the lease stays over.")
    w.tell_router(0, grant.payload)
    w.run(8 * S)
    return w


def transcript(w: World) -> str:
    quiet = ("LoadReported", "ReportLoad", "(time)")
    lines = [line for line in w.log if not any(word in line for word in quiet)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", FLOWS)
def test_flow_is_as_written_down(name: str, regen: bool) -> None:
    w = FLOWS[name]()
    w.check()
    path = GOLDEN / f"{name}.txt"
    told = transcript(w)
    if regen:
        path.write_text(told)
    assert told == path.read_text()


def test_every_transcript_has_its_flow() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(FLOWS)

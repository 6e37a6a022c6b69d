"""The kernel's world with one GPU a node, and ways to bring it to a certain moment."""

from dataclasses import replace

from kernel_world import Action, World, function, node

from inferx.core.commands import Stop
from inferx.core.protocols import PolicyBundle
from inferx.core.types import Tier
from inferx.core.units import GIB, NS_PER_MS, NS_PER_S
from inferx.policy import plain
from inferx.policy.basics import FixedHold

__all__ = ["BIG", "ONE", "fail_stops", "holding", "until", "world"]

S = NS_PER_S
MS = NS_PER_MS
ONE = [function("f")]
BIG = [function(name, hbm_bytes=60 * GIB, milli_gpu=1000) for name in "ab"]


def holding(seconds: float, then: Tier = Tier.ABSENT) -> PolicyBundle:
    return replace(plain.bundle(), keep_alive=FixedHold(int(seconds * S), then))


def world(policy: PolicyBundle, functions=ONE, nodes=1, **more) -> World:
    named = tuple(node(f"a-{n}", gpus=1) for n in range(nodes))
    return World(policy, nodes=named, functions=functions, **more)


def until(w: World, *kinds: type) -> Action:
    """Let things happen until an action of a kind is under way."""
    for _ in range(2_000):
        found = [a for a in w.actions if isinstance(a.perform.command, kinds)]
        if found:
            return found[0]
        w.run(100 * MS, w.check)
    raise AssertionError(f"none of {kinds}")


def fail_stops(w: World, times: int) -> None:
    for _ in range(times):
        w.end(until(w, Stop), "processes outlive it")
        w.check()

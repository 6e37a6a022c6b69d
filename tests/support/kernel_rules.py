"""Everything that can happen to the kernel, as hypothesis rules and as random walks."""

import inspect
import random

import hypothesis.strategies as st
import msgspec
from adversary import Adversary, adversarial
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kernel_world import FUNCTIONS, NODES, World

from inferx.core.protocols import PolicyBundle
from inferx.core.types import NO_FUNCTION
from inferx.core.units import NS_PER_MS
from inferx.load import load_bundle

SHIPPED = ("default", "dedicated", "inferx-reference", "scale-to-zero", "serverlessllm")
BUNDLES = (*SHIPPED, "default", "legal adversary", "adversary", "adversary")
FUNCTIONS_LIMIT = 12
PICK = st.integers(0, 10_000)


def make_bundle(name: str, seed: int) -> PolicyBundle:
    if name in SHIPPED:
        return load_bundle(name)
    return adversarial(seed, legal=name == "legal adversary")


class Kernel(RuleBasedStateMachine):
    """Requests, messages, actions and faults, in any order."""

    world: World

    @initialize(
        name=st.sampled_from(BUNDLES),
        routers=st.integers(1, 2),
        seed=st.integers(0, 1_000),
        remote=st.booleans(),
        on_disk=st.sampled_from([(), (), (0, 1), (0, 3, 5)]),
    )
    def begin(
        self, name: str, routers: int, seed: int, remote: bool, on_disk: tuple[int, ...]
    ) -> None:
        # Strict but for the one that proposes the impossible.
        self.world = World(
            make_bundle(name, seed),
            routers=routers,
            seed=seed,
            strict=name in SHIPPED,
            remote=remote,
            on_disk=on_disk,
        )

    # -- load ---
    @rule(f=st.integers(0, len(FUNCTIONS) - 1), router=st.integers(0, 1), count=st.integers(1, 4))
    def requests_arrive(self, f: int, router: int, count: int) -> None:
        # Some ask for the functions that came later.
        f = f if count < 3 else len(self.world.functions) - 1 - f
        index = router % len(self.world.routers)
        if self.world.router_alive[index]:
            for _ in range(count):
                self.world.arrive(f, index)

    @rule(pick=PICK)
    def a_client_leaves(self, pick: int) -> None:
        world = self.world
        waiting = [
            (entry[0].request, f, r)
            for r, router in enumerate(world.routers)
            for f, state in enumerate(router._f)
            for entry in state.queue
            if world.router_alive[r]
        ]
        if waiting:
            world.cancel(*waiting[pick % len(waiting)])

    @precondition(lambda self: self.world.serving)
    @rule(pick=PICK)
    def a_request_ends(self, pick: int) -> None:
        running = list(self.world.serving)
        self.world.finish(running[pick % len(running)])

    # -- time and order ---
    @rule(for_ms=st.sampled_from([1, 50, 1_000, 5_000, 31_000]))
    def only_time_passes(self, for_ms: int) -> None:
        self.world.advance(self.world.now_ns + for_ms * NS_PER_MS)

    @rule(for_ms=st.sampled_from([2, 10, 1_500, 6_000, 40_000]))
    def all_happens_in_time(self, for_ms: int) -> None:
        self.world.run(for_ms * NS_PER_MS, self.world.check)

    @precondition(lambda self: self.world.wire)
    @rule(pick=PICK)
    def a_message_arrives(self, pick: int) -> None:
        self.world.deliver(self.world.wire[pick % len(self.world.wire)])

    @precondition(lambda self: self.world.wire)
    @rule(pick=PICK)
    def a_message_arrives_and_will_again(self, pick: int) -> None:
        self.world.deliver(self.world.wire[pick % len(self.world.wire)], keep=True)

    @rule(pick=PICK)
    def a_message_is_lost(self, pick: int) -> None:
        lossy = [m for m in self.world.wire if m.lossy]
        if lossy:
            self.world.wire.remove(lossy[pick % len(lossy)])

    @precondition(lambda self: self.world.actions)
    @rule(pick=PICK)
    def an_action_ends(self, pick: int) -> None:
        self.world.end(self.world.actions[pick % len(self.world.actions)])

    @precondition(lambda self: self.world.actions)
    @rule(pick=PICK)
    def an_action_fails(self, pick: int) -> None:
        self.world.end(self.world.actions[pick % len(self.world.actions)], "device error")

    @precondition(lambda self: self.world.actions)
    @rule(pick=PICK)
    def an_action_fails_and_its_pod_stays(self, pick: int) -> None:
        action = self.world.actions[pick % len(self.world.actions)]
        self.world.end(action, "device error", stays=True)

    # -- faults ---
    @rule(pick=PICK)
    def a_pod_crashes(self, pick: int) -> None:
        world = self.world
        busy = {getattr(a.perform.command, "pod", -1) for a in world.actions}
        still = [b for b in world.bodies.values() if b.pod not in busy]
        if still:
            world.crash(still[pick % len(still)])

    @rule(n=st.integers(0, len(NODES) - 1), disk=st.booleans())
    def a_node_disappears(self, n: int, disk: bool) -> None:
        if self.world.node_alive[n]:
            self.world.lose(n, disk=disk)

    @rule(n=st.integers(0, len(NODES) - 1))
    def a_loss_is_noticed(self, n: int) -> None:
        if not self.world.node_alive[n]:
            self.world.detect(n)

    @rule(n=st.integers(0, len(NODES) - 1))
    def a_node_is_given_up_while_it_runs(self, n: int) -> None:
        if self.world.node_alive[n]:
            self.world.detect(n)

    @rule(n=st.integers(0, len(NODES) - 1))
    def an_agent_starts_anew(self, n: int) -> None:
        self.world.restart(n)

    @rule(n=st.integers(0, len(NODES) - 1))
    def an_agent_reports(self, n: int) -> None:
        world = self.world
        if world.node_alive[n] and not (world.node_deaf[n] or world.cluster.node_alive[n]):
            world.restart(n)
        if world.node_deaf[n]:
            world.report(n)

    @rule(n=st.integers(0, len(NODES) - 1))
    def a_node_drains(self, n: int) -> None:
        if self.world.node_alive[n]:
            self.world.drain(n)

    @precondition(lambda self: self.world.cluster.pods)
    @rule(pick=PICK, now=st.booleans())
    def a_pod_is_to_end(self, pick: int, now: bool) -> None:
        pods = list(self.world.cluster.pods)
        self.world.end_pod(pods[pick % len(pods)], now=now)

    @precondition(lambda self: len(self.world.routers) == 2 and self.world.router_alive[1])
    @rule(pick=st.integers(0, 3))
    def a_router_dies(self, pick: int) -> None:
        if pick == 0:
            self.world.lose_router(1)

    @rule(f=st.integers(0, len(FUNCTIONS) - 1))
    def a_function_is_defined(self, f: int) -> None:
        if len(self.world.functions) < FUNCTIONS_LIMIT:
            name = f"later-{len(self.world.functions)}"
            self.world.define(msgspec.structs.replace(FUNCTIONS[f], name=name))

    @rule(pick=PICK, replaced=st.booleans())
    def a_function_is_retired(self, pick: int, replaced: bool) -> None:
        world = self.world
        known = {event.function for event in world.retired}
        left = [f for f in range(len(world.functions)) if f not in known]
        if len(left) > 2:
            f = left[pick % (len(left) - 1)]
            world.retire(f, left[-1] if replaced else NO_FUNCTION)

    @rule()
    def a_leader_is_elected(self) -> None:
        self.world.elect()

    @rule(router=st.integers(0, 1))
    def a_router_connects(self, router: int) -> None:
        index = router % len(self.world.routers)
        if self.world.router_alive[index]:
            self.world.connect_router(index)

    @rule(n=st.integers(0, len(NODES) - 1))
    def an_agent_connects(self, n: int) -> None:
        if self.world.node_alive[n]:
            self.world.connect_node(n)

    # -- laws ---
    @invariant()
    def the_books_are_right(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        for bundle in world.bundles:
            if isinstance(bundle.placement, Adversary):
                bundle.placement.quiet = True
        world.settle()
        world.check_rest()


# What is likely, so that a walk gets somewhere: requests come, messages arrive, actions end.
WALK = (
    (6.0, "requests_arrive"),
    (1.0, "a_client_leaves"),
    (3.0, "a_request_ends"),
    (2.0, "only_time_passes"),
    (4.0, "all_happens_in_time"),
    (6.0, "a_message_arrives"),
    (2.0, "a_message_arrives_and_will_again"),
    (1.0, "a_message_is_lost"),
    (4.0, "an_action_ends"),
    (1.0, "an_action_fails"),
    (0.5, "an_action_fails_and_its_pod_stays"),
    (0.7, "a_pod_crashes"),
    (0.4, "a_node_disappears"),
    (0.5, "a_loss_is_noticed"),
    (0.2, "a_node_is_given_up_while_it_runs"),
    (0.3, "an_agent_starts_anew"),
    (0.8, "an_agent_reports"),
    (0.3, "a_node_drains"),
    (0.6, "a_pod_is_to_end"),
    (0.1, "a_router_dies"),
    (0.3, "a_function_is_defined"),
    (0.2, "a_function_is_retired"),
    (0.3, "a_leader_is_elected"),
    (1.0, "a_router_connects"),
    (1.5, "an_agent_connects"),
)
NEEDS = {
    "a_request_ends": lambda world: world.serving,
    "a_message_arrives": lambda world: world.wire,
    "a_message_arrives_and_will_again": lambda world: world.wire,
    "an_action_ends": lambda world: world.actions,
    "an_action_fails": lambda world: world.actions,
    "an_action_fails_and_its_pod_stays": lambda world: world.actions,
    "a_pod_is_to_end": lambda world: world.cluster.pods,
    "a_router_dies": lambda world: len(world.routers) == 2 and world.router_alive[1],
}


def walk(seed: int, steps: int) -> Kernel:
    """Take random steps, weighted; deeper than hypothesis gets in the same time."""
    rng = random.Random(seed)
    kernel = Kernel()
    kernel.begin(
        name=rng.choice(BUNDLES),
        routers=rng.randint(1, 2),
        seed=seed,
        remote=rng.random() < 0.6,
        on_disk=rng.choice([(), (0, 1), (0, 3, 5)]),
    )
    kernel.world.check()
    weights, names = zip(*WALK, strict=True)
    for name in rng.choices(names, weights, k=steps):
        arguments = {
            "f": rng.randrange(len(FUNCTIONS)),
            "router": rng.randint(0, 1),
            "count": rng.randint(1, 4),
            "for_ms": rng.choice([1, 10, 50, 1_000, 1_500, 6_000, 31_000, 40_000]),
            "n": rng.randrange(len(NODES)),
            "disk": rng.random() < 0.5,
            "replaced": rng.random() < 0.5,
            "now": rng.random() < 0.5,
            "pick": 0 if name == "a_router_dies" else rng.randint(0, 10_000),
        }
        if NEEDS.get(name, lambda _: True)(kernel.world):
            method = getattr(kernel, name)
            taken = inspect.signature(method).parameters
            method(**{key: value for key, value in arguments.items() if key in taken})
            kernel.world.check()
    return kernel

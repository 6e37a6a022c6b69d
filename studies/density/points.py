"""What is run: points, and the sweeps that they form."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import msgspec

from inferx.core.types import FunctionSpec, NodeSpec
from inferx.core.units import MILLI_PER_GPU, NS_PER_S
from inferx.spec.cluster import load_cluster
from inferx.spec.serving import serving_for
from inferx.spec.template import load_template

MODELS = ("0.5b", "1.5b", "3b", "8b", "14b", "32b-fp8")
NODES = ("g6e.12xlarge", "p4de.24xlarge", "p5.48xlarge", "p5en.48xlarge")
MECHANISMS = ("criu-memfd", "criu-pinned", "sleep")
TARGET_S = 2.0
"""The claim's bound on the p99 cold TTFT."""
TOKENS_IN, TOKENS_OUT = 1000, 250
PAUSE_S = 2.0
"""Mean pause of a visitor between an answer and the next request."""
SPELL = 16
"""Requests of a visit, unless a sweep says otherwise."""
VISITORS = 0.25
"""Visitors that a function has at a time, on average: it is visited a fifth of the time."""
LOADS = (0.5, 0.75, 1.0, 1.25, 1.6)
"""GPU time that the requests need one at a time, over the GPU time there is."""
SPELLS = (1, 4, 16, 64)
CROWDS = (16, 24, 32, 40, 48, 64, 96)
"""Functions on the node of the memory sweep, at one load."""
CROWD = ("g6e.12xlarge", "3b", 0.6)
BURSTY = (
    ("p5.48xlarge", "0.5b", "criu-pinned"),
    ("p5.48xlarge", "3b", "criu-pinned"),
    ("p5.48xlarge", "3b", "sleep"),
    ("p5.48xlarge", "14b", "criu-pinned"),
    ("p5en.48xlarge", "14b", "criu-pinned"),
    ("g6e.12xlarge", "3b", "criu-pinned"),
)
"""Whose bursts are tried: node, model, mechanism."""
BURST_FUNCTIONS = 32


@dataclass(frozen=True)
class Point:
    """One run: `functions` of one model on one node."""

    sweep: str
    node: str
    model: str
    profile: str
    functions: int
    visitors: float = VISITORS
    spell: int = SPELL
    policy: str = "default"
    seed: int = 1


def node_of(point: Point) -> NodeSpec:
    """Return the point's node."""
    return load_cluster(f"{point.node}=1")[0]


@cache
def shape(model: str, node: str) -> FunctionSpec:
    """Return a function of a model; its slice of a GPU's compute is that of its memory."""
    classes = load_template(f"auto:{Path(__file__).with_name('models.toml')}").classes
    spec = next(c for c in classes if c.name == model)
    (gpus,) = load_cluster(f"{node}=1")
    milli = -(-MILLI_PER_GPU * spec.hbm_bytes // gpus.hbm_bytes)
    return msgspec.structs.replace(spec, milli_gpu=milli, max_replica=gpus.gpus)


def service_s(model: str, node: str) -> float:
    """Return how long a request of mean size takes on a GPU of its own."""
    (spec,) = load_cluster(f"{node}=1")
    speed = serving_for(shape(model, node), spec.gpu_type)
    decode_ns = TOKENS_OUT * (speed.decode_base_ns + speed.decode_per_request_ns)
    return TOKENS_IN / speed.prefill_tokens_per_s + decode_ns / NS_PER_S


def load_of(point: Point) -> float:
    """Return the GPU time that a point's requests need one at a time, over what there is."""
    alone = service_s(point.model, point.node)
    return point.functions * point.visitors * alone / (alone + PAUSE_S) / node_of(point).gpus


def packed(base: Point, load: float) -> Point:
    """Return the point with as many functions as give a load."""
    one = load_of(replace(base, functions=1))
    return replace(base, functions=max(node_of(base).gpus, round(load / one)))


def points(floor_s: dict[tuple[str, str, str], float]) -> list[Point]:
    """Return every point but the bursts. `floor_s`: least cold TTFT by (node, model, mechanism)."""
    found: list[Point] = []
    for node in NODES:
        for model in MODELS:
            gpus = load_cluster(f"{node}=1")[0].gpus
            found.append(Point("alone", node, model, "safetensors", gpus, policy="dedicated"))
            for profile in MECHANISMS:
                base = Point("pack", node, model, profile, 1)
                if floor_s[node, model, profile] >= TARGET_S:
                    # The lone start is too slow; two points show what becomes of the rest.
                    found += [packed(base, load) for load in LOADS[1::2]]
                    continue
                found += [packed(base, load) for load in LOADS]
    for profile in MECHANISMS:
        found += [
            packed(Point("spell", "p5.48xlarge", "3b", profile, 1, spell=spell), 0.75)
            for spell in SPELLS
        ]
        node, model, load = CROWD
        for functions in CROWDS:
            base = Point("crowd", node, model, profile, functions, visitors=1.0)
            found.append(replace(base, visitors=load / load_of(base)))
    return found


def burst_points() -> list[Point]:
    """Return the points whose functions are asked for in bursts."""
    return [Point("burst", *which, BURST_FUNCTIONS, policy="suspends") for which in BURSTY]

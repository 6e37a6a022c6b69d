"""What is served: functions of three sizes, more than fit, and who asks for them when."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import inferx
from inferx.core.units import MIB, NS_PER_S
from inferx.exec.worker.weights import write_weights
from inferx.sim.workload.arrivals import Poisson
from inferx.sim.workload.generate import Fixed, LogNormal, Plan, generate
from inferx.sim.workload.grammar import parse_popularity
from inferx.sim.workload.popularity import Popularity
from inferx.sim.workload.write import write_trace

__all__ = ["PLACE", "Case", "functions"]

PLACE = "public/demo"
HOST_MIB = 49
"""What a worker's snapshot holds besides its weights, as `inferx agent bench` counts it."""
PROMPT_TOKENS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One experiment.

    Attributes:
        gpus: Declared on the one node.
        host: Memory of the node that pods may be given.
        sizes_mib: Weights of the functions, in turn.
        functions: How many.
        vram_mib: Of each pod: three fit on a GPU.
        zipf: How unequally they are asked for.
        rate_per_s: Requests, on average.
        span_s: How long they arrive.
        tokens_per_s: Pace of the workers.
        ttft_ms: Their time to the first token.
    """

    gpus: str = "2x1GiB"
    host: str = "600MiB"
    sizes_mib: Sequence[int] = (16, 64, 160)
    functions: int = 10
    vram_mib: int = 320
    zipf: float = 0.9
    rate_per_s: float = 1.0
    span_s: float = 120.0
    tokens_per_s: float = 50.0
    ttft_ms: float = 30.0
    seed: int = 1
    policy: str = "default"

    @property
    def popularity(self) -> Popularity:
        """Who is asked for how often, and what they are called."""
        return parse_popularity(f"zipf:{self.zipf}", self.functions)

    def write_trace(self, path: Path) -> None:
        """Write who asks when."""
        plan = Plan(
            arrivals=Poisson(rate=self.rate_per_s),
            popularity=self.popularity,
            span_ns=int(self.span_s * NS_PER_S),
            input=Fixed(value=PROMPT_TOKENS),
            output=LogNormal(mean=30, p99=80),
        )
        write_trace(path, generate(plan, self.seed))

    def serving_text(self) -> str:
        """Return the workers' declared pace, as a profile has it."""
        return (
            f'\n[serving."*"]\nprefill_tokens_per_s = {PROMPT_TOKENS / self.ttft_ms * 1e3}\n'
            f'decode_base_s = {1 / self.tokens_per_s}\nbasis = "assumed"\nmachine = "any"\n'
            'source = "declared: inferx worker --ttft-ms, --tokens-per-s"\ndate = "2026-11"\n'
        )


def functions(case: Case, folder: Path) -> list[dict]:
    """Write the workers' weights, and return the functions' objects."""
    for size in dict.fromkeys(case.sizes_mib):
        write_weights(folder / f"{size}.bin", size * MIB, case.seed)
    return [
        _function(case, name, case.sizes_mib[row % len(case.sizes_mib)], folder)
        for row, name in enumerate(case.popularity.names)
    ]


def _function(case: Case, name: str, size_mib: int, folder: Path) -> dict:
    tenant, _, namespace = PLACE.partition("/")
    worker = [sys.executable, "-m", "inferx", "worker", "--model", name]
    worker += ["--weights", str(folder / f"{size_mib}.bin"), "--slots", "4"]
    worker += ["--tokens-per-s", str(case.tokens_per_s), "--ttft-ms", str(case.ttft_ms)]
    spec = {
        "entrypoint": worker,
        "commands": [],
        "envs": [["PYTHONPATH", str(Path(inferx.__file__).parents[1])]],
        "resources": {
            "CPU": 1000,
            "Mem": 1024,
            "GPU": {"Type": "Any", "Count": 1, "vRam": case.vram_mib},
        },
        "endpoint": {"port": 8000, "schema": "Http", "probe": "/health"},
        "policy": {"Obj": {"parallel": 4, "max_replica": 2, "queue_timeout": 60.0}},
        "inferx": {
            "milli_gpu": 320,
            "weight_mib": size_mib,
            "device_mib": size_mib,
            "host_mib": HOST_MIB,
        },
    }
    where = {"type": "function", "tenant": tenant, "namespace": namespace, "name": name}
    return where | {"object": {"spec": spec}}

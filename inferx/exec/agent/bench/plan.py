"""What is measured: sizes, tiers, rounds; and the workers that it is measured with."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import inferx
from inferx.core.types import FunctionId, FunctionSpec
from inferx.exec.agent.bench.results import Engine
from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.ports import AgentError, Hook, Launch, Mount
from inferx.exec.agent.store import TierName

__all__ = ["BESIDE_BYTES", "CLONES", "Plan", "Subject", "deployed", "require_memory", "worker"]

CLONES = 3
BESIDE_BYTES = 256 << 20
"""Memory of a pod besides its weights, and what is left to the rest of the host."""
TORCH_BYTES = 512 << 20
TORCH_KV_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Subject:
    """A worker of so many bytes of weights; torch takes the widest model within."""

    engine: Engine
    weight_bytes: int

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"{'torch ' if self.engine == 'torch' else ''}{size_text(self.weight_bytes)}"

    @property
    def held_bytes(self) -> int:
        """About what one pod of it takes of host memory: torch reads its weights through a copy."""
        return self.weight_bytes * (2 if self.engine == "torch" else 1) + BESIDE_BYTES


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        sizes: Bytes of weights of the paced workers.
        torch: Whether a torch worker is measured as well.
        clones: Whether pods are restored at once, at the largest size that memory holds them of.
    """

    sizes: tuple[int, ...]
    tiers: tuple[TierName, ...]
    rounds: int
    torch: bool = False
    clones: bool = True
    seed: int = 0
    torch_bytes: int = TORCH_BYTES

    def subjects(self) -> Sequence[Subject]:
        """Return the workers, small ones first."""
        paced = [Subject("paced", size) for size in sorted(set(self.sizes))]
        return [*paced, Subject("torch", self.torch_bytes)] if self.torch else paced

    def cloned(self, available_bytes: int) -> Subject | None:
        """Return the worker whose clones memory holds, beside their snapshot; at most 1 GB."""
        fitting = [
            one
            for one in self.subjects()
            if one.engine == "paced"
            and one.weight_bytes <= 10**9
            and (CLONES + 1) * one.held_bytes <= available_bytes
        ]
        return fitting[-1] if fitting and self.clones else None


def size_text(size_bytes: int) -> str:
    """Return a size as short as it is written: `100MB`, `512MiB`."""
    for step, units in ((1000, ("", "kB", "MB", "GB", "TB")), (1024, ("", "KiB", "MiB", "GiB"))):
        power = min(len(units) - 1, int(math.log(max(1, size_bytes)) / math.log(step) + 1e-9))
        if size_bytes % step**power == 0 and power:
            return f"{size_bytes // step**power}{units[power]}"
    return f"{size_bytes}B"


def require_memory(subjects: Sequence[Subject], available_bytes: int) -> None:
    """Refuse sizes that host memory does not hold twice: a pod, and its snapshot or its cache.

    Raises:
        AgentError: Which, how much it needs, how much there is.
    """
    for one in subjects:
        needs = 2 * one.held_bytes
        if needs > available_bytes:
            raise AgentError(
                f"{one.title}: a pod and its snapshot take {needs} bytes of memory; the host has"
                f" {available_bytes} to spare",
                phase="host-memory",
            )


def worker(*words: str) -> tuple[str, ...]:
    """Return the command of `inferx worker`, of the package that this is a part of."""
    return (sys.executable, "-c", "from inferx.cli import main; main()", "worker", *words)


def deployed(
    number: int,
    token: str,
    subject: Subject,
    weights: Path,
    *,
    port: int,
    seed: int,
    mounted: bool,
) -> Deployed:
    """Return a function that serves a file of weights, without GPUs.

    Args:
        number: Its id.
        token: What its name tells of this bench.
        subject: What it is.
        weights: The file.
        port: Where it serves.
        seed: Of its answers.
        mounted: Whether the file must be mounted to be seen.
    """
    engine = subject.engine
    words = ["--engine", engine, "--weights", str(weights), "--seed", str(seed)]
    if engine == "torch":
        words += ["--kv", str(TORCH_KV_BYTES), "--slots", "2"]
    else:
        words += ["--tokens-per-s", "1000000", "--ttft-ms", "0"]
    name = f"bench/{token}/{engine}-{subject.weight_bytes}"
    return Deployed(
        id=FunctionId(number),
        spec=FunctionSpec(
            name=name,
            gpus=0,
            hbm_bytes=0,
            device_bytes=0,
            host_bytes=subject.held_bytes,
            weight_bytes=subject.weight_bytes,
        ),
        launch=Launch(
            function=f"{name}@0",
            command=worker(*words),
            env=(("PYTHONPATH", str(Path(inferx.__file__).parents[1])),),
            mounts=(Mount(str(weights.parent), str(weights.parent)),) if mounted else (),
            port=port,
            quiesce=Hook("/inferx/quiesce") if engine == "torch" else None,
            wake=Hook("/inferx/wake") if engine == "torch" else None,
        ),
    )

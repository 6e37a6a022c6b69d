"""One pod: what the agent knows of it, and how it is told to its sandbox."""

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inferx.core.types import GpuId
from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.gpus.slices import visible_env
from inferx.exec.agent.network import Place
from inferx.exec.agent.pod_records import PodRecord
from inferx.exec.agent.ports import AgentError, Gpu, Live, PodSpec, Share, SliceShape
from inferx.exec.agent.processes.launch import PATH

__all__ = ["Pod", "slices_on", "spec_for", "untouched"]


@dataclass(slots=True)
class Pod:
    """A pod that runs, or lies suspended."""

    record: PodRecord
    spec: PodSpec
    live: Live

    def require(self, *states: str) -> None:
        """Raise where the pod is in none of these states."""
        if self.record.state not in states:
            text = f"pod {self.record.pod} is {self.record.state}; expected {' or '.join(states)}"
            raise AgentError(text, phase="state")


@contextmanager
def untouched() -> Generator[None]:
    """Say of what fails in here that the pod is as it was."""
    try:
        yield
    except AgentError as error:
        error.survived = True
        raise


def slices_on(
    deployed: Deployed, gpus: Sequence[GpuId], node: Sequence[Gpu]
) -> tuple[SliceShape, ...]:
    """Return the slices of a function's pod on these GPUs of a node.

    Raises:
        AgentError: The node has no such GPU.
    """
    here = {gpu.index: gpu.uuid for gpu in node if not gpu.mig_enabled}
    spec = deployed.spec
    missing = [gpu for gpu in gpus if gpu not in here]
    if missing:
        raise AgentError(f"no GPU {missing[0]}; this node has {len(here)}", phase="reserve")
    return tuple(
        SliceShape(gpu=here[gpu], milli_gpu=spec.milli_gpu, hbm_bytes=spec.hbm_bytes)
        for gpu in gpus
    )


def spec_for(
    deployed: Deployed,
    name: str,
    slices: tuple[SliceShape, ...],
    place: Place,
    folder: Path,
    *,
    share: Share,
    node: Sequence[Gpu],
) -> PodSpec:
    """Return what a sandbox is told of a pod: its function, and what its place and share add."""
    env = dict(share.env(slices, node)) if slices else {}
    if not deployed.spec.gpus:
        # A plain process would see all.
        env |= visible_env((), ())
    if not deployed.launch.image:
        # What is installed beside this agent, `inferx worker` for one, comes first.
        env["PATH"] = f"{Path(sys.executable).parent}:{PATH}"
    # A namespace of its own is the pod's boundary; on the host's network loopback is.
    env |= {"INFERX_HOST": "0.0.0.0" if place.namespace else "127.0.0.1"}  # noqa: S104
    return PodSpec(
        pod=name,
        launch=deployed.launch,
        slices=slices,
        gpus=deployed.spec.gpus,
        network=place.namespace,
        env=tuple(sorted(env.items())),
        folder=folder,
    )

"""What a snapshot that is made on this node requires of where it is restored."""

import hashlib
from collections.abc import Sequence

from msgspec.structs import replace

from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.pods import Pods
from inferx.exec.agent.ports import AgentError, Launch
from inferx.exec.agent.store import GpuModel, Platform

__all__ = ["command_digest", "platform_of"]


def command_digest(launch: Launch) -> str:
    """Return a digest of all that a pod was told at its start: a restored one was told the same."""
    told = (launch.command, launch.env, launch.mounts, launch.cwd, launch.image)
    return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()


def platform_of(
    pods: Pods,
    deployed: Deployed,
    gpus: Sequence[str],
    image_digest: str,
    *,
    among: tuple[GpuModel, ...] = (),
) -> Platform:
    """Return what a snapshot made here requires.

    Args:
        pods: Of this node.
        deployed: The pod's function.
        gpus: The pod's GPUs, by UUID.
        image_digest: Of the image that it was made from.
        among: All GPUs of the node where its GPU state was made, if that is not this one.

    Raises:
        AgentError: One of its GPUs is no longer here.
    """
    whole = among or pods.moving.whole_gpus()
    known = {gpu.uuid: gpu for gpu in whole}
    for gpu in pods.room.gpus():
        known.setdefault(
            gpu.uuid, GpuModel(model=gpu.name, uuid=gpu.uuid, mig_profile=gpu.mig_profile)
        )
    if gone := [uuid for uuid in gpus if uuid not in known]:
        raise AgentError(f"GPU {gone[0]} is no longer on this node", phase="fit")
    return replace(
        pods.node.platform,
        driver=pods.node.platform.driver if deployed.spec.gpus else "",
        gpus=tuple(known[uuid] for uuid in gpus),
        node_gpus=whole if gpus else (),
        image_digest=image_digest,
        command_digest=command_digest(deployed.launch),
    )

"""Whether a snapshot can be restored on a node: what forbids it, and what is only worth telling.

Forbidden is what is known to break a restored process, or to restore something else than was asked
for:

- another architecture;
- another driver, for the driver's state is its own; GPUs of another model, MIG profile or number;
- another image or command: the files that the process has mapped, or what it was told, differ;
- a CRIU older than the one that wrote the snapshot: CRIU reads what earlier ones wrote, only.

Told is what usually goes well: GPUs that differ by UUID alone (device state is moved), another
kernel, processor, runc or containerd, a newer CRIU.
"""

import itertools
import re

import msgspec

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.manifest import GpuModel, Manifest, Platform

__all__ = ["Mismatch", "mismatch", "require_fit"]


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between a snapshot and a node, in a line."""

    forbids: bool
    reason: str


def mismatch(manifest: Manifest, node: Platform) -> list[Mismatch]:
    """Return how a node, with what it would give the pod, differs from what a snapshot needs.

    Args:
        manifest: The snapshot.
        node: As a snapshot that was made here and now would have it.
    """
    made = manifest.platform
    found = [
        Mismatch(forbids=forbids, reason=f"{what} was {before}, here {now or 'none'}")
        for forbids, what, before, now in (
            (True, "architecture", made.architecture, node.architecture),
            (True, "GPU driver", made.driver, node.driver),
            (True, "image", made.image_digest, node.image_digest),
            (True, "command", made.command_digest, node.command_digest),
            (_older(node.criu, made.criu), "CRIU", made.criu, node.criu),
            (False, "kernel", made.kernel, node.kernel),
            (False, "processor", made.cpu, node.cpu),
            (False, "runc", made.runc, node.runc),
            (False, "containerd", made.containerd, node.containerd),
        )
        if before and before != now
    ]
    return sorted(found + _gpus(made.gpus, node.gpus), key=lambda one: not one.forbids)


def require_fit(manifest: Manifest, node: Platform) -> None:
    """Raise where a snapshot cannot be restored on a node.

    Raises:
        AgentError: One line with all that forbids it.
    """
    reasons = [one.reason for one in mismatch(manifest, node) if one.forbids]
    if reasons:
        msg = f"snapshot {manifest.id} of {manifest.function} does not fit: {'; '.join(reasons)}"
        raise AgentError(msg, phase="fit")


def _gpus(made: tuple[GpuModel, ...], node: tuple[GpuModel, ...]) -> list[Mismatch]:
    if not made:
        return []
    if len(made) != len(node):
        reason = f"the number of GPUs was {len(made)}, here {len(node)}"
        return [Mismatch(forbids=True, reason=reason)]
    found: list[Mismatch] = []
    for row, (before, now) in enumerate(zip(made, node, strict=True)):
        if before.model != now.model:
            reason = f"GPU {row} was {before.model}, here {now.model}"
            found.append(Mismatch(forbids=True, reason=reason))
        if before.mig_profile != now.mig_profile:
            was, here = before.mig_profile or "whole", now.mig_profile or "whole"
            found.append(Mismatch(forbids=True, reason=f"GPU {row} was {was}, here {here}"))
        if before.uuid != now.uuid:
            reason = f"device state moves from GPU {before.uuid} to {now.uuid}"
            found.append(Mismatch(forbids=False, reason=reason))
    return found


def _older(now: str, before: str) -> bool:
    """Whether one version comes before another; one that tells no number is older than all."""
    return _numbers(now) < _numbers(before)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.findall(r"\d+", version)
    numbers = [int(number) for number in found]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(itertools.islice(numbers, 4))

"""What a share's variables name on the host, at the same place in the container.

A share speaks to a pod through its environment. Some of what it says is a path: the folder of the
MPS daemon's pipes, which its clients write to, and a library that is loaded before all others.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from inferx.exec.agent.containers.oci import OciEdits
from inferx.exec.agent.ports import Mount, PodSpec

__all__ = ["with_shares"]

MPS_FOLDER = "CUDA_MPS_PIPE_DIRECTORY"
LIBRARY = "LD_PRELOAD"


def with_shares(edits: OciEdits, spec: PodSpec) -> OciEdits:
    """Return a pod's edits with what its share's variables name."""
    return replace(edits, mounts=(*edits.mounts, *_named(spec)))


def _named(spec: PodSpec) -> Iterator[Mount]:
    for name, value in spec.env:
        if name == MPS_FOLDER:
            yield Mount(value, value, read_only=False)
        elif name == LIBRARY:
            yield Mount(value, value)

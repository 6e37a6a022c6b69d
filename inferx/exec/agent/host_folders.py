"""What of the host functions may mount: the folders that this node's operator has named, and below.

Who writes a function is not who runs the node: a mount of any folder would be a way to read the
host's secrets, and to write to it as root. Paths are followed to their ends first, so that no link
within such a folder leads out of it, and what is mounted is what was checked.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from inferx.exec.agent.ports import AgentError, Launch, Mount

__all__ = ["within"]


def within(launch: Launch, folders: Sequence[Path]) -> Launch:
    """Return how a function is started with the ends of its mounts' paths.

    Args:
        launch: The function's.
        folders: What may be mounted.

    Raises:
        AgentError: It mounts something else, or what is not there.
    """
    if not launch.mounts:
        return launch
    allowed = [Path(os.path.realpath(folder)) for folder in folders]
    mounts = tuple(_end(launch.function, mount, allowed) for mount in launch.mounts)
    return replace(launch, mounts=mounts)


def _end(function: str, mount: Mount, allowed: Sequence[Path]) -> Mount:
    if not mount.source.startswith("/"):
        text = f"{function} mounts {mount.source!r}; expected a path from the host's root"
        raise AgentError(text, phase="mounts")
    end = Path(os.path.realpath(mount.source))
    if not any(end.is_relative_to(folder) for folder in allowed):
        named = " or ".join(map(str, allowed)) or "nothing: sandbox.mounts is empty"
        shown = mount.source if str(end) == mount.source else f"{mount.source}, which is {end}"
        raise AgentError(
            f"{function} mounts {shown}; this node lets functions mount {named}", phase="mounts"
        )
    if not end.exists():
        raise AgentError(f"{function} mounts {end}, which is not there", phase="mounts")
    return replace(mount, source=str(end))

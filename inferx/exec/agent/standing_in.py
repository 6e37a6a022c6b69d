"""Workers that stand in for images: `inferx worker`, of a function's own size, in miniature.

For machines without GPUs and without the images: what a function's author wrote is scheduled as it
is, and what runs holds a small share of the memory and paces its tokens.
"""

import sys
from collections.abc import Sequence

from msgspec.structs import replace

from inferx.core.units import MIB
from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.ports import Hook

__all__ = ["PORT", "stand_in"]

PORT = 8000
SCALE = 1024
"""A stand-in holds one byte for so many of the weights that it stands for."""
LEAST_BYTES = MIB
WORKER_BYTES = 128 * MIB
"""What a worker takes of the host beside its weights."""
HEALTH = "/health"


def stand_in(function: Deployed, options: Sequence[str] = ()) -> Deployed:
    """Return a function whose pods are stand-ins for its own; `options` are the worker's."""
    spec, launch = function.spec, function.launch
    weights = max(LEAST_BYTES, spec.weight_bytes // SCALE)
    name = launch.function.partition("@")[0].rpartition("/")[2]
    command = (
        sys.executable,
        *("-m", "inferx", "worker", "--model", name, "--weights", str(weights)),
        # A pod's addresses are its own; on the host's network they are the host's, for all.
        *("--host", "0.0.0.0", "--port", str(PORT), "--slots", str(spec.slots)),  # noqa: S104
        *options,
    )
    launch = replace(
        launch,
        image="",
        image_entrypoint=False,
        command=command,
        env=(),
        mounts=(),
        port=PORT,
        health=HEALTH,
        quiesce=Hook("/inferx/quiesce"),
        wake=Hook("/inferx/wake"),
        memory_bytes=0,
    )
    spec = replace(spec, host_bytes=weights + WORKER_BYTES)
    return replace(function, spec=spec, launch=launch)

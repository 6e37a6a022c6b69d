"""What an optimal packing of the same requests holds: all of them known at once, any left out."""

from collections.abc import Sequence

import numpy as np

from inferx.core.errors import DescriptionError
from inferx.policy.packing.shapes import NodeState, PodShape, allowed_models
from inferx.sim.oracle.packing import PAIRS_LIMIT, Requests, most_milli_placed

__all__ = ["optimum_milli"]


def optimum_milli(arrivals: Sequence[PodShape], nodes: Sequence[NodeState]) -> int:
    """Return the most thousandths of a GPU that can be placed of `arrivals` on empty `nodes`.

    A request without GPUs is left out: it adds nothing and takes room. Its place on a node counts
    as a host resource, beside CPU and memory.

    Raises:
        DescriptionError: They are not few.
        SolverError: It is not solved in its time.
    """
    pods = [pod for pod in arrivals if pod.gpus]
    hosts = [node for node in nodes if node.gpus]
    gpus = sum(len(node.gpus) for node in hosts)
    if len(pods) * gpus > PAIRS_LIMIT:
        raise DescriptionError(
            f"{len(pods):,} requests of GPUs at {gpus:,} GPUs: {len(pods) * gpus:,} pairs are too "
            f"many for an optimum; expected at most {PAIRS_LIMIT:,}"
        )
    allowed = [
        [not pod.models or node.model in allowed_models(pod.models) for node in hosts]
        for pod in pods
    ]
    requests = Requests(
        gpus=np.array([pod.gpus for pod in pods], np.int64),
        milli=np.array([pod.milli for pod in pods], np.int64),
        host=np.array([(pod.cpu_milli, pod.memory_mib, 1) for pod in pods], np.int64),
        allowed=np.array(allowed, np.bool_),
    )
    return most_milli_placed(
        requests,
        node_gpus=np.array([len(node.gpus) for node in hosts], np.int64),
        node_host=np.array([(n.cpu_milli, n.memory_mib, n.pods) for n in hosts], np.int64),
    )

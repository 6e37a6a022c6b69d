"""The most GPU that any choice of requests and places could give out: small packings, exactly.

A request asks for slices of equal size on different GPUs of one node, and for host resources. What
is not placed waits; the order of arrival is forgotten, so no rule that keeps it does better.

Source: the assignment form of the multiple knapsack problem (Martello and Toth, Knapsack Problems,
1990, chapter 6), with GPUs as knapsacks and equal requests as one kind, solved by HiGHS's
branch and bound.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from inferx.core.types import I64, Bool
from inferx.core.units import MILLI_PER_GPU
from inferx.sim.oracle.solver import SolverError, scipy, silent

__all__ = ["PAIRS_LIMIT", "Requests", "most_milli_placed"]

PAIRS_LIMIT: Final = 4_000
"""Pairs of a request and a GPU; more of them are not small any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What is asked for.

    Attributes:
        gpus: Slices, on different GPUs. Shape (requests,).
        milli: Of a GPU, each slice. Shape (requests,).
        host: Of each host resource. Shape (requests, resources).
        allowed: Whether the node's GPU type will do. Shape (requests, nodes).
    """

    gpus: I64
    milli: I64
    host: I64
    allowed: Bool


def most_milli_placed(
    requests: Requests, *, node_gpus: I64, node_host: I64, time_limit_s: float = 60.0
) -> int:
    """Return the most thousandths of a GPU that can be placed at once.

    Args:
        requests: All that is asked for.
        node_gpus: Whole, empty GPUs of each node. Shape (nodes,).
        node_host: Host resources of each node. Shape (nodes, resources).
        time_limit_s: After it, give up.

    Raises:
        ValueError: More than `PAIRS_LIMIT` pairs of a request and a GPU.
        SolverError: It is not solved in its time.
    """
    count, gpu_node = len(requests.gpus), np.repeat(np.arange(len(node_gpus)), node_gpus)
    pairs = count * len(gpu_node)
    if pairs > PAIRS_LIMIT:
        raise ValueError(f"{pairs:,} pairs of request and GPU; expected at most {PAIRS_LIMIT:,}")
    if not pairs:
        return 0
    kinds, times = _kinds(requests)
    count, nodes, gpus = len(times), len(node_gpus), len(gpu_node)
    optimize, sparse = scipy()
    # Columns: how many of each kind on each node, then slices of each kind on each GPU.
    per_gpu = count * gpus
    at_most = sparse.hstack(
        [
            sparse.kron(sparse.eye(count), np.ones((1, nodes))),
            sparse.csr_array((count, per_gpu)),
        ]
    )
    gpus_of_node = (gpu_node == np.arange(nodes)[:, None]).astype(float)
    # On a node, as many slices as its requests have.
    slices = sparse.hstack(
        [
            -sparse.kron(sparse.diags(kinds.gpus.astype(float)), sparse.eye(nodes)),
            sparse.kron(sparse.eye(count), gpus_of_node),
        ]
    )
    # On a GPU, one slice of each of its node's requests. That is enough: slices that are dealt out
    # in turn, one GPU full after another, never give a request two of the same GPU.
    several = sparse.diags((kinds.gpus > 1).astype(float))
    different = sparse.hstack(
        [-sparse.kron(several, gpus_of_node.T), sparse.kron(several, sparse.eye(gpus))]
    )
    compute = sparse.hstack(
        [
            sparse.csr_array((gpus, count * nodes)),
            sparse.kron(kinds.milli.astype(float)[None, :], sparse.eye(gpus)),
        ]
    )
    rules = [
        optimize.LinearConstraint(at_most, -np.inf, times),
        optimize.LinearConstraint(slices, 0, 0),
        optimize.LinearConstraint(different, -np.inf, 0),
        optimize.LinearConstraint(compute, -np.inf, MILLI_PER_GPU),
    ]
    for resource in range(node_host.shape[1]):
        host = sparse.kron(kinds.host[:, resource].astype(float)[None, :], sparse.eye(nodes))
        padded = sparse.hstack([host, sparse.csr_array((nodes, per_gpu))])
        rules.append(optimize.LinearConstraint(padded, -np.inf, node_host[:, resource]))
    worth = np.repeat(kinds.gpus * kinds.milli, nodes).astype(float)
    most = np.concatenate([(kinds.allowed * times[:, None]).ravel(), np.repeat(times, gpus)])
    with silent():
        found = optimize.milp(
            np.concatenate([-worth, np.zeros(per_gpu)]),
            integrality=np.ones(len(worth) + per_gpu),
            bounds=optimize.Bounds(0, most),
            constraints=rules,
            options={"time_limit": time_limit_s, "mip_rel_gap": 0.0},
        )
    if found.status != 0:
        raise SolverError(f"packing of {pairs:,} pairs of request and GPU: {found.message}")
    return round(-float(found.fun))


def _kinds(requests: Requests) -> tuple[Requests, I64]:
    """Return requests that differ, and how often each comes: equal ones are one integer variable.

    Told apart, they would be tried in every order.
    """
    columns = [
        requests.gpus[:, None],
        requests.milli[:, None],
        requests.host,
        requests.allowed.astype(np.int64),
    ]
    _, first, times = np.unique(
        np.concatenate(columns, axis=1), axis=0, return_index=True, return_counts=True
    )
    kinds = Requests(
        gpus=requests.gpus[first],
        milli=requests.milli[first],
        host=requests.host[first],
        allowed=requests.allowed[first],
    )
    return kinds, times.astype(np.int64)

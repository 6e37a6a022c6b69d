"""Standard explanations: who was filtered out by what, and what would have helped."""

import numpy as np

from inferx.core.explain import Explanation
from inferx.core.types import Want
from inferx.core.view import ClusterView

__all__ = ["filter_counts", "why_not"]


def filter_counts(want: Want, view: ClusterView) -> tuple[int, dict[str, int]]:
    """Count feasible GPUs, and the others by the first reason that turned them away."""
    gpus = view.gpus
    rest = len(gpus.node)
    left = np.ones(rest, np.bool_)
    counts: dict[str, int] = {}
    steps = (
        ("not schedulable", gpus.schedulable),
        ("other GPU type or node", view.eligible(want)),
        ("memory", gpus.hbm_bytes_free >= want.hbm_bytes),
        ("compute", gpus.milli_free >= want.milli_gpu),
        ("host memory, or too few GPUs on the node", view.fits(want)),
    )
    for name, mask in steps:
        passed = left & mask
        passing = int(np.count_nonzero(passed))
        if passing < rest:
            counts[name] = rest - passing
        left, rest = passed, passing
    return rest, counts


def why_not(want: Want, view: ClusterView) -> Explanation:
    """Explain a want that fits nowhere, with the single pod whose leaving would help."""
    feasible, filtered = filter_counts(want, view)
    text = ""
    if feasible == 0:
        text = _helper(want, view)
    return Explanation(
        gpus=len(view.gpus.node), feasible=feasible, filtered=filtered, counterfactual=text
    )


def _helper(want: Want, view: ClusterView) -> str:
    if want.gpus > 1:
        return f"would fit on a node with {want.gpus} GPUs that have room"
    pods, gpus = view.pods, view.gpus
    rows = pods.ready.nonzero()[0]
    at = pods.gpu[rows, 0]
    rows, at = rows[at >= 0], at[at >= 0]
    helps = view.eligible(want)[at]
    helps &= gpus.hbm_bytes_free[at] + pods.hbm_bytes[rows] >= want.hbm_bytes
    helps &= gpus.milli_free[at] + pods.milli_gpu[rows] >= want.milli_gpu
    if not helps.any():
        return "no single pod's leaving would make room"
    useful = rows[helps]
    # An idle pod first, then the one that was used longest ago.
    idle = useful[pods.idle[useful]]
    useful = idle if len(idle) else useful
    row = int(useful[pods.idle_since_ns[useful].argmin()])
    kind = "idle" if bool(pods.idle[row]) else "busy"
    return f"would fit on GPU {int(pods.gpu[row, 0])} if the {kind} pod {int(pods.id[row])} left"

"""Placement where the pressure on KV memory is least.

Source: Yu et al., "Prism: Cost-Efficient Multi-LLM Serving via GPU Memory Ballooning",
OSDI'26, pp. 82-83, section 6.1, algorithm 1, and appendix A.2 (arXiv 2505.04021, v3); request rates
as in v2, "Unleashing GPU Sharing". The KV pressure ratio of a GPU is

    KVPR(g) = sum over models m on g of rate_m / SLO_m  /  shared_kv(g),

shared_kv(g) the GPU's memory less the weights on it. Models are taken in the descending order of
rate / SLO and each is put where the ratio is least: before the model is added by line 6 and by the
proof of the bound in A.2.1, with the model by the text (`resulting`). A model that was evicted and
is asked for again goes to the GPU with the lowest ratio: that is this slot. A model of several GPUs
counts on each with its share of rate and weights.

Differs: models come when they are asked for, not sorted; nothing is moved once it is placed, so
there is no threshold for moving; the KV memory of a pod is its own here and is not ballooned; the
rate is of requests, where v3 counts tokens and their size, for routers report no tokens; the SLO
is the time that the function's queue lets a request wait, where v3 takes that of a token; the parts
of a model stay on one node, and of it go to the GPUs with the least ratios.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from inferx.policy import (
    F64,
    GIB,
    NS_PER_S,
    ClusterView,
    Defer,
    Place,
    PolicyBundle,
    Want,
    plain,
)
from inferx.policy.compose import best_gpus

__all__ = ["LeastPressure", "bundle", "pressure"]

_NO_FIT = Defer("no GPU fits")


def pressure(view: ClusterView, want: Want | None = None) -> F64:
    """Return each GPU's KV pressure ratio, with one more pod of `want` if there is one.

    Returns:
        Shape (gpus,), requests a second, second of SLO and GiB; `inf` where weights leave nothing.
    """
    pods, functions, gpus = view.pods, view.functions, view.gpus
    specs = functions.specs
    slices = np.array([spec.gpus for spec in specs], np.int64)
    slo_s = np.array([spec.queue_timeout_ns for spec in specs]) / NS_PER_S
    # A function's requests are shared by its pods: those there, and the one to come.
    coming = np.zeros(len(specs), np.int64)
    if want is not None:
        coming[want.function] = 1
    sharing = np.maximum(1, functions.ready + functions.starting + coming)
    urgency = functions.arrivals_per_s / np.maximum(slo_s, 1e-9) / (sharing * slices)
    weights = functions.device_bytes / slices
    row, place = np.nonzero(pods.gpu >= 0)
    gpu, function = pods.gpu[row, place], pods.function[row]
    count = len(gpus.node)
    demand = np.bincount(gpu, urgency[function], count).astype(np.float64)
    shared = gpus.hbm_bytes_total - np.bincount(gpu, weights[function], count).astype(np.float64)
    if want is not None:
        demand += urgency[want.function]
        shared -= weights[want.function]
    ratio: F64 = np.full(count, np.inf)
    np.divide(demand, shared / GIB, where=shared > 0, out=ratio)
    return ratio


@dataclass(frozen=True, slots=True)
class LeastPressure:
    """Places on the GPU with the least KV pressure; ties go to the lowest GPU."""

    resulting: bool

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the feasible GPUs whose ratio is least: as it is, or as it would be."""
        ok = view.fits(want)
        if not ok.any():
            return _NO_FIT
        ratio = pressure(view, want if self.resulting else None)
        # Where nothing would be left for KV, any other GPU is better.
        finite = np.minimum(ratio, np.finfo(np.float64).max / 16)
        return Place(best_gpus(want, ok, -finite, view))


def bundle(*, resulting: bool = False) -> PolicyBundle:
    """Return the plain bundle with this placement.

    Args:
        resulting: Whether GPUs are compared by the ratio with the new pod, not by that before it.
    """
    return dataclasses.replace(
        plain.bundle(), name="kv-pressure", placement=LeastPressure(resulting)
    )

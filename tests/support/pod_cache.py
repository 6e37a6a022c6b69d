"""A cluster as a cache of functions, for tests of keep-alive: one request after another."""

from small_cluster import add, cluster, want

from inferx.core.events import LoadReported
from inferx.core.lifecycle import PodState
from inferx.core.rng import stream
from inferx.core.types import RouterId
from inferx.core.view import ClusterView
from inferx.policy import Evict, FunctionId, GpuId, Tier


class PodCache:
    """Serves requests at once on GPUs that hold one pod each; what leaves is gone.

    Attributes:
        missed: Functions that were started, in order.
        left: Functions that left, in order.
    """

    def __init__(self, bundle, functions, gpus, *, told=False):
        """`told`: each request is reported to the observers before it is served."""
        self.c = cluster(functions, nodes=gpus, gpus=1)
        self.bundle = bundle
        self.told = told
        self.missed, self.left = [], []
        self._pods = {}
        self._next = 0
        self._rng = stream(1, "t")

    def serve(self, f):
        """Serve one request, and give the pod back."""
        self.c.now_ns += 1_000_000_000
        view = ClusterView(self.c, snapshots=True)
        if self.told:
            report = LoadReported(RouterId(0), 10**9, (f,), (1,), (1000,), (0,))
            for observer in self.bundle.observers:
                observer.observe(self.c.now_ns, report)
        if f not in self._pods:
            self.missed.append(f)
            gpu = self._room(f, view)
            self._pods[f] = add(self.c, self._next, f, [gpu])
            self._pods[f].ready_ns = self.c.now_ns
            self._next += 1
        pod = self._pods[f]
        pod.idle_since_ns = self.c.now_ns
        self.c.touch(pod)
        self.bundle.keep_alive.retain(FunctionId(f), Tier.HBM, view)

    def _room(self, f, view):
        free = view.fits(want(self.c, f)).nonzero()[0]
        if len(free):
            return int(free[0])
        plan = self.bundle.eviction.evict(want(self.c, f), view, self._rng)
        assert isinstance(plan, Evict)
        ((victim, _),) = plan.victims
        pod = self.c.pods[victim]
        self.left.append(int(pod.function))
        del self._pods[pod.function]
        self.c.release_gpus(pod)
        self.c.charge_host(pod, 0)
        self.c.enter(pod, PodState.TERMINATING)
        self.c.enter(pod, PodState.GONE)
        self.c.remove(pod)
        return int(GpuId(plan.gpus[0]))

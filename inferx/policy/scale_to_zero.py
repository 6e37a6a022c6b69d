"""No snapshots: autoscaled on concurrency, to zero, with full cold starts on whole GPUs.

Source: Knative Serving's pod autoscaler (KPA), repository knative/serving at 98e5ef9,
`pkg/autoscaler/scaling/autoscaler.go` (Scale, line 149), and the defaults of
`config/core/configmaps/autoscaler.yaml`: stable window 60 s, panic window 10 % of it, panic
threshold 200 %, tick 2 s, target 70 % of a pod's concurrency, scale-up by at most 1,000 times and
scale-down to no less than half a tick, and 30 s of grace before zero. A window that is not full yet
is averaged over the seconds since its first sample; a function silent for a whole window begins
anew.

Differs: one concurrency sample a second instead of one a pod and second; a second without a report
counts as one of no requests; the activator, which wakes a function at zero, is the kernel's demand.
"""

from dataclasses import dataclass, field

import numpy as np

from inferx.policy import (
    FOREVER_NS,
    I32,
    I64,
    NS_PER_S,
    Bool,
    ClusterView,
    FunctionId,
    PolicyBundle,
    Tier,
)
from inferx.policy.basics import AdmitAll, FixedHold, LeastOutstanding, NeverEvict, NoPrewarm
from inferx.policy.compose import BestFit, Scored
from inferx.policy.parts.load_window import LoadWindow

__all__ = ["KnativePodAutoscaler", "bundle"]


@dataclass(slots=True)
class KnativePodAutoscaler:
    """Wants pods by the average concurrency over a stable and a panic window."""

    stable_s: int = 60
    panic_share: float = 0.1
    panic_threshold: float = 2.0
    utilisation: float = 0.7
    up: float = 1000.0
    down: float = 2.0
    grace_s: int = 30
    window: LoadWindow = field(init=False)
    """Concurrency over the stable window."""
    _panic_until_ns: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    _panic_pods: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    _wanted_ns: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """When more than zero pods were last wanted."""
    _targets: I32 = field(default_factory=lambda: np.zeros(0, np.int32))

    def __post_init__(self) -> None:
        """Begin with an empty window."""
        self.window = LoadWindow(self.stable_s)

    def _grow(self, functions: int) -> None:
        self.window.grow(functions)
        more = functions - len(self._targets)
        if more > 0:
            self._panic_until_ns = np.append(self._panic_until_ns, np.full(more, -1))
            self._panic_pods = np.append(self._panic_pods, np.zeros(more, np.int32))
            self._wanted_ns = np.append(self._wanted_ns, np.full(more, -FOREVER_NS))
            self._targets = np.append(self._targets, np.zeros(more, np.int32))

    def observe(self, now_ns: int, event: object) -> None:
        """Learn concurrency from load reports."""
        self.window.observe(now_ns, event)

    def target(self, function: FunctionId, view: ClusterView) -> int:
        """Return the latest target; one where it is zero, for somebody asks."""
        self._grow(len(view.functions.specs))
        return max(1, int(self._targets[function]))

    def targets(self, view: ClusterView) -> I32:
        """Return the pods wanted. Shape (functions,)."""
        functions = view.functions
        self._grow(len(functions.specs))
        now = view.now_ns
        per_pod = np.maximum(1.0, functions.slots * self.utilisation)
        panic_s = max(1, int(self.stable_s * self.panic_share))
        stable, _ = self.window.means(now)
        panic = self.window.inside(now, panic_s)
        ready = functions.ready.astype(np.float64)
        most = np.ceil(self.up * np.maximum(ready, 1.0))
        least = np.floor(ready / self.down)
        want_stable = np.clip(np.ceil(stable / per_pod), least, most).astype(np.int32)
        want_panic = np.clip(np.ceil(panic / per_pod), least, most).astype(np.int32)
        over: Bool = np.ceil(panic / per_pod) / np.maximum(ready, 1.0) >= self.panic_threshold
        calm = self._panic_until_ns <= now
        self._panic_pods[calm] = 0
        self._panic_until_ns[over] = now + self.stable_s * NS_PER_S
        panicking = self._panic_until_ns > now
        # In panic the target never falls.
        self._panic_pods = np.where(
            panicking, np.maximum(np.maximum(self._panic_pods, want_panic), functions.ready), 0
        ).astype(np.int32)
        wanted = np.where(panicking, np.maximum(self._panic_pods, want_stable), want_stable)
        inside = functions.queued + functions.inflight > 0
        self._wanted_ns[(wanted > 0) | inside] = now
        grace = now - self._wanted_ns < self.grace_s * NS_PER_S
        live = functions.ready + functions.starting
        wanted = np.where((wanted == 0) & grace & (live > 0), 1, wanted)
        self._targets = wanted.astype(np.int32)
        return self._targets


def bundle(stable_s: int = 60, grace_s: int = 30, utilisation: float = 0.7) -> PolicyBundle:
    """Return the bundle with Knative's defaults.

    Args:
        stable_s: Length of the window that calm targets are averaged over, 6 to 3,600.
        grace_s: How long the last pod stays after nothing is wanted, at least 0.
        utilisation: Share of a pod's slots to aim at, above 0, at most 1.

    Raises:
        ValueError: A setting is out of its range.
    """
    # Knative's own bounds of the window are 6 s and 1 h.
    if not 6 <= stable_s <= 3_600:
        raise ValueError(f"stable_s is {stable_s}; expected 6 to 3600")
    if not 0 <= grace_s <= 86_400:
        raise ValueError(f"grace_s is {grace_s}; expected 0 to 86400")
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation is {utilisation:g}; expected above 0, at most 1")
    autoscaler = KnativePodAutoscaler(stable_s=stable_s, grace_s=grace_s, utilisation=utilisation)
    return PolicyBundle(
        name="scale-to-zero",
        admission=AdmitAll(),
        routing=LeastOutstanding(),
        placement=Scored((("best fit", 1.0, BestFit()),)),
        eviction=NeverEvict(),
        keep_alive=FixedHold(FOREVER_NS, Tier.ABSENT),
        prewarm=NoPrewarm(),
        scaling=autoscaler,
        observers=(autoscaler,),
        snapshots=False,
        mechanism="none",
        whole_gpus=True,
        control_period_ns=2 * NS_PER_S,
        settle_ns=(stable_s + grace_s + 10) * NS_PER_S,
        patience_ns=FOREVER_NS,
    )

"""AIBrix's own autoscaler (APA): a proportional rule with tolerances and bounded steps.

Source: repository vllm-project/aibrix at 2576b18, `pkg/controller/podautoscaler/algorithm/apa.go`
(`computeTargetReplicas`, line 70); its constants are `NewBaseScalingContext` of
`context/context.go`, line 106: tolerances 10 % up and down, at most twice or half the pods in a
step, cooldown 0 s up and 300 s down; the cooldown is `stabilizeRecommendation` of
`podautoscaler_controller.go`, line 1128.

With N pods and `ratio` of the measured load a pod to the wanted one:
    ratio > 1 + up_tolerance:    min(ceil(N ratio), ceil(up_rate N))
    ratio < 1 - down_tolerance:  max(ceil(N ratio), floor(N / down_rate))
    otherwise:                   N
A fall then goes to the least recommendation of the cooldown's window. That is what the source does,
and the opposite of Kubernetes' horizontal autoscaler, which takes the largest: here the window
hastens a fall that it was meant to slow.

Differs: the metric is requests inside over a pod's slots, averaged over `window_s`, where AIBrix
scrapes any metric that it is told to; the wanted share of 50 % is that of its samples; one decision
a 10 s. It never scales to zero by default: here the last pod leaves after `idle_s` without a
request, and requests wake the function. Idle pods stay until the
rule takes them, or an eviction for a waiting request.
"""

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from inferx.policy import (
    F64,
    I32,
    NS_PER_S,
    ClusterView,
    FunctionId,
    PolicyBundle,
    plain,
)
from inferx.policy.parts.load_window import LoadWindow
from inferx.policy.parts.room import autoscaled, within_room

__all__ = ["AibrixPodAutoscaler", "bundle"]

_NONE = np.iinfo(np.int32).max
"""Stands where there was no recommendation."""


@dataclass(slots=True)
class AibrixPodAutoscaler:
    """Wants pods in proportion to the load a pod, within tolerances and steps."""

    share: float
    up_tolerance: float
    down_tolerance: float
    up_rate: float
    down_rate: float
    cooldown_s: float
    idle_s: float
    window: LoadWindow
    _history: deque[tuple[int, I32]] = field(default_factory=deque[tuple[int, I32]])
    _targets: I32 = field(default_factory=lambda: np.zeros(0, np.int32))

    def observe(self, now_ns: int, event: object) -> None:
        """Learn the load."""
        self.window.observe(now_ns, event)

    def recommended(self, pods: F64, ratio: F64) -> F64:
        """Return the pods wanted for `pods` at `ratio` of the wanted load a pod. Shape alike."""
        wanted = np.ceil(pods * ratio)
        up = np.minimum(wanted, np.ceil(self.up_rate * pods))
        down = np.maximum(wanted, np.floor(pods / self.down_rate))
        steady = np.where(ratio < 1 - self.down_tolerance, down, pods)
        result: F64 = np.where(ratio > 1 + self.up_tolerance, up, steady)
        return result

    def target(self, function: FunctionId, view: ClusterView) -> int:
        """Return the latest target; one where it is zero, for somebody asks."""
        return max(1, int(self._targets[function])) if function < len(self._targets) else 1

    def targets(self, view: ClusterView) -> I32:
        """Return the pods wanted. Shape (functions,)."""
        functions, now = view.functions, view.now_ns
        self.window.grow(len(functions.specs))
        inside, _ = self.window.means(now)
        live = functions.ready + functions.starting
        ratio = inside / (np.maximum(functions.ready, 1) * functions.slots * self.share)
        advice = np.maximum(self.recommended(live.astype(np.float64), ratio), 1)
        advised = np.where(live > 0, advice, _NONE).astype(np.int32)
        history = self._history
        history.append((now, advised))
        while now - history[0][0] >= self.cooldown_s * NS_PER_S and len(history) > 1:
            history.popleft()
        least = np.min([told for _, told in history], axis=0)
        wanted = np.where(advised < live, least, advised)
        wanted[(live == 0) | self.window.quiet(self.idle_s, view)] = 0
        self._targets = wanted.astype(np.int32)
        return within_room(self._targets, view)


def bundle(
    share: float = 0.5,
    up_tolerance: float = 0.1,
    down_tolerance: float = 0.1,
    up_rate: float = 2.0,
    down_rate: float = 2.0,
    cooldown_s: float = 300.0,
    window_s: int = 60,
    idle_s: float = 60.0,
) -> PolicyBundle:
    """Return the bundle with AIBrix's defaults.

    Args:
        share: Share of a pod's slots to aim at, above 0, at most 1.
        up_tolerance: How far above the aim is left alone, at least 0.
        down_tolerance: How far below the aim is left alone, 0 to 1.
        up_rate: At most so many times the pods in one step, above 1.
        down_rate: At least the pods over this in one step, above 1.
        cooldown_s: Window of recommendations of which a fall takes the least, 0 to a day.
        window_s: Seconds over which load is averaged, 1 to 3,600.
        idle_s: After so long without a request the last pod leaves, 0 to a day.

    Raises:
        ValueError: A setting is out of its range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share:g}; expected above 0, at most 1")
    if not 0 <= up_tolerance <= 100:
        raise ValueError(f"up_tolerance is {up_tolerance:g}; expected 0 to 100")
    if not 0 <= down_tolerance <= 1:
        raise ValueError(f"down_tolerance is {down_tolerance:g}; expected 0 to 1")
    if not 1 < up_rate <= 1e6:
        raise ValueError(f"up_rate is {up_rate:g}; expected above 1, at most 1e6")
    if not 1 < down_rate <= 1e6:
        raise ValueError(f"down_rate is {down_rate:g}; expected above 1, at most 1e6")
    if not 0 <= cooldown_s <= 86_400:
        raise ValueError(f"cooldown_s is {cooldown_s:g}; expected 0 to 86400")
    if not 1 <= window_s <= 3_600:
        raise ValueError(f"window_s is {window_s}; expected 1 to 3600")
    if not 0 <= idle_s <= 86_400:
        raise ValueError(f"idle_s is {idle_s:g}; expected 0 to 86400")
    scaler = AibrixPodAutoscaler(
        share=share,
        up_tolerance=up_tolerance,
        down_tolerance=down_tolerance,
        up_rate=up_rate,
        down_rate=down_rate,
        cooldown_s=cooldown_s,
        idle_s=idle_s,
        window=LoadWindow(window_s),
    )
    kept = replace(plain.bundle(), scaling=scaler, observers=(scaler,))
    return autoscaled(
        kept,
        "aibrix",
        control_period_ns=10 * NS_PER_S,
        settle_ns=int((idle_s + window_s + 20) * NS_PER_S),
    )

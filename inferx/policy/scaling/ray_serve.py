"""Ray Serve's autoscaler: ongoing requests over a target, with smoothing factors and delays.

Source: repository ray-project/ray at 00590c4, `python/ray/serve/autoscaling_policy.py`
(`_core_replica_queue_length_policy`, `_apply_scaling_factors`, `_apply_delay_logic`,
`_get_cold_start_scale_up_replicas`); defaults of `AutoscalingConfig`: look-back 30 s, upscale delay
30 s, downscale delay 600 s, which is also that of the last replica, both factors 1, 2 ongoing
requests a replica of at most 5.

With N running replicas and R requests averaged over the look-back, `d = R / target_ongoing - N`;
desired is `ceil(N + factor d)`, one less where a fall would be stuck at N, within the bounds. The
target follows it once it has been on the same side of the target for the delay; it falls to zero
from one only. With no replica running, a request makes it `ceil(upscale factor)` at once.

Differs: `target_ongoing` is 40 % of a pod's slots, the ratio of the two defaults, for slots differ
between functions; bounds are the function's, so that zero is allowed where Ray's default is one;
decisions every 5 s instead of every 0.1 s, and delays counted in time rather than in decisions.
Idle pods stay until the
rule takes them, or an eviction for a waiting request.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from inferx.policy import (
    F64,
    I32,
    I64,
    NS_PER_S,
    ClusterView,
    FunctionId,
    PolicyBundle,
    plain,
)
from inferx.policy.parts.load_window import LoadWindow
from inferx.policy.parts.room import autoscaled, within_room

__all__ = ["RayServeAutoscaler", "bundle"]


@dataclass(slots=True)
class RayServeAutoscaler:
    """Wants replicas by ongoing requests; follows after a delay."""

    share: float
    up_factor: float
    down_factor: float
    up_delay_s: float
    down_delay_s: float
    window: LoadWindow
    _target: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    _side: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    """On which side of the target desired has been: 1 above, -1 below, 0 neither."""
    _since_ns: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """Since when."""

    def observe(self, now_ns: int, event: object) -> None:
        """Learn the load."""
        self.window.observe(now_ns, event)

    def _grow(self, functions: int) -> None:
        self.window.grow(functions)
        more = functions - len(self._target)
        if more > 0:
            self._target = np.append(self._target, np.zeros(more, np.int32))
            self._side = np.append(self._side, np.zeros(more, np.int32))
            self._since_ns = np.append(self._since_ns, np.zeros(more, np.int64))

    def desired(self, running: F64, ongoing: F64, target_ongoing: F64) -> F64:
        """Return the replicas desired, before bounds and delays. Shape (functions,).

        `running` is at least one replica everywhere.
        """
        raw = ongoing / target_ongoing
        gap = raw - running
        factor = np.where(gap > 0, self.up_factor, self.down_factor)
        scaled: F64 = np.ceil(running + factor * gap)
        stuck = (np.ceil(raw) < running) & (scaled == running)
        wanted: F64 = scaled - stuck
        return wanted

    def follow(self, now_ns: int, desired: I32) -> I32:
        """Move the targets to what has been desired for long enough. Shape (functions,)."""
        target = self._target
        side = np.sign(desired - target).astype(np.int32)
        turned = side != self._side
        self._since_ns[turned] = now_ns
        self._side = side
        delay_s = np.where(side > 0, self.up_delay_s, self.down_delay_s)
        due = (side != 0) & (now_ns - self._since_ns >= delay_s * NS_PER_S)
        to = np.where((side < 0) & (target > 1), np.maximum(desired, 1), desired)
        self._target = np.where(due, to, target).astype(np.int32)
        self._side[due] = 0
        return self._target

    def target(self, function: FunctionId, view: ClusterView) -> int:
        """Return the target; what a request makes of zero, for somebody asks."""
        self._grow(len(view.functions.specs))
        if not view.functions.ready[function]:
            woken = int(np.ceil(self.up_factor))
            self._target[function] = max(woken, int(self._target[function]))
        return max(1, int(self._target[function]))

    def targets(self, view: ClusterView) -> I32:
        """Return the replicas wanted. Shape (functions,)."""
        functions = view.functions
        specs = functions.specs
        self._grow(len(specs))
        ongoing, _ = self.window.means(view.now_ns)
        some = np.flatnonzero((functions.ready > 0) | (self._target > 0))
        desired = self._target.copy()
        running = functions.ready[some].astype(np.float64)
        wanted = self.desired(
            np.maximum(running, 1), ongoing[some], np.maximum(self.share * functions.slots[some], 1)
        )
        low = np.array([specs[f].min_replica for f in some.tolist()], np.int32)
        high = np.array([specs[f].max_replica for f in some.tolist()], np.int32)
        # While none runs, the target of the wake stands.
        bounded = np.clip(wanted, low, high).astype(np.int32)
        desired[some] = np.where(running > 0, bounded, self._target[some])
        return within_room(self.follow(view.now_ns, desired), view)


def bundle(
    share: float = 0.4,
    look_back_s: int = 30,
    up_factor: float = 1.0,
    down_factor: float = 1.0,
    up_delay_s: float = 30.0,
    down_delay_s: float = 600.0,
) -> PolicyBundle:
    """Return the bundle with Ray Serve's defaults.

    Args:
        share: Share of a pod's slots to aim at, above 0, at most 1.
        look_back_s: Seconds over which ongoing requests are averaged, 1 to 3,600.
        up_factor: How much of a rise is made at once, above 0, at most 100.
        down_factor: How much of a fall is made at once, above 0, at most 100.
        up_delay_s: For how long a rise must have been wanted, 0 to a day.
        down_delay_s: For how long a fall must have been wanted, 0 to a day.

    Raises:
        ValueError: A setting is out of its range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share:g}; expected above 0, at most 1")
    if not 1 <= look_back_s <= 3_600:
        raise ValueError(f"look_back_s is {look_back_s}; expected 1 to 3600")
    for name, factor in (("up_factor", up_factor), ("down_factor", down_factor)):
        if not 0 < factor <= 100:
            raise ValueError(f"{name} is {factor:g}; expected above 0, at most 100")
    for name, delay_s in (("up_delay_s", up_delay_s), ("down_delay_s", down_delay_s)):
        if not 0 <= delay_s <= 86_400:
            raise ValueError(f"{name} is {delay_s:g}; expected 0 to 86400")
    scaler = RayServeAutoscaler(
        share=share,
        up_factor=up_factor,
        down_factor=down_factor,
        up_delay_s=up_delay_s,
        down_delay_s=down_delay_s,
        window=LoadWindow(look_back_s),
    )
    kept = replace(plain.bundle(), scaling=scaler, observers=(scaler,))
    return autoscaled(
        kept,
        "ray-serve",
        control_period_ns=5 * NS_PER_S,
        # Two falls, to one and to none, each after its delay.
        settle_ns=int((2 * down_delay_s + look_back_s + 10) * NS_PER_S),
    )

"""Give each function a hold of its own; otherwise place, evict and scale as `default` does."""

from dataclasses import dataclass, replace

from inferx.policy import NS_PER_S, ClusterView, FunctionId, PolicyBundle, Retain, Tier, default


@dataclass(frozen=True, slots=True)
class HoldOneGap:
    """Holds a pod for about one gap between its function's requests, within limits."""

    least_s: float
    most_s: float

    def retain(self, function: FunctionId, at: Tier, view: ClusterView) -> Retain:
        """Return how long an idle pod stays at its tier, and where it sinks then."""
        rate = view.arrivals_per_s(function)
        gap_s = 1.0 / rate if rate > 0 else self.most_s
        hold_s = min(max(gap_s, self.least_s), self.most_s)
        if at is Tier.DRAM:  # Suspended in host memory: cheap, so stay ten times as long.
            return Retain(int(10 * hold_s * NS_PER_S), then=Tier.NVME)
        room = view.nodes.host_bytes_free.max() > view.spec(function).device_bytes
        return Retain(int(hold_s * NS_PER_S), then=Tier.DRAM if room else Tier.NVME)


def bundle(hold_s: float = 60.0, least_s: float = 5.0) -> PolicyBundle:
    """Return the bundle; `--set hold_s=30` sets an argument."""
    return replace(
        default.bundle(), name="my-policy", keep_alive=HoldOneGap(least_s, most_s=hold_s)
    )

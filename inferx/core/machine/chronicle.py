"""Tells of every decision as it is made, to whoever wants to know."""

from inferx.core.cluster import Cluster
from inferx.core.explain import Decision, DecisionSink, Explanation
from inferx.core.machine.fleet import START_NAME
from inferx.core.pod import Pod
from inferx.core.types import FunctionId, GpuId

__all__ = ["Chronicle"]


class Chronicle:
    """Writes decisions down at the cluster's time."""

    def __init__(self, cluster: Cluster, sink: DecisionSink | None, *, explain: bool) -> None:
        self._c = cluster
        self._sink = sink
        self.explains = explain and sink is not None
        """Whether decisions are to carry their explanation."""

    def decided(
        self,
        kind: str,
        function: FunctionId,
        *,
        pod: int = -1,
        node: int = -1,
        gpus: tuple[GpuId, ...] = (),
        start: str = "",
        reason: str = "",
        victims: tuple[int, ...] = (),
        explanation: Explanation | None = None,
    ) -> None:
        """Tell a decision."""
        if self._sink is None:
            return
        now_ns = self._c.now_ns
        self._sink(
            Decision(now_ns, kind, function, pod, node, gpus, start, reason, victims, explanation)
        )

    def started(
        self,
        kind: str,
        pod: Pod,
        reason: str = "",
        victims: tuple[int, ...] = (),
        explanation: Explanation | None = None,
    ) -> None:
        """Tell that a pod was started, where, and from what."""
        self.decided(
            kind,
            pod.function,
            pod=pod.id,
            node=pod.node,
            gpus=pod.gpus,
            start=START_NAME[pod.start],
            reason=reason,
            victims=victims,
            explanation=explanation,
        )

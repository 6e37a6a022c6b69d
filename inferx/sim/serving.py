"""What a pod does with the requests in its slots, and what that costs the pods beside it.

A plain request has a lane of its own and runs for its duration. A request of tokens waits for its
pod's prefill, first come first served, then decodes together with the others in processor sharing:
each of n decoding requests gains a token every `decode_base_ns + decode_per_request_ns * n`. Decode
does not stop for a prefill: chunked prefill is taken as free for the requests that decode.

Laws:
1. A pod slows by `1 + interference * (busy pods beside it)` on the worst of its GPUs. The
   interference is the slowed pod's own: its slice's enforcement decides what neighbours may take.
   Work left is rescaled at each change. Rates are those of the pod's slice while alone.
2. At low load a request costs two timers: one ends its prefill, one ends it.
3. State is settled before `on_finished` runs, so it may admit or abort; `on_first` only takes note.

The step time rising with the batch follows Orca's iteration-level batching (Yu et al., OSDI'22).
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from inferx.core.units import NS_PER_S
from inferx.sim.clock import SimClock
from inferx.sim.sharing import UNARMED, SharedServer

__all__ = ["GpuMeter", "PodServer", "ServingModel"]

_NOBODY = -1


class ServingModel(Protocol):
    """How fast one pod computes while alone on its GPUs; the times are per token."""

    @property
    def prefill_tokens_per_s(self) -> float:
        """Input tokens read a second."""
        ...

    @property
    def decode_base_ns(self) -> int:
        """What a step of any batch takes."""
        ...

    @property
    def decode_per_request_ns(self) -> int:
        """What each request in the batch adds to a step."""
        ...


class GpuMeter:
    """One GPU's account of which pods are at work on it, and for how long any was."""

    __slots__ = ("_busy_ns", "_pods", "_since_ns")

    def __init__(self) -> None:
        self._pods: list[PodServer] = []
        self._busy_ns = 0
        self._since_ns = 0

    @property
    def busy_pods(self) -> int:
        """How many pods have a request in service."""
        return len(self._pods)

    def busy_ns(self, now_ns: int) -> int:
        """Return for how long at least one request was in service, until now."""
        return self._busy_ns + (now_ns - self._since_ns if self._pods else 0)

    def enter(self, now_ns: int, pod: "PodServer") -> None:
        """A pod has begun to work."""
        pods = self._pods
        pods.append(pod)
        if len(pods) == 1:
            self._since_ns = now_ns
            return
        for neighbour in pods:
            neighbour.reprice(now_ns)

    def leave(self, now_ns: int, pod: "PodServer") -> None:
        """A pod has no more work."""
        pods = self._pods
        pods.remove(pod)
        if not pods:
            self._busy_ns += now_ns - self._since_ns
            return
        for neighbour in pods:
            neighbour.reprice(now_ns)


class PodServer:
    """One ready pod. The router bounds how many requests are inside; there is no queue but prefill.

    Args:
        clock: The run's clock.
        meters: Those of the pod's GPUs.
        serving: How fast the pod is.
        interference: By what share of its speed alone one busy neighbour slows it; 0 is isolated,
            1 is equal time slices. See `Profile.interference`.
        on_first: Called when a request of tokens has its first one.
        on_finished: Called when a request is done; after `on_first`, where both are due.
    """

    __slots__ = (
        "_busy",
        "_clock",
        "_decode",
        "_env",
        "_interference",
        "_lanes",
        "_meters",
        "_on_finished",
        "_on_first",
        "_prefill_armed_ns",
        "_prefill_due_ns",
        "_prefill_fired",
        "_prefill_ns",
        "_prefill_output",
        "_prefill_request",
        "_prefill_waiting",
        "_slow",
        "inflight",
    )

    def __init__(
        self,
        clock: SimClock,
        meters: Sequence[GpuMeter],
        serving: ServingModel,
        *,
        interference: float,
        on_first: Callable[[int], object],
        on_finished: Callable[[int], object],
    ) -> None:
        self._clock = clock
        self._env = clock.env
        self._meters = tuple(meters)
        self._interference = interference
        self._on_first = on_first
        self._on_finished = on_finished
        self._lanes = SharedServer(clock, 1, 0, self._finish)
        self._decode = SharedServer(
            clock, serving.decode_base_ns, serving.decode_per_request_ns, self._finish
        )
        self._prefill_ns = NS_PER_S / serving.prefill_tokens_per_s
        self._prefill_request = _NOBODY
        self._prefill_output = 0
        self._prefill_due_ns = 0
        self._prefill_armed_ns: int = UNARMED
        self._prefill_waiting: deque[tuple[int, int, int]] = deque()
        self._prefill_fired = self._prefill_fire
        self._slow = 1.0
        self._busy = False
        self.inflight = 0

    def admit(self, request: int, input_tokens: int, output_tokens: int, duration_ns: int) -> None:
        """Begin to serve a request; without output tokens it is a plain one of `duration_ns`."""
        now_ns: int = self._env._now  # type: ignore[assignment]  # noqa: SLF001 - hot.
        if not self._busy:
            self._busy = True
            for meter in self._meters:
                meter.enter(now_ns, self)
        self.inflight += 1
        if output_tokens == 0:
            self._lanes.join(now_ns, request, duration_ns)
        elif self._prefill_request == _NOBODY:
            self._prefill(now_ns, request, input_tokens, output_tokens)
        else:
            self._prefill_waiting.append((request, input_tokens, output_tokens))

    def abort_all(self) -> list[int]:
        """Drop what is inside, without a callback, and return it in rising order."""
        dropped = self._lanes.drop() + self._decode.drop()
        if self._prefill_request != _NOBODY:
            dropped.append(self._prefill_request)
        dropped.extend(request for request, _, _ in self._prefill_waiting)
        self._prefill_waiting.clear()
        self._prefill_request = _NOBODY
        self._prefill_armed_ns = UNARMED
        assert len(dropped) == self.inflight, "every request is in one place"
        self.inflight = 0
        if self._busy:
            self._leave()
        dropped.sort()
        return dropped

    def reprice(self, now_ns: int) -> None:
        """Take note that a neighbour has begun or ended to work. The meters call this."""
        slow = 1.0
        for meter in self._meters:
            slow = max(slow, 1.0 + self._interference * (meter.busy_pods - 1))
        if slow == self._slow:
            return
        if self._prefill_request != _NOBODY:
            left_ns = int((self._prefill_due_ns - now_ns) * slow / self._slow + 0.5)
            self._prefill_due_ns = due_ns = now_ns + left_ns
            if due_ns < self._prefill_armed_ns:
                self._prefill_armed_ns = due_ns
                self._clock.after(left_ns, self._prefill_fired)
        self._slow = slow
        self._lanes.reprice(now_ns, slow)
        self._decode.reprice(now_ns, slow)

    def _prefill(self, now_ns: int, request: int, input_tokens: int, output_tokens: int) -> None:
        delay_ns = int(input_tokens * self._prefill_ns * self._slow + 0.5)
        self._prefill_request = request
        self._prefill_output = output_tokens
        self._prefill_due_ns = self._prefill_armed_ns = now_ns + delay_ns
        self._clock.after(delay_ns, self._prefill_fired)

    def _prefill_fire(self) -> None:
        now_ns: int = self._env._now  # type: ignore[assignment]  # noqa: SLF001 - hot.
        if now_ns != self._prefill_armed_ns:
            return
        if self._prefill_due_ns > now_ns:
            self._prefill_armed_ns = self._prefill_due_ns
            self._clock.after(self._prefill_due_ns - now_ns, self._prefill_fired)
            return
        request = self._prefill_request
        output_tokens = self._prefill_output
        if self._prefill_waiting:
            self._prefill(now_ns, *self._prefill_waiting.popleft())
        else:
            self._prefill_request = _NOBODY
            self._prefill_armed_ns = UNARMED
        if output_tokens > 1:
            self._decode.join(now_ns, request, output_tokens - 1)
            self._on_first(request)
            return
        self._on_first(request)
        self._finish(request)

    def _finish(self, request: int) -> None:
        self.inflight -= 1
        self._on_finished(request)
        if self.inflight == 0 and self._busy:
            self._leave()

    def _leave(self) -> None:
        self._busy = False
        now_ns = self._clock.now_ns()
        if self._slow != 1.0:
            self._slow = 1.0
            self._lanes.reprice(now_ns, 1.0)
            self._decode.reprice(now_ns, 1.0)
        for meter in self._meters:
            meter.leave(now_ns, self)

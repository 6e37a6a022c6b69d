"""Message links between machines: delay, jitter, reordering, loss and repetition.

A link delivers to one receiver. With jitter, a later message may overtake an earlier one. What is
lost is lost: the machines repeat themselves. On a transport that repeats for them (one TCP stream,
as between gateways and the scheduler), a loss is the delay of its retransmission.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from numpy.random import Generator

from inferx.core.units import NS_PER_MS, NS_PER_US
from inferx.sim.clock import SimClock

__all__ = ["Link", "LinkModel"]

_M = TypeVar("_M")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkModel:
    """How a link treats messages.

    Attributes:
        delay_ns: Fixed one-way delay.
        jitter_ns: Mean of an exponential delay on top.
        loss: Share of messages that are lost, in [0, 1).
        duplicate: Share of messages that come twice, in [0, 1).
        retransmit_ns: 0 on a raw link; else a loss costs this much instead of the message.
    """

    delay_ns: int = 250 * NS_PER_US
    jitter_ns: int = 0
    loss: float = 0.0
    duplicate: float = 0.0
    retransmit_ns: int = 200 * NS_PER_MS


class Link(Generic[_M]):
    """Carries messages to one receiver."""

    __slots__ = ("_clock", "_deliver", "_model", "_plain", "_rng", "reliable")

    def __init__(
        self,
        clock: SimClock,
        model: LinkModel,
        rng: Generator,
        deliver: Callable[[_M], None],
        *,
        reliable: bool,
    ) -> None:
        self._clock = clock
        self._model = model
        self._rng = rng
        self._deliver = deliver
        self._plain = not (model.jitter_ns or model.loss or model.duplicate)
        self.reliable = reliable

    def send(self, message: _M) -> None:
        """Send a message on its way."""
        if self._plain:
            self._carry(message, self._model.delay_ns)
            return
        model, rng = self._model, self._rng
        copies = 2 if model.duplicate and rng.random() < model.duplicate else 1
        for _ in range(copies):
            delay = model.delay_ns
            if model.jitter_ns:
                delay += int(rng.exponential(model.jitter_ns))
            lost = False
            while model.loss and rng.random() < model.loss:
                if not self.reliable:
                    lost = True
                    break
                delay += model.retransmit_ns
            if not lost:
                self._carry(message, delay)

    def _carry(self, message: _M, delay_ns: int) -> None:
        def arrive() -> None:
            self._deliver(message)

        self._clock.after(delay_ns, arrive)

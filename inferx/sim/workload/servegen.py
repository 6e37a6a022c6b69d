"""ServeGen clients as a trace: each client is a function, its requests drawn window by window.

A window's requests are as many as its rate says, so the recorded load is met exactly; what is drawn
is where they lie. Gaps come from the window's distribution and are stretched to fill the time the
client was active in it, see `servegen_files`; then they are turned by a random phase, as on a ring,
so that nothing happens at the window's edges. That time lies at the window's end where a silent
window came before, at its beginning where one comes after, else anywhere. Windows are independent
of each other given their counts. At shape 1 this is the Poisson process, given its count.

Lengths of a request and of its answer are drawn independently from the shares of the longer window.

Every client and part has its own named stream, and every window its own place far along it: a
client's requests depend neither on the other clients nor on what part of the folder is asked for.

Differs from ServeGen's own generator: its gaps fill the whole window however short the client was
active, and begin at the window's edge, which makes bursty clients start together every 600 s; it
draws lengths of request and answer by one number, so that long requests always get long answers;
an empty window of lengths gets the one before, and is an error where there is none.

Memory: the requests of one window, and the folder. Cost: O(requests).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.random import Generator, Philox

from inferx.core.errors import DescriptionError
from inferx.core.rng import stream
from inferx.core.types import F64, I32, I64
from inferx.core.units import FOREVER_NS, NS_PER_S
from inferx.sim.workload.generate import Size
from inferx.sim.workload.servegen_files import Client, Window
from inferx.sim.workload.trace import MAX_TOKENS, Trace, chunks_of, make_trace
from inferx.sim.workload.transform import from_zero

__all__ = ["ClientDraw", "ServeGen", "generate_servegen"]

MAX_REQUESTS = 10_000_000
"""Most requests of one client in one window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeGen:
    """What to generate from a folder of clients.

    Attributes:
        clients: By number, as `read_clients` returns them.
        window_s: How long a window is, in s.
        from_ns: Arrivals before it are left out; it need not be a window's beginning.
        to_ns: Arrivals from here on are left out.
        factor: So many times the requests, in the same time: gaps shrink, their CV stays.
        most: Only so many clients, those with the most requests; all where None.
        input: Request lengths of clients that have none in the folder.
        output: Answer lengths of the same.
    """

    clients: Sequence[Client]
    window_s: float
    from_ns: int = 0
    to_ns: int = FOREVER_NS
    factor: float = 1.0
    most: int | None = None
    input: Size | None = None
    output: Size | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.from_ns < self.to_ns:
            what = f"{self.from_ns / NS_PER_S:g} to {self.to_ns / NS_PER_S:g} s"
            raise DescriptionError(f"cut {what}: expected 0 <= from < to")
        if not 0 < self.factor < math.inf:
            raise DescriptionError(f"scale {self.factor:g}: expected a number above 0")
        if self.most is not None and self.most < 1:
            raise DescriptionError(f"clients {self.most}: expected at least 1")
        if (self.input is None) != (self.output is None):
            raise DescriptionError("only one of input and output lengths; expected both")

    @property
    def windows(self) -> range:
        """The windows that the cut touches, by index."""
        step_ns = self.window_s * NS_PER_S
        count = len(self.clients[0].windows)
        return range(
            min(count, math.floor(self.from_ns / step_ns)),
            min(count, math.ceil(self.to_ns / step_ns)),
        )


def generate_servegen(plan: ServeGen, seed: int) -> Iterator[Trace]:
    """Yield the trace in chunks; nothing where every client is silent.

    Functions are `client-N`, those whose windows within the cut are not all silent.
    """
    return from_zero(_chunks(plan, seed))


def _chunks(plan: ServeGen, seed: int) -> Iterator[Trace]:
    chosen = _chosen(plan)
    names = tuple(f"client-{client.number}" for client in chosen)
    draws = [ClientDraw(plan, client, seed) for client in chosen]
    for index in plan.windows:
        parts = [draw.window(index) for draw in draws]
        function = np.repeat(np.arange(len(parts)), [len(times) for times, _, _ in parts])
        at_ns = np.concatenate([times for times, _, _ in parts] or [np.zeros(0, np.int64)])
        kept = np.flatnonzero((at_ns >= plan.from_ns) & (at_ns < plan.to_ns))
        order = kept[np.argsort(at_ns[kept], kind="stable")]
        if not len(order):
            continue
        yield from chunks_of(
            make_trace(
                at_ns[order],
                function=function[order],
                input_tokens=np.concatenate([tokens for _, tokens, _ in parts])[order],
                output_tokens=np.concatenate([tokens for _, _, tokens in parts])[order],
                names=names,
            )
        )


def _chosen(plan: ServeGen) -> list[Client]:
    """Return the clients that ask for something within the cut: all, or the busiest."""
    windows = plan.windows
    rates = {
        client.number: sum(window.rate for i in windows if (window := client.windows[i]))
        for client in plan.clients
    }
    asking = [client for client in plan.clients if rates[client.number] > 0]
    busiest = sorted(asking, key=lambda client: -rates[client.number])[: plan.most]
    return sorted(busiest, key=lambda client: client.number)


class ClientDraw:
    """Draws the requests of one client; in which order windows are asked for does not matter."""

    def __init__(self, plan: ServeGen, client: Client, seed: int) -> None:
        if not client.has_lengths and plan.input is None:
            what = f"client {client.number}: no chunk-{client.number}-dataset.json"
            raise DescriptionError(f"{what}; expected one, or --input-tokens and --output-tokens")
        self._plan = plan
        self._client = client
        self._arrivals, self._inputs, self._outputs = (
            cast("Philox", stream(seed, f"workload/servegen/{client.number}/{part}").bit_generator)
            for part in ("arrivals", "input-tokens", "output-tokens")
        )

    def window(self, index: int) -> tuple[I64, I32, I32]:
        """Return arrivals, in order, and the tokens of requests and answers."""
        window = self._client.windows[index]
        if window is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32)
        rng = Generator(self._arrivals.jumped(index))
        inside = self._inside(rng, index, window)
        start_s = index * self._plan.window_s
        # A time may round up to the next window's beginning, whose requests are sorted apart.
        last_ns = math.ceil((start_s + self._plan.window_s) * NS_PER_S) - 1
        times = np.minimum(np.floor((start_s + inside) * NS_PER_S).astype(np.int64), last_ns)
        inputs, outputs = self._lengths(index, start_s, len(times))
        return times, inputs, outputs

    def _inside(self, rng: Generator, index: int, window: Window) -> F64:
        """Return seconds after the window's beginning, in order."""
        whole_s = self._plan.window_s
        expected = window.rate * whole_s * self._plan.factor
        if expected > MAX_REQUESTS:
            what = f"client {self._client.number}: {expected:,.0f} requests in a window"
            raise DescriptionError(f"{what}; expected at most {MAX_REQUESTS:,}")
        rounding, phase, place = rng.random(3)
        count = math.floor(expected + rounding)
        active_s = min(whole_s, window.gap_s * window.rate * whole_s)
        quiet_before, quiet_after = self._silent(index - 1), self._silent(index + 1)
        if quiet_before != quiet_after:
            place = 1.0 if quiet_before else 0.0
        inside: F64 = _ring(rng, window, count, phase) * active_s + place * (whole_s - active_s)
        return inside

    def _silent(self, index: int) -> bool:
        """Tell whether a window is silent; one beyond the folder is taken to be not."""
        windows = self._client.windows
        return 0 <= index < len(windows) and windows[index] is None

    def _lengths(self, index: int, second: float, count: int) -> tuple[I32, I32]:
        inputs = Generator(self._inputs.jumped(index))
        outputs = Generator(self._outputs.jumped(index))
        if self._client.has_lengths:
            known = self._client.lengths(second)
            asked = _pick(known.input_tokens, known.input_shares, inputs, count)
            answered = _pick(known.output_tokens, known.output_shares, outputs, count)
        else:
            assert self._plan.input is not None
            assert self._plan.output is not None
            asked = self._plan.input.draw(inputs, count)
            answered = self._plan.output.draw(outputs, count)
        return _tokens(asked), _tokens(answered)


def _ring(rng: Generator, window: Window, count: int, phase: float) -> F64:
    """Return so many points on a ring of length 1, in order; their gaps are as the window says."""
    if window.kind == "Gamma":
        gaps = rng.standard_gamma(window.shape, count)
    else:
        gaps = rng.weibull(window.shape, count)
    total = gaps.sum()
    # The smallest shapes can leave nothing but zeros: a burst at one time.
    ends = np.cumsum(gaps) / total if total > 0 else np.zeros(count)
    turned: F64 = np.sort((ends + phase) % 1.0)
    return turned


def _pick(values: F64, shares: F64, rng: Generator, count: int) -> F64:
    rows = np.searchsorted(shares, rng.random(count), side="right")
    return values[np.minimum(rows, len(values) - 1)]


def _tokens(drawn: F64) -> I32:
    """Return whole tokens; a request and an answer have at least one, as elsewhere."""
    return np.clip(np.rint(drawn), 1, MAX_TOKENS).astype(np.int32)

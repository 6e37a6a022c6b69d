"""A folder of ServeGen clients: what each asked for in every window, and how long its texts were.

`chunk-N-trace.csv` has no header; a line is one window of client N: its beginning in s, requests/s,
the gaps' coefficient of variation, `Gamma` or `Weibull` or nothing, and that distribution's shape
and scale in s. A window without a distribution is silent. `chunk-N-dataset.json` holds, by the
beginning of a longer window, token counts and their shares as the text of a mapping; it may be
absent. All clients have the same windows, which follow each other from 0.

The rate and the scale need not agree. A rate is a count over the whole window; scale and shape are
fitted to gaps, so the mean gap times the count is how long the client was active. It is shorter
than the window where a client comes or goes within it.

Source: Xiang et al., "ServeGen", arXiv:2505.09999; alibaba/ServeGen (Apache-2.0) at f891d11.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from inferx.core.errors import UNDECODABLE, DescriptionError
from inferx.core.types import F64
from inferx.sim.workload.arrivals import MAX_RATE
from inferx.sim.workload.source import DAMAGED, Source, shown
from inferx.sim.workload.trace import MAX_TOKENS

__all__ = ["Client", "Lengths", "Window", "read_clients"]

MIN_SHAPE = 0.007
"""Least shape of gaps; below it the largest of them leave float64."""
MAX_SHAPE = 1e6
MAX_SCALE = 1e12
MAX_SECONDS = 1e9
"""Latest second of a folder, about 32 years."""

_TRACE = re.compile(r"chunk-(\d{1,9})-trace\.csv")
_SHARE = r"\s*\d+\s*:\s*\d+(?:\.\d*)?(?:[eE][+-]?\d+)?\s*"
_SHARES = re.compile(rf"\s*\{{{_SHARE}(?:,{_SHARE})*\}}\s*", re.ASCII)
_EXPECTS = "expected SECOND,RATE,CV,Gamma|Weibull,SHAPE,SCALE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one client asked for in one window that is not silent.

    Attributes:
        rate: Requests/s, over the whole window.
        kind: The gaps' distribution.
        shape: Its shape.
        scale: Its scale, in s.
    """

    rate: float
    kind: Literal["Gamma", "Weibull"]
    shape: float
    scale: float

    @property
    def gap_s(self) -> float:
        """The mean gap as fitted."""
        if self.kind == "Gamma":
            return self.shape * self.scale
        return self.scale * math.gamma(1 + 1 / self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Token counts and their cumulative shares, for requests and answers; shape (bins,) each."""

    input_tokens: F64
    input_shares: F64
    output_tokens: F64
    output_shares: F64


class _Texts(msgspec.Struct, frozen=True, gc=False):
    input_tokens: str
    output_tokens: str


_DATASET = msgspec.json.Decoder(dict[str, _Texts])


class Client:
    """One client: its windows are read at once, its lengths when asked for."""

    def __init__(self, number: int, windows: Sequence[Window | None], dataset: Path | None) -> None:
        self.number = number
        self.windows = windows
        self.has_lengths = dataset is not None
        self._dataset = dataset
        self._texts: dict[int, _Texts] | None = None
        self._parsed: dict[int, Lengths] = {}

    def lengths(self, second: float) -> Lengths:
        """Return the lengths of the window that holds this second.

        Where that one is empty, those of the window that begins nearest to it; of two, the earlier.
        """
        assert self._dataset is not None, "the client has no lengths"
        if self._texts is None:
            self._texts = _texts(self._dataset)
        starts = list(self._texts)
        holding = max((start for start in starts if start <= second), default=starts[0])
        filled = (start for start in starts if not _empty(self._texts[start]))
        nearest = min(filled, key=lambda start: (abs(start - holding), start), default=None)
        if nearest is None:
            raise DescriptionError(f"{self._dataset}: every window is empty; expected lengths")
        if nearest not in self._parsed:
            self._parsed[nearest] = _lengths(self._dataset, nearest, self._texts[nearest])
        return self._parsed[nearest]


def read_clients(folder: Path) -> tuple[list[Client], float]:
    """Read a folder; return its clients by number, and how long a window is, in s."""
    if not folder.is_dir():
        kind = "not a directory" if folder.exists() else "no such directory"
        raise DescriptionError(f"{folder}: {kind}; expected a folder of ServeGen clients")
    found = [(match, path) for path in folder.iterdir() if (match := _TRACE.fullmatch(path.name))]
    paths = {int(match[1]): path for match, path in found}
    if not paths:
        raise DescriptionError(f"{folder}: no chunk-N-trace.csv; expected one a ServeGen client")
    clients: list[Client] = []
    first: tuple[Path, list[float]] | None = None
    for number, path in sorted(paths.items()):
        seconds, windows = _windows(path)
        first = first or (path, seconds)
        if seconds != first[1]:
            what = f"its {len(seconds)} windows are not those of {first[0].name}"
            raise DescriptionError(f"{path}: {what}; expected the same for every client")
        dataset = path.with_name(path.name.replace("-trace.csv", "-dataset.json"))
        clients.append(Client(number, windows, dataset if dataset.exists() else None))
    assert first is not None
    return clients, first[1][1]


def _windows(path: Path) -> tuple[list[float], list[Window | None]]:
    """Return when each window begins, in s, and what it holds."""
    source = Source(path=path)
    seconds: list[float] = []
    windows: list[Window | None] = []
    for block in source.blocks():
        lines = (line for line in block.text.decode("utf-8", "replace").split("\n"))
        filled = (line.rstrip("\r") for line in lines if line.rstrip("\r"))
        for line, text in zip(block.numbers(), filled, strict=True):
            fields = text.split(",")
            try:
                seconds.append(_number("second", fields[0], 0, MAX_SECONDS))
                windows.append(_window(fields))
            except DescriptionError as error:
                raise source.error(line, f"{error}; {_EXPECTS}") from error
            if seconds[-1] != seconds[min(1, len(seconds) - 1)] * (len(seconds) - 1):
                step = f"in steps of {seconds[1]:g} s" if len(seconds) > 2 else "in equal steps"
                what = f"the window begins at {seconds[-1]:g} s"
                raise source.error(line, f"{what}; expected windows from 0 on, {step}")
    if len(windows) < 2 or not seconds[1]:
        raise DescriptionError(f"{path}: no second window after 0; expected at least 2 windows")
    return seconds, windows


def _window(fields: list[str]) -> Window | None:
    _, rate, _, kind, shape, scale = fields if len(fields) == 6 else ("",) * 6
    if len(fields) != 6 or kind not in {"", "Gamma", "Weibull"}:
        raise DescriptionError(f"found {shown(','.join(fields))}")
    if not kind:
        if _number("rate", rate, 0, MAX_RATE) > 0:
            raise DescriptionError(f"rate is {rate} but no distribution is named")
        return None
    return Window(
        rate=_number("rate", rate, 1 / MAX_RATE, MAX_RATE),
        kind="Gamma" if kind == "Gamma" else "Weibull",
        shape=_number("shape", shape, MIN_SHAPE, MAX_SHAPE),
        scale=_number("scale", scale, 0, MAX_SCALE),
    )


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:  # Also refuses NaN.
        raise DescriptionError(f"{name} is {shown(text)}, not in {low:g} to {high:g}")
    return value


def _texts(path: Path) -> dict[int, _Texts]:
    try:
        with Source(path=path).open() as file:
            texts = _DATASET.decode(file.read())
        by_second = {int(start): texts[start] for start in sorted(texts, key=int)}
    except (*UNDECODABLE, ValueError, *DAMAGED) as error:
        wanted = 'expected {"SECOND": {"input_tokens": "{...}", "output_tokens": "{...}"}, ...}'
        raise DescriptionError(f"{path}: {shown(str(error))}; {wanted}") from error
    if not by_second:
        raise DescriptionError(f"{path}: no windows; expected at least one")
    return by_second


def _empty(texts: _Texts) -> bool:
    return any(not text.strip("{} \t\n") for text in (texts.input_tokens, texts.output_tokens))


def _lengths(path: Path, start: int, texts: _Texts) -> Lengths:
    inputs, input_shares = _shares(f"{path}: window {start}: input_tokens", texts.input_tokens)
    outputs, output_shares = _shares(f"{path}: window {start}: output_tokens", texts.output_tokens)
    return Lengths(
        input_tokens=inputs,
        input_shares=input_shares,
        output_tokens=outputs,
        output_shares=output_shares,
    )


def _shares(where: str, text: str) -> tuple[F64, F64]:
    """Parse `{tokens: share, ...}`; return the token counts and the cumulative shares."""
    if not _SHARES.fullmatch(text):
        raise DescriptionError(f"{where} is {shown(text)}; expected {{TOKENS: SHARE, ...}}")
    pairs = text.strip("{} \t\n").replace(":", ",").split(",")
    table = np.array(pairs, np.float64).reshape(-1, 2)
    if table[:, 0].max() > MAX_TOKENS:
        raise DescriptionError(f"{where}: expected 0 to {MAX_TOKENS:,} tokens")
    total = float(table[:, 1].sum())
    if not abs(total - 1) < 1e-3:  # Also refuses NaN.
        raise DescriptionError(f"{where}: the shares add up to {total:g}; expected 1")
    return table[:, 0].copy(), np.cumsum(table[:, 1]) / total

"""ServeGen clients: as many requests as each window says, spread as it says, each client alone."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from inferx.core.errors import DescriptionError
from inferx.core.units import NS_PER_S
from inferx.sim.workload.generate import Fixed
from inferx.sim.workload.servegen import ClientDraw, ServeGen, generate_servegen
from inferx.sim.workload.servegen_files import read_clients
from inferx.sim.workload.trace import concat

SILENT = "0,0,,0,0"
STEP_S = 600
FOLDER = os.environ.get("INFERX_TRACE_DIR")


def busy(rate: float, *, kind: str = "Gamma", shape: float = 1.0, active: float = 1.0) -> str:
    """A window whose fitted gaps fill this share of it."""
    unit = shape if kind == "Gamma" else math.gamma(1 + 1 / shape)
    return f"{rate},1,{kind},{shape},{active / rate / unit}"


def shares(*texts: dict[int, float]) -> dict[str, str]:
    return dict(zip(("input_tokens", "output_tokens"), map(str, texts), strict=True))


LENGTHS = {"0": shares({100: 0.25, 7: 0.75}, {10: 1.0})}


def write(
    folder: Path,
    clients: dict[int, list[str]],
    lengths: dict[str, dict[str, str]] | None = LENGTHS,
) -> Path:
    for number, windows in clients.items():
        lines = [f"{i * STEP_S},{window}" for i, window in enumerate(windows)]
        (folder / f"chunk-{number}-trace.csv").write_text("\n".join(lines) + "\n")
        if lengths is not None:
            (folder / f"chunk-{number}-dataset.json").write_text(json.dumps(lengths))
    return folder


def made(folder: Path, seed: int = 1, **changes):
    clients, window_s = read_clients(folder)
    return concat(generate_servegen(ServeGen(clients=clients, window_s=window_s, **changes), seed))


def windows(folder: Path, number: int = 0, seed: int = 1, **changes) -> list[np.ndarray]:
    """Return, by window, in seconds after its beginning, when a client's requests arrive."""
    clients, window_s = read_clients(folder)
    client = next(client for client in clients if client.number == number)
    draw = ClientDraw(ServeGen(clients=clients, window_s=window_s, **changes), client, seed)
    return [draw.window(i)[0] / NS_PER_S - i * window_s for i in range(len(client.windows))]


def test_every_window_has_as_many_requests_as_its_rate_says(tmp_path):
    rates = [0.5, 2, 0.025, 1]
    folder = write(tmp_path, {4: [SILENT, *(busy(rate, shape=0.1) for rate in rates)]})
    for seed in range(3):
        counts = list(map(len, windows(folder, 4, seed)))
        assert counts == [0, *(rate * STEP_S for rate in rates)]
        trace = made(folder, seed)
        trace.validate()
        assert len(trace) == sum(counts)
        assert trace.names == ("client-4",)


def test_fractions_of_a_request_are_rounded_by_chance(tmp_path):
    folder = write(tmp_path, {0: [busy(1.5 / STEP_S)] * 400})
    counts = [len(window) for window in windows(folder)]
    assert set(counts) == {1, 2}
    assert sum(counts) == pytest.approx(600, abs=40)


@pytest.mark.parametrize(
    ("kind", "shape", "cv"),
    [
        ("Gamma", 0.25, 2.0),
        ("Gamma", 1.0, 1.0),
        ("Gamma", 4.0, 0.5),
        ("Weibull", 0.6, 1.7575),
        ("Weibull", 2.0, 0.5227),
    ],
)
def test_gaps_vary_as_the_window_says(tmp_path, kind, shape, cv):
    trace = made(write(tmp_path, {0: [busy(20, kind=kind, shape=shape)] * 4}))
    gaps = np.diff(trace.arrival_ns)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)
    assert len(trace) / trace.span_ns * NS_PER_S == pytest.approx(20, rel=0.01)
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.05


def test_shape_1_is_poisson_given_its_count(tmp_path):
    folder = write(tmp_path, {0: [busy(5)] * 40})
    counts = np.bincount(made(folder).arrival_ns // NS_PER_S)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.05)


def test_bursts_do_not_gather_at_the_windows_edge(tmp_path):
    folder = write(tmp_path, {0: [busy(0.1, shape=0.05)] * 2000})
    place = np.concatenate(windows(folder))
    tenths = np.histogram(place, 10, (0, STEP_S))[0] / len(place)
    assert tenths == pytest.approx(np.full(10, 0.1), abs=0.02)


def test_client_that_comes_or_goes_is_there_for_as_long_as_its_gaps_add_up_to(tmp_path):
    part = busy(1, active=0.3)
    lines = [SILENT, part, busy(1), part, SILENT, part, SILENT, busy(1), part, busy(1)]
    folder = write(tmp_path, {0: lines})
    inside = windows(folder)
    assert [len(window) for window in inside] == [0 if line == SILENT else 600 for line in lines]
    assert inside[1].min() >= 0.7 * STEP_S
    assert inside[3].max() <= 0.3 * STEP_S
    for alone in (5, 8):
        assert 0.27 * STEP_S < np.ptp(inside[alone]) <= 0.3 * STEP_S
    assert np.ptp(inside[2]) > 0.97 * STEP_S


def test_gaps_longer_than_the_window_holds_are_shrunk_to_it(tmp_path):
    (inside, _) = windows(write(tmp_path, {0: [busy(1, active=50.0)] * 2}))
    assert len(inside) == 600
    assert 0 <= inside.min() < inside.max() < STEP_S


def test_lengths_have_the_shares_of_their_window(tmp_path):
    lengths = {
        "0": shares({100: 0.25, 7: 0.75}, {10: 1.0}),
        "1200": shares({}, {9: 1.0}),
        "2400": shares({0: 1.0}, {0: 0.5, 3: 0.5}),
        "3600": shares({}, {}),
    }
    folder = write(tmp_path, {0: [busy(10)] * 8}, lengths)
    trace = made(folder)
    window = trace.arrival_ns // (STEP_S * NS_PER_S)
    # The empty one in the middle is as near to either neighbour: the earlier counts.
    for first in (0, 2):
        rows = (window >= first) & (window < first + 2) & (np.arange(len(trace)) % 6000 > 100)
        assert set(trace.input_tokens[rows]) == {7, 100}
        assert (trace.input_tokens[rows] == 100).mean() == pytest.approx(0.25, abs=0.02)
        assert set(trace.output_tokens[rows]) == {10}
    late = trace.take(window >= 5)
    assert set(late.input_tokens) == {1}
    assert (late.output_tokens == 3).mean() == pytest.approx(0.5, abs=0.02)


def three(folder: Path) -> Path:
    lines = {number: [busy(rate, shape=0.3)] * 4 for number, rate in ((0, 0.2), (7, 1), (10, 0.5))}
    return write(folder, {**lines, 12: [SILENT] * 4})


def test_client_is_the_same_whoever_else_is_there(tmp_path):
    folder = three(tmp_path)
    both = made(folder)
    assert both.names == ("client-0", "client-7", "client-10")
    alone = windows(folder, 10)
    (folder / "chunk-0-trace.csv").unlink()
    (folder / "chunk-7-trace.csv").unlink()
    for one, other in zip(alone, windows(folder, 10), strict=True):
        assert np.array_equal(one, other)


def test_cut_is_that_part_of_the_whole(tmp_path):
    folder = three(tmp_path)
    from_ns, to_ns = 650 * NS_PER_S, 1801 * NS_PER_S
    clients, _ = read_clients(folder)
    at_ns = np.sort(
        np.concatenate(
            [
                np.rint((window + i * STEP_S) * NS_PER_S)
                for client in clients
                for i, window in enumerate(windows(folder, client.number))
            ]
        )
    )
    kept = at_ns[(at_ns >= from_ns) & (at_ns < to_ns)]
    part = made(folder, from_ns=from_ns, to_ns=to_ns)
    assert len(part) == len(kept) > 1000
    assert np.abs(part.arrival_ns - (kept - kept[0])).max() <= 2000


def test_same_seed_gives_the_same_trace_and_another_seed_another(tmp_path):
    folder = three(tmp_path)
    assert made(folder).sha256() == made(folder).sha256()
    assert made(folder).sha256() != made(folder, 2).sha256()


def test_scale_multiplies_requests_and_keeps_their_variation(tmp_path):
    folder = write(tmp_path, {0: [busy(4, shape=0.25)] * 4})
    assert len(made(folder, factor=2.5)) == 2.5 * 4 * STEP_S * 4
    assert len(made(folder, factor=0.01)) == 0.01 * 4 * STEP_S * 4
    gaps = np.diff(made(folder, factor=5).arrival_ns)
    assert gaps.std() / gaps.mean() == pytest.approx(2, rel=0.05)


def test_few_clients_are_the_busiest_ones(tmp_path):
    folder = three(tmp_path)
    assert made(folder, most=2).names == ("client-7", "client-10")
    assert made(folder, most=9).names == ("client-0", "client-7", "client-10")


def test_client_without_lengths_takes_those_given(tmp_path):
    folder = write(tmp_path, {0: [busy(1)] * 2}, None)
    with pytest.raises(DescriptionError, match=r"client 0: no chunk-0-dataset\.json; expected one"):
        made(folder)
    trace = made(folder, input=Fixed(value=5), output=Fixed(value=6))
    assert set(trace.input_tokens) == {5}
    assert set(trace.output_tokens) == {6}


def test_smallest_shape_is_a_burst_at_one_time(tmp_path):
    (inside, _) = windows(write(tmp_path, {0: [busy(0.01, shape=0.007)] * 2}))
    assert len(inside) == 6
    assert np.isfinite(inside).all()


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("0,1,1,Gamma,1", "found '0,1,1,Gamma,1'"),
        ("0,1,1,Pareto,1,1", "found '0,1,1,Pareto,1,1'"),
        ("x,1,1,Gamma,1,1", "second is 'x'"),
        ("0,-1,1,Gamma,1,1", "rate is '-1'"),
        ("0,nan,1,Gamma,1,1", "rate is 'nan'"),
        ("0,1,1,Gamma,0.001,1", "shape is '0.001'"),
        ("0,1,1,Weibull,1,-1", "scale is '-1'"),
        ("0,1,1,Gamma,1,inf", "scale is 'inf'"),
        ("0,1,0,,0,0", "rate is 1 but no distribution is named"),
        ("5,1,1,Gamma,1,1", "the window begins at 5 s; expected windows from 0 on"),
        ('0,"1,1,Gamma,1,1', "rate is '\"1'"),
    ],
)
def test_bad_window_is_one_line(tmp_path, line, what):
    path = tmp_path / "chunk-0-trace.csv"
    path.write_text(f"{line}\n600,1,1,Gamma,1,1\n")
    with pytest.raises(DescriptionError, match="expected") as error:
        read_clients(tmp_path)
    assert str(error.value).startswith(f"{path}:1: {what}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("seconds", "what"),
    [
        ([0, 600, 1100], ":3: the window begins at 1100 s; expected windows from 0 on, in steps"),
        ([0, 0], ": no second window after 0; expected at least 2 windows"),
        ([0], ": no second window after 0; expected at least 2 windows"),
        ([0, 300, 600], ": its 3 windows are not those of chunk-0-trace.csv; expected the same"),
    ],
)
def test_windows_that_do_not_follow_each_other_are_one_line(tmp_path, seconds, what):
    write(tmp_path, {0: [SILENT] * 3})
    path = tmp_path / "chunk-1-trace.csv"
    path.write_text("\n".join(f"{second},{SILENT}" for second in seconds))
    with pytest.raises(DescriptionError) as error:
        read_clients(tmp_path)
    assert str(error.value).startswith(f"{path}{what}")


@pytest.mark.parametrize(
    "lengths",
    [
        [],
        {},
        {"x": shares({1: 1.0}, {1: 1.0})},
        {"0": {"input_tokens": "{1: 1.0}"}},
        {"0": shares({}, {})},
        {"0": {"input_tokens": "{1: 1.0", "output_tokens": "{1: 1.0}"}},
        {"0": {"input_tokens": "{1, 1.0: 3}", "output_tokens": "{1: 1.0}"}},
        {"0": {"input_tokens": "__import__('os')", "output_tokens": "{1: 1.0}"}},
        {"0": shares({1: 1.0}, {1: 0.6})},
        {"0": shares({-1: 1.0}, {1: 1.0})},
        {"0": shares({10**9: 1.0}, {1: 1.0})},
    ],
)
def test_bad_lengths_are_one_line(tmp_path, lengths):
    folder = write(tmp_path, {0: [busy(1)] * 2}, lengths)
    with pytest.raises(DescriptionError, match=r"chunk-0-dataset\.json: .*expected") as error:
        made(folder)
    assert "\n" not in str(error.value)


def test_bad_folders_are_one_line(tmp_path):
    with pytest.raises(DescriptionError, match="no such directory; expected a folder of ServeGen"):
        read_clients(tmp_path / "none")
    with pytest.raises(DescriptionError, match="expected one a ServeGen client"):
        read_clients(tmp_path)
    path = tmp_path / "chunk-3-trace.csv"
    path.write_text(f"0,{SILENT[2:]}")
    with pytest.raises(DescriptionError, match="not a directory"):
        read_clients(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"factor": 0},
        {"factor": math.nan},
        {"factor": 1e12},
        {"most": 0},
        {"from_ns": 5, "to_ns": 5},
        {"input": Fixed(value=1)},
    ],
)
def test_contradictory_plan_is_an_error(tmp_path, changes):
    with pytest.raises(DescriptionError, match="expected"):
        made(three(tmp_path), **changes)


def test_published_hour_has_the_requests_that_its_rates_add_up_to():
    """deepseek-r1 as published: 73 clients, 16.0 requests/s over its day."""
    folder = Path(FOLDER or "") / "servegen" / "deepseek-r1"
    if FOLDER is None or not folder.is_dir():
        pytest.skip("servegen/deepseek-r1 is not in INFERX_TRACE_DIR")
    clients, window_s = read_clients(folder)
    rates = [sum(window.rate for window in client.windows if window) for client in clients]
    assert (len(clients), window_s) == (73, 600)
    assert sum(rates) / 144 == pytest.approx(16.0, abs=0.05)
    trace = made(folder, from_ns=79_200 * NS_PER_S, to_ns=82_800 * NS_PER_S)
    trace.validate()
    assert len(trace) == 126_480
    assert len(trace.names) == 30

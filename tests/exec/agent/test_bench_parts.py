"""Parts of the bench: the fitted line, sizes that memory holds, the floor, configuration."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferx.exec.agent.bench import Plan, Subject, fit_line, require_memory, temporary_config
from inferx.exec.agent.bench.floor import forget, large_files, read_floor, write_floor
from inferx.exec.agent.bench.plan import BESIDE_BYTES, CLONES, size_text
from inferx.exec.agent.ports import AgentError

MIB = 1 << 20
POINTS = st.lists(st.tuples(st.integers(1, 1 << 40), st.floats(1e-4, 1e4)), min_size=1, max_size=12)


@given(st.floats(0, 10), st.floats(1e6, 1e11), st.lists(st.integers(1, 1 << 36), min_size=2))
@example(0.05, 1e9, [1, 1])
def test_times_on_a_line_give_the_line(fixed_s, rate, sizes):
    points = [(size, fixed_s + size / rate) for size in sizes]
    line = fit_line(points)
    for size, seconds in points:
        assert line.seconds(size) == pytest.approx(seconds, rel=1e-3, abs=1e-9)
    assert line.spread < 1e-3


@given(POINTS)
@example([(1, 2.0), (2, 1.0)])
@example([(1, 1e-3), (2, 1.0)])
def test_no_part_of_a_line_is_below_zero(points):
    line = fit_line(points)
    assert line.fixed_s >= 0
    assert line.bytes_per_s >= 0
    assert all(line.seconds(size) > 0 for size, _ in points)
    assert line.count == len(points)


@given(POINTS)
@example([(0, 1.0), (0, 3.0)])
@example([(1, 1.0), (1, 9.0), (1 << 30, 20.0), (1 << 30, 90.0)])
def test_measured_over_fitted_is_one_on_average(points):
    line = fit_line(points)
    ratios = [seconds / line.seconds(size) for size, seconds in points]
    sizes = {size for size, _ in points}
    # Where times fall as sizes grow, or differ ten-thousandfold, no line is good.
    if len(sizes) == 1 or (line.bytes_per_s and line.spread < 1):
        assert sum(ratios) / len(ratios) == pytest.approx(1.0, rel=1e-2)


def test_a_size_that_memory_does_not_hold_twice_is_refused():
    needs = 2 * (100 * MIB + BESIDE_BYTES)
    subjects = [Subject("paced", 100 * MIB)]
    require_memory(subjects, needs)
    with pytest.raises(
        AgentError, match=rf"^100MiB: .* take {needs} bytes .* {needs - 1} to spare"
    ):
        require_memory(subjects, needs - 1)


def test_clones_are_of_the_largest_worker_that_memory_holds_so_often():
    plan = Plan((10**7, 10**9, 4 * 10**9), ("nvme",), 1)
    ample = (CLONES + 1) * (10**9 + BESIDE_BYTES)
    assert plan.cloned(ample) == Subject("paced", 10**9)
    assert plan.cloned(100 * ample) == Subject("paced", 10**9)
    assert plan.cloned(ample - 1) == Subject("paced", 10**7)
    assert plan.cloned(0) is None


@pytest.mark.parametrize(
    ("size", "text"), [(10**7, "10MB"), (4 * 10**9, "4GB"), (512 * MIB, "512MiB"), (1001, "1001B")]
)
def test_sizes_are_told_as_they_were_asked_for(size, text):
    assert size_text(size) == text


def test_the_floor_is_of_the_large_files_and_leaves_none(tmp_path):
    files, tier = tmp_path / "files", tmp_path / "tier"
    files.mkdir()
    tier.mkdir()
    (files / "pages-1.img").write_bytes(b"\x01" * (3 * MIB))
    (files / "core-1.img").write_bytes(b"\x01" * 100)
    large = large_files(files)
    assert [path.name for path in large] == ["pages-1.img"]
    written = write_floor(large, tier)
    forget(large)
    read = read_floor("read_cold", large)
    assert written.moved_bytes == read.moved_bytes == 3 * MIB
    assert written.seconds > 0
    assert read.seconds > 0
    assert list(tier.iterdir()) == []
    with pytest.raises(AgentError, match="No such file"):
        read_floor("read", [tmp_path / "absent"])
    with pytest.raises(AgentError, match="No such file"):
        write_floor(large, tmp_path / "absent")


def test_a_benchs_own_folders_go_with_it():
    with temporary_config() as config:
        folders = [Path(tier.folder).parent for tier in config.tiers]
        assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders)
        with temporary_config() as other:
            assert other.name != config.name
    assert not any(folder.exists() for folder in folders)

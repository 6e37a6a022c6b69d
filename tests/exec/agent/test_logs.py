"""What pods write: bounded under a writer that has them open, kept after, read as they come."""

import os
import subprocess
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from inferx.exec.agent.logs.kept import KEPT_PODS, KeptLogs
from inferx.exec.agent.logs.reading import PodReader
from inferx.exec.agent.logs.stream import first_byte, held_bytes, tail_from, trim
from inferx.exec.agent.processes import procfs

LIMIT = 64 * 1024
OF = "t/n/f@1"


@contextmanager
def opened(path: Path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def writer(tmp_path):
    """A writer as pods are: it appends, and holds its file open."""
    with (tmp_path / "stdout.log").open("ab", buffering=0) as file:
        yield file


def filled(writer, count_bytes):
    """Write numbered lines; return them all."""
    written = bytearray()
    for number in count():
        line = b"line %07d\n" % number
        written += line
        writer.write(line)
        if len(written) >= count_bytes:
            return bytes(written)
    raise AssertionError


def test_the_older_half_is_given_up_under_the_writer_and_offsets_stay(writer):
    path = Path(writer.name)
    written = filled(writer, LIMIT)
    trim(path, LIMIT + 100)
    assert held_bytes(path) == len(written), "within its bound it is left alone"
    written += filled(writer, 2 * LIMIT)
    trim(path, LIMIT)
    assert LIMIT // 2 <= held_bytes(path) <= LIMIT
    assert path.stat().st_blocks * 512 <= LIMIT + 2 * 4096, "the disk has them back"
    with opened(path) as descriptor:
        first = first_byte(descriptor)
        assert os.pread(descriptor, 4 * LIMIT, first) == written[first:]
        writer.write(b"after\n")
        assert os.pread(descriptor, 4 * LIMIT, first) == written[first:] + b"after\n"


def test_no_file_holds_nothing_and_is_not_made(tmp_path):
    path = tmp_path / "none.log"
    trim(path, LIMIT)
    assert held_bytes(path) == 0
    assert not path.exists()


def test_a_link_is_no_log(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"secret\n" * LIMIT)
    link = tmp_path / "stdout.log"
    link.symlink_to(other)
    for work in (held_bytes, lambda path: trim(path, LIMIT)):
        with pytest.raises(OSError, match="symbolic"):
            work(link)
    assert other.stat().st_size == 7 * LIMIT


@pytest.mark.skipif(not procfs.may_administer(), reason="needs root, to mount a file system")
def test_where_blocks_cannot_be_given_up_all_is_and_a_reader_goes_on(tmp_path):
    place = tmp_path / "ramfs"
    place.mkdir()
    subprocess.run(("mount", "-t", "ramfs", "ramfs", place), check=True)
    try:
        with (place / "stdout.log").open("ab", buffering=0) as writer:
            filled(writer, 2 * LIMIT)
            with PodReader(("stdout",), 1, lambda: place, follow=True) as reader:
                assert len(list(reader.read())) == 1
                trim(place / "stdout.log", LIMIT)
                assert held_bytes(place / "stdout.log") == 0
                writer.write(b"after\n")
                assert [piece.text for piece in reader.read()] == [b"after\n"]
    finally:
        subprocess.run(("umount", place), check=True)


@given(
    text=st.lists(st.sampled_from([b"\n", b"a", b"bb\n", b"c" * 70_000]), max_size=8),
    lines=st.integers(0, 6),
)
def test_the_last_lines_are_those_that_splitting_all_finds(tmp_path_factory, text, lines):
    path = tmp_path_factory.mktemp("tail") / "log"
    path.write_bytes(b"".join(text))
    with opened(path) as descriptor:
        there = path.read_bytes()
        found = there[tail_from(descriptor, lines) :]
        assert found == b"".join(there.splitlines(keepends=True)[-lines:] if lines else [])
        assert tail_from(descriptor, None) == 0


def test_a_line_whose_beginning_was_given_up_is_none_of_the_last(writer):
    written = filled(writer, 2 * LIMIT)
    trim(Path(writer.name), LIMIT)
    with opened(Path(writer.name)) as descriptor:
        begin = tail_from(descriptor, None)
        assert written[begin - 1 : begin] == b"\n"
        assert 0 <= begin - first_byte(descriptor) < 13
        assert tail_from(descriptor, 10**6) == begin


def read_all(reader):
    found = {}
    while pieces := list(reader.read()):
        for piece in pieces:
            found[piece.stream] = found.get(piece.stream, b"") + piece.text
    return found


def test_both_streams_are_read_to_where_they_ended_when_it_began(tmp_path):
    (tmp_path / "stdout.log").write_bytes(b"a\nb\nc\n")
    (tmp_path / "stderr.log").write_bytes(b"x\n" * 100_000)
    with PodReader(("stdout", "stderr"), None, lambda: tmp_path, follow=False) as reader:
        first = list(reader.read())
        assert [piece.stream for piece in first] == ["stdout", "stderr"]
        with (tmp_path / "stderr.log").open("ab") as file:
            file.write(b"later\n")
        rest = read_all(reader)
    assert rest == {"stderr": (b"x\n" * 100_000)[65_536:]}


def test_a_follower_reads_what_comes_and_files_that_come_and_goes_with_the_folder(tmp_path):
    live, kept = tmp_path / "live", tmp_path / "kept"
    live.mkdir()
    (live / "stdout.log").write_bytes(b"a\nb\n")
    place = [live]
    with PodReader(("stdout", "stderr"), 1, lambda: place[0], follow=True) as reader:
        assert read_all(reader) == {"stdout": b"b\n"}
        with (live / "stdout.log").open("ab", buffering=0) as writer:
            (live / "stderr.log").write_bytes(b"oh\nno\n")
            writer.write(b"c\n")
            assert read_all(reader) == {"stdout": b"c\n", "stderr": b"oh\nno\n"}
            live.rename(kept)
            place[0] = kept
            writer.write(b"d\n")
            assert read_all(reader) == {"stdout": b"d\n"}


def test_a_follower_that_was_overtaken_is_told_how_much_it_missed(writer, tmp_path):
    with PodReader(("stdout",), None, lambda: tmp_path, follow=True) as reader:
        list(reader.read())
        written = filled(writer, 3 * LIMIT)
        trim(Path(writer.name), LIMIT)
        (piece,) = reader.read()
        assert piece.skipped_bytes == len(written) - held_bytes(Path(writer.name))
        assert written[piece.skipped_bytes :].startswith(piece.text)


def test_no_folder_is_nothing_to_read(tmp_path):
    with PodReader(("stdout",), None, lambda: None, follow=False) as reader:
        assert list(reader.read()) == []


# -- of pods that have ended ---
def ended(kept, tmp_path, pod, text=b"hello\n", function=OF):
    """End a pod that wrote something."""
    folder = tmp_path / f"pod-{pod}"
    folder.mkdir(exist_ok=True)
    (folder / "stdout.log").write_bytes(text)
    kept.keep(pod, function, folder)
    return folder


def test_output_is_kept_whole_when_a_pod_ends(tmp_path):
    kept = KeptLogs(tmp_path / "logs", stream_bytes=LIMIT, all_bytes=10 * LIMIT)
    assert list(kept.all()) == []
    folder = ended(kept, tmp_path, 7)
    assert list(folder.iterdir()) == []
    (one,) = kept.all()
    assert (one.pod, one.function, one.held_bytes) == (7, OF, 6)
    assert (one.folder / "stdout.log").read_bytes() == b"hello\n"
    assert oct((tmp_path / "logs").stat().st_mode)[-3:] == "700"
    # An end that is gone through a second time finds it taken.
    kept.keep(7, OF, folder)
    assert len(kept.all()) == 1


def test_who_ended_first_goes_first_and_the_bound_holds(tmp_path):
    kept = KeptLogs(tmp_path / "logs", stream_bytes=LIMIT, all_bytes=2 * LIMIT)
    for pod in (3, 1, 2):
        ended(kept, tmp_path, pod, b"x" * (LIMIT - 10))
        # Times of files have the kernel's ticks.
        file = tmp_path / "logs" / f"pod-{pod}" / "log.json"
        os.utime(file, ns=(pod, {3: 1, 1: 2, 2: 3}[pod]))
    assert [one.pod for one in kept.all()] == [1, 2]
    assert sum(one.held_bytes for one in kept.all()) <= 2 * LIMIT


def test_so_many_pods_are_kept_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("inferx.exec.agent.logs.kept.KEPT_PODS", 3)
    assert KEPT_PODS > 3
    kept = KeptLogs(tmp_path / "logs", stream_bytes=LIMIT, all_bytes=LIMIT)
    for pod in range(5):
        ended(kept, tmp_path, pod)
        os.utime(tmp_path / "logs" / f"pod-{pod}" / "log.json", ns=(pod, pod))
    assert [one.pod for one in kept.all()] == [2, 3, 4]


def test_none_is_kept_where_there_is_no_room_for_any(tmp_path):
    kept = KeptLogs(tmp_path / "logs", stream_bytes=LIMIT, all_bytes=0)
    ended(kept, tmp_path, 1)
    assert list(kept.all()) == []


def test_what_was_cut_short_is_removed_and_never_taken_for_somebody_s(tmp_path):
    kept = KeptLogs(tmp_path / "logs", stream_bytes=LIMIT, all_bytes=LIMIT)
    ended(kept, tmp_path, 1)
    (tmp_path / "logs" / "pod-2").mkdir()
    (tmp_path / "logs" / "pod-2" / "stdout.log").write_bytes(b"whose?")
    (tmp_path / "logs" / "pod-1" / "log.json").write_bytes(b"{")
    assert list(kept.all()) == []
    assert list((tmp_path / "logs").iterdir()) == []


def test_output_that_cannot_be_kept_is_told_and_the_pod_ends_without(tmp_path, caplog):
    (tmp_path / "logs").write_text("no folder")
    kept = KeptLogs(tmp_path / "logs", stream_bytes=LIMIT, all_bytes=LIMIT)
    folder = ended(kept, tmp_path, 1)
    assert "the output of pod 1 is not kept" in caplog.text
    assert (folder / "stdout.log").exists()

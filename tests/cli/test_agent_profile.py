"""A bench's results as a profile: the simulator has the law that the times followed."""

import msgspec
import pytest

from inferx.cli.agent_profile import BASE, profile_text
from inferx.exec.agent.bench import About, Results, Round, Step
from inferx.sim.profile import load_profile

ABOUT = About(
    command='inferx agent bench --out "a b.json"',
    commit="c0ffee",
    date="2026-11-25",
    machine="a machine",
    kernel="6.18",
    sandbox="process",
    snapshotter="criu",
    network="bridge",
    criu="4.2.1",
    gpus="none",
    seed=0,
    rounds=1,
)
MB = 1_000_000
FIXED_S, MB_PER_S = {"restore": 0.2, "restore_cold": 0.3, "dump": 0.1}, 500.0


def round_of(tier: str, snapshot_mb: int) -> Round:
    took = {step: fixed_s + snapshot_mb / MB_PER_S for step, fixed_s in FIXED_S.items()}
    took |= {"cold": 9.0, "suspend": 0.02, "resume": 0.03, "stop": 0.05}
    return Round(
        engine="paced",
        weight_bytes=snapshot_mb * MB,
        tier=tier,
        snapshot_bytes=snapshot_mb * MB,
        steps=tuple(Step(name=name, seconds=s, phases=()) for name, s in took.items()),
        floors=(),
    )


def load(tmp_path, *rounds: Round):
    path = tmp_path / "mine.toml"
    path.write_text(profile_text(Results(about=ABOUT, rounds=rounds), name="mine"))
    return load_profile(str(path))


def stages(profile, operation):
    return {(one.name, one.only_from): one for one in profile.operations[operation]}


def test_the_law_of_the_times_is_the_profiles(tmp_path):
    sizes = (10, 100, 1000)
    rounds = [round_of(tier, mb) for tier in ("dram", "nvme") for mb in sizes]
    profile = load(tmp_path, *rounds)
    assert profile.name == "mine"
    restore = stages(profile, "restore")
    for source, step in (("DRAM", "restore"), ("NVME", "restore_cold"), ("REMOTE", "restore_cold")):
        stage = restore["restore", source]
        assert stage.fixed_s == pytest.approx(FIXED_S[step], abs=1e-6)
        assert stage.cap_bytes_per_s == pytest.approx(MB_PER_S * MB, rel=1e-6)
        assert (stage.bytes_of, stage.link, stage.jitter_cv) == ("snapshot", "tier", 0.0)
        assert stage.basis == ("assumed" if source == "REMOTE" else "measured")
        assert (stage.machine, stage.date) == ("a machine, Linux 6.18, no GPU used", "2026-11-25")
        assert ABOUT.command in stage.source
        assert "10 to 1,000 MB" in stage.source
    assert stages(profile, "suspend")["freeze", ""].fixed_s == 0.02
    assert stages(profile, "resume")["thaw", ""].fixed_s == 0.03
    assert stages(profile, "stop")["stop", ""].fixed_s == 0.05
    assert len(profile.operations["stop"]) == 1
    assert stages(profile, "snapshot")["dump", ""].link == "disk_write"


def test_what_gpus_add_and_what_was_not_asked_are_the_bases(tmp_path):
    profile = load(tmp_path, *[round_of("nvme", mb) for mb in (10, 1000)])
    base = load_profile(BASE)
    for operation in ("restore", "resume", "suspend", "snapshot"):
        ours, theirs = stages(profile, operation), stages(base, operation)
        for key in theirs:
            if key[0] in {"cuda", "host-to-device", "device-to-host", "engine"}:
                assert ours[key] == theirs[key]
        assert ("criu", "") not in ours
        assert ("container", "") not in ours
    for same in ("cold", "copy_in", "copy_out"):
        assert profile.operations[same] == base.operations[same]


def test_what_was_not_measured_is_assumed_or_the_bases(tmp_path):
    restore = stages(load(tmp_path, round_of("nvme", 10), round_of("nvme", 90)), "restore")
    assert restore["restore", "DRAM"].basis == "assumed"
    assert restore["restore", "DRAM"].fixed_s == pytest.approx(FIXED_S["restore"], abs=1e-6)
    # Without the disk there is no law for it, and half a restore would be no restore.
    profile, base = load(tmp_path, round_of("dram", 10)), load_profile(BASE)
    assert profile.operations["restore"] == base.operations["restore"]
    assert profile.operations["snapshot"] == base.operations["snapshot"]
    assert "freeze" in {one.name for one in profile.operations["suspend"]}


def test_one_size_alone_has_no_rate(tmp_path):
    stage = stages(load(tmp_path, round_of("nvme", 10)), "restore")["restore", "NVME"]
    assert (stage.bytes_of, stage.link, stage.cap_bytes_per_s) == ("none", "none", 0)
    assert stage.fixed_s == pytest.approx(0.32)


def test_shared_snapshots_that_were_measured_are_not_assumed(tmp_path):
    rounds = [round_of(tier, mb) for tier in ("nvme", "shared") for mb in (10, 90)]
    assert stages(load(tmp_path, *rounds), "restore")["restore", "REMOTE"].basis == "measured"


def test_results_are_the_same_after_json(tmp_path):
    results = Results(about=ABOUT, rounds=(round_of("nvme", 10),))
    assert msgspec.json.decode(msgspec.json.encode(results), type=Results) == results


def test_a_profile_of_workers_is_the_workers_own_and_has_no_gpus(tmp_path):
    rounds = [round_of("nvme", mb) for mb in (10, 100, 1000)]
    path = tmp_path / "mine.toml"
    results = Results(about=ABOUT, rounds=rounds)
    path.write_text(profile_text(results, name="mine", of_workers=True))
    profile = load_profile(str(path))
    [cold] = profile.operations["cold"]
    assert (cold.fixed_s, cold.bytes_of, cold.basis) == (9.0, "none", "measured")
    restore = stages(profile, "restore")
    assert set(restore) == {("restore", "NVME"), ("restore", "REMOTE")}
    for stage in restore.values():
        # What was just written is still in the page cache.
        assert stage.fixed_s == pytest.approx(FIXED_S["restore"], abs=1e-6)
        assert (stage.bytes_of, stage.link) == ("snapshot", "none")
    for operation in ("cold", "restore", "resume", "suspend", "snapshot", "stop"):
        for stage in profile.operations[operation]:
            assert "pcie" not in stage.paths
            assert not stage.needs_gpus
    assert set(profile.per_neighbour.values()) == {0.0}

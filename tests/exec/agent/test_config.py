"""A node's configuration: what an empty file means, the shipped example, and what is refused."""

import re
from pathlib import Path

import pytest

from inferx.core.errors import DescriptionError
from inferx.core.units import GIB
from inferx.exec.agent.config import LAZY_FROM_BYTES, AgentConfig, read_config
from inferx.exec.agent.store import BucketConfig, FolderConfig, S3Config

ROOT = Path(__file__).parents[3]


def read(folder: Path, text: str) -> AgentConfig:
    """Read a configuration of this text."""
    path = folder / "node.toml"
    path.write_text(text)
    return read_config(path)


def test_a_file_that_says_nothing_and_none_are_the_same(tmp_path: Path) -> None:
    assert read(tmp_path, "[agent]\n") == AgentConfig()


def test_socket_and_snapshots_lie_in_the_state_folder_unless_told(tmp_path: Path) -> None:
    config = read(tmp_path, '[agent]\nstate = "/srv/agent"\n')
    assert config.socket == Path("/srv/agent/agent.sock")
    assert [tier.folder for tier in config.tiers] == [Path("/srv/agent/snapshots")]


def test_what_runc_knows_is_apart_by_name_and_ends_with_a_reboot(tmp_path: Path) -> None:
    assert read(tmp_path, '[agent]\nname = "two"\n').runc == Path("/run/inferx/two/runc")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", LAZY_FROM_BYTES), ("lazy_from_mib = 0", 0), ("lazy_from_gib = 2", 2 * GIB)],
)
def test_pages_come_lazily_from_a_size(tmp_path: Path, text: str, expected: int) -> None:
    assert read(tmp_path, f"[restore]\n{text}\n").lazy_from_bytes == expected


def test_the_shipped_example_loads() -> None:
    config = read_config(ROOT / "deploy" / "node.toml")
    assert config.sandbox == "containerd"
    assert config.tiers == (
        FolderConfig(tier="dram", folder=Path("/dev/shm/inferx"), budget_bytes=64 * GIB),
        FolderConfig(tier="nvme", folder=Path("/var/lib/inferx/snapshots"), budget_bytes=512 * GIB),
    )


def test_every_line_of_the_example_that_is_commented_out_is_a_key(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "node.toml").read_text()
    settings = [re.sub(r"^#(?! )", "", line) for line in text.splitlines()]
    config = read(tmp_path, "\n".join(settings))
    assert [tier.tier for tier in config.tiers] == ["dram", "nvme", "shared"]
    assert config.gpus == (80 * GIB, 80 * GIB)


def test_the_shared_tier_may_be_a_bucket(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "node.toml").read_text()
    _, _, bucket = text.partition("# Or a bucket")
    lines = [line.removeprefix("# ") for line in bucket.splitlines()[1:]]
    config = read(tmp_path, "\n".join(lines))
    assert config.tiers == (
        BucketConfig(
            tier="shared",
            bucket=S3Config(
                bucket="acme-snapshots",
                budget_bytes=4096 * GIB,
                prefix="prod",
                region="eu-central-1",
                endpoint="https://minio.example:9000",
            ),
        ),
    )
    least = read(tmp_path, '[store.shared]\nbucket = "a-b.c"\nbudget_mib = 1\n')
    assert least.tiers == (
        BucketConfig(tier="shared", bucket=S3Config(bucket="a-b.c", budget_bytes=1 << 20)),
    )


def bad_bucket(key: str, value: str) -> str:
    keys = {"bucket": '"abc"', "budget_gib": "1"} | {key: value}
    return "[store.shared]\n" + "".join(f"{name} = {text}\n" for name, text in keys.items())


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match=r"endpoint: .*https://HOST") as caught:
        read(tmp_path, bad_bucket("endpoint", '"https://me:hush@minio:9000"'))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[agent]\nname = "Node"\n', r"node.toml:2: agent.name: .*small letters and digits"),
        ('[agent]\nstate = "here"\n', r"node.toml:2: agent.state: .*a path from the root"),
        ('[agent]\nsocket = "a.sock"\n', r"agent.socket: .*a path from the root"),
        ('[sandbox]\nmounts = ["models"]\n', r"node.toml:2: sandbox.mounts: .*paths from the root"),
        ('[sandbox]\nmounts = "/models"\n', r"node.toml:2: sandbox.mounts: "),
        ('[agent]\nstat = "/x"\n', r"agent.stat: an unknown key; .*state"),
        ('[sandbox]\nkind = "docker"\n', r"sandbox.kind: .*auto, containerd, runc, process"),
        ('[network]\nsubnet = "8.8.8.0/24"\n', r"network.subnet: .*private network"),
        ('[network]\nsubnet = "10.0.0.0/8"\n', r"network.subnet: .*private network"),
        ('[network]\nsubnet = "10.0.0.1/24"\n', r"network.subnet: .*has host bits set"),
        ('[gpu]\ncdi = ["etc/cdi"]\n', r"gpu.cdi: .*a list of paths from the root"),
        ('[gpu]\ncdi = "/etc/cdi"\n', r"gpu.cdi: .*a list of text"),
        ('[sandbox]\npull = "always"\n', r"sandbox.pull: .*missing, never"),
        ('[sandbox]\nregistry_secrets = "x"\n', r"sandbox.registry_secrets: .*from the root"),
        ('[agent]\ntransient = "run"\n', r"agent.transient: .*a path from the root"),
        ('[gpu]\ndeclare = "80GiB"\n', r"gpu.declare: .*as in 2x80GiB"),
        ('[gpu]\ndeclare = "2x80Gi"\n', r"node.toml:2: gpu.declare: .*as in 2x80GiB"),
        ('[gpu]\ndeclare = "17x1GiB"\n', r"gpu.declare: .*as in 2x80GiB"),
        ('[gpu]\nover_memory = "beat"\n', r"gpu.over_memory: .*warn, throttle, kill"),
        ("[restore]\nlazy_from_mib = -1\n", r"node.toml:2: restore.lazy_from_mib: "),
        ('[store.dram]\npath = "/x"\n', r"store.dram: no budget; .*budget_gib"),
        ('[store.dram]\npath = "x"\nbudget_gib = 1\n', r"store.dram.path: .*from the root"),
        ('[store.dram]\nbucket = "abc"\nbudget_gib = 1\n', r"store.dram.path: "),
        (bad_bucket("bucket", '"No"'), r"store.shared.bucket: .*a bucket's name"),
        (bad_bucket("bucket", '"a/b"'), r"store.shared.bucket: .*a bucket's name"),
        (bad_bucket("path", '"/x"'), r"store.shared.path: both path and bucket; .*one of them"),
        (bad_bucket("prefix", '"/a"'), r"store.shared.prefix: .*names with slashes between"),
        (bad_bucket("prefix", '"a/../b"'), r"store.shared.prefix: .*names with slashes between"),
        (bad_bucket("region", '"eu central"'), r"store.shared.region: .*a region's name"),
        (bad_bucket("endpoint", '"minio:9000"'), r"store.shared.endpoint: .*https://HOST"),
        (bad_bucket("endpoint", '"https://m/x"'), r"store.shared.endpoint: .*https://HOST"),
        (bad_bucket("endpoint", '"https://m:x"'), r"store.shared.endpoint: .*https://HOST"),
        (bad_bucket("secret_key", '"x"'), r"store.shared.secret_key: an unknown key"),
        ("[store.shared]\nbucket = 'abc'\n", r"store.shared: no budget; .*budget_gib"),
        ('[store.hot]\npath = "/x"\n', r"store.hot: an unknown key; .*dram, nvme, shared"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DescriptionError, match=told) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)

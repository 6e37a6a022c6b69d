"""The agent's page: every key and capability is named, and the commands of a first try run."""

import os
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from system_parts import missing_parts, remove_cgroup

from inferx.core.errors import DescriptionError
from inferx.exec.agent.config import read_config
from inferx.exec.agent.node import assemble

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "node-agent.md").read_text()


def keys_of(table: str, folder: Path) -> list[str]:
    """Return what may stand in a table, as the error about an unknown key tells."""
    file = folder / "node.toml"
    more = 'path = "/x"\nbudget_gib = 1\n' if table.startswith("store.") else ""
    file.write_text(f"[{table}]\n{more}nonsense = 1\n" if table else "nonsense = 1\n")
    with pytest.raises(DescriptionError, match="nonsense: an unknown key") as caught:
        read_config(file)
    return str(caught.value).rpartition("expected one of ")[2].split(", ")


def test_every_key_is_named(tmp_path: Path) -> None:
    tables = keys_of("", tmp_path)
    assert sorted(tables) == ["agent", "gpu", "logs", "network", "restore", "sandbox", "store"]
    named = set(re.findall(r"`([a-z*]+(?:\.[a-z*_]+)+)`", PAGE))
    for table in tables:
        for key in keys_of(table, tmp_path):
            assert f"{table}.{key}" in named
    for tier in ("dram", "nvme", "shared"):
        for key in keys_of(f"store.{tier}", tmp_path):
            assert f"store.*.{key}" in named or f"`{key}`" in PAGE
    file = tmp_path / "node.toml"
    file.write_text('[store.shared]\nbucket = "abc"\nbudget_gib = 1\nnonsense = 1\n')
    with pytest.raises(DescriptionError, match="nonsense: an unknown key") as caught:
        read_config(file)
    keys = str(caught.value).rpartition("expected one of ")[2].split(", ")
    assert {"bucket", "prefix", "region", "endpoint"} < set(keys)
    for key in keys:
        assert f"store.shared.{key}" in named or f"store.*.{key}" in named or f"`{key}`" in PAGE


def test_every_capability_is_named(tmp_path: Path) -> None:
    name = f"d{secrets.token_hex(3)}"
    for gpu in ("", '[gpu]\ndeclare = "1x1GiB"\ncheckpoints = "none"\n'):
        file = tmp_path / "node.toml"
        file.write_text(
            f'[agent]\nname = "{name}"\nstate = "{tmp_path}/state"\n'
            f'[sandbox]\nkind = "process"\n[network]\nkind = "host"\n{gpu}'
        )
        node = assemble(read_config(file))
        try:
            for capability in node.capabilities:
                assert f"`{capability.name}`" in PAGE
        finally:
            node.close()
    remove_cgroup(name)


def test_the_shipped_configurations_load() -> None:
    for file in sorted((ROOT / "deploy").glob("*.toml")):
        assert read_config(file)


def commands(page: str) -> Iterator[str]:
    """Yield the lines of a page's shell blocks that concern a node."""
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith(("inferx agent", "inferx snapshot")):
                yield line.partition(" #")[0]


@pytest.mark.skipif(bool(missing_parts("ip")), reason=missing_parts("ip"))
@pytest.mark.parametrize("page", ["README.md", "docs/node-agent.md"])
def test_commands_of_a_first_try_run(page: str, tmp_path: Path) -> None:
    installed = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{installed}:{os.environ['PATH']}"}
    name = f"d{secrets.token_hex(3)}"
    config = tmp_path / "laptop.toml"
    laptop = (ROOT / "deploy" / "laptop.toml").read_text()
    octets = f"{secrets.randbelow(64) + 64}.{secrets.randbelow(256)}"
    config.write_text(
        f'[agent]\nname = "{name}"\nstate = "{tmp_path}/state"\n'
        f'[network]\nsubnet = "10.{octets}.0/24"\n{laptop}'
    )
    lines = list(commands(page))
    assert len(lines) >= 3
    try:
        for line in lines:
            words = line.replace("deploy/laptop.toml", str(config))
            words = words.replace("/var/lib/inferx", f"{tmp_path}/state")
            if "3f2a" in words:
                (there,) = (tmp_path / "state" / "snapshots" / "snapshots").iterdir()
                words = words.replace("3f2a", there.name[:4])
                words += " --for 0.1"
            if "--config" not in words:
                words += f" --config {shlex.quote(str(config))}"
            done = subprocess.run(
                ["bash", "-c", words],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{words}: {done.stderr}"
            if "restore" in words:
                assert re.search(r"address: 10\.[0-9.]+:8000", done.stdout)
    finally:
        remove_cgroup(name)
    assert not list(Path("/var/run/netns").glob(f"{name}-*"))
    assert not (Path("/sys/class/net") / name).exists()

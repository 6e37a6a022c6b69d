"""Which adapters are asked: all by who tells of the node, no more than are taken by the others."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_node import needs_node
from click.testing import CliRunner
from msgspec.structs import replace
from standin_gpus import Node as Gpus
from standin_gpus import enter
from system_parts import remove_cgroup

from inferx.cli.snapshot import snapshot
from inferx.exec.agent.config import AgentConfig
from inferx.exec.agent.node import assemble
from inferx.exec.agent.store.config import FolderConfig

pytestmark = needs_node

DECLARED = {"gpu/declared", "sandbox/process", "snapshotter/criu", "pages/lazy"}


@pytest.fixture
def config(tmp_path: Path) -> Iterator[AgentConfig]:
    name = f"d{secrets.token_hex(3)}"
    yield AgentConfig(
        name=name,
        state=tmp_path / "state",
        containerd=str(tmp_path / "no-containerd.sock"),
        sandbox="process",
        network="host",
        gpus=(1 << 30,),
        tiers=(FolderConfig(tier="nvme", folder=tmp_path / "nvme", budget_bytes=1 << 20),),
    )
    remove_cgroup(name)


def asked(config: AgentConfig, *, all_asked: bool) -> set[str]:
    """Return which adapters have been asked."""
    node = assemble(config, all_asked=all_asked)
    node.close()
    return {one.name for one in node.capabilities}


def test_who_tells_of_a_node_asks_all(config: AgentConfig) -> None:
    there = asked(config, all_asked=True)
    assert there > DECLARED
    assert {"device/cuda", "devices/cdi", "sandbox/containerd", "snapshotter/runc"} < there
    assert {"network/bridge", "network/host", "share/mps"} < there


def test_others_ask_what_they_take(config: AgentConfig) -> None:
    assert asked(config, all_asked=False) == DECLARED
    bridged = replace(config, network="bridge")
    assert asked(bridged, all_asked=False) == DECLARED | {"network/bridge"}


def test_where_none_is_named_containers_are_asked_first(config: AgentConfig) -> None:
    there = asked(replace(config, sandbox="auto"), all_asked=False)
    assert there == DECLARED | {"sandbox/containerd", "snapshotter/containerd"}


def test_cuda_is_asked_where_there_are_gpus(
    config: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(Gpus.make(tmp_path / "gpus", gpus=1), monkeypatch)
    assert "device/cuda" in asked(replace(config, gpus=()), all_asked=False)


def test_to_list_snapshots_asks_nobody(config: AgentConfig, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    # An agent with these could not start.
    file.write_text(
        f'[agent]\nstate = "{config.state}"\n[sandbox]\nkind = "containerd"\n'
        f'containerd = "{config.containerd}"\n'
        f'[store.nvme]\npath = "{tmp_path}/nvme"\nbudget_mib = 1\n'
    )
    done = CliRunner().invoke(snapshot, ["list", "--config", str(file)])
    assert done.exit_code == 0, done.output
    assert not config.state.exists()

"""Clusters that load, and functions that fit them."""

from pathlib import Path

import pytest

from inferx.core.errors import DescriptionError
from inferx.core.types import FunctionSpec
from inferx.core.units import GIB
from inferx.spec.catalogue import instance_type
from inferx.spec.cluster import check_fit, load_cluster, misfits


def _load(tmp_path: Path, text: str):
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    return load_cluster(str(path))


def _function(**changes) -> FunctionSpec:
    sizes = {"device_bytes": GIB, "host_bytes": GIB, "weight_bytes": GIB, "hbm_bytes": 20 * GIB}
    return FunctionSpec(name="f", **(sizes | changes))


def test_the_inline_form_names_types_of_the_catalogue() -> None:
    nodes = load_cluster("g6e.12xlarge=2, p5.48xlarge=1")
    assert [node.name for node in nodes] == ["g6e.12xlarge-0", "g6e.12xlarge-1", "p5.48xlarge-0"]
    assert [node.group for node in nodes] == ["g6e.12xlarge", "g6e.12xlarge", "p5.48xlarge"]
    assert nodes[0].platform == "L40S/580"
    assert nodes[2].links == instance_type("p5.48xlarge").hardware.links


def test_zones_spread_the_nodes_of_a_group_in_turn(tmp_path: Path) -> None:
    nodes = _load(
        tmp_path,
        '[[group]]\nname = "pool"\ninstance_type = "g5.xlarge"\ncount = 3\nzones = ["a", "b"]\n',
    )
    assert [(node.name, node.zone) for node in nodes] == [
        ("pool-0", "a"),
        ("pool-1", "b"),
        ("pool-2", "a"),
    ]


def test_a_key_beside_the_instance_type_overrides_the_catalogue(tmp_path: Path) -> None:
    (node,) = _load(
        tmp_path,
        'driver = "610"\n[[group]]\ninstance_type = "g6e.2xlarge"\nhost_gib = 128\n'
        "[group.links]\nnvme_read_gb_per_s = 3.5\n",
    )
    base = instance_type("g6e.2xlarge").hardware
    assert node.host_bytes == 128 * GIB
    assert node.links.nvme_read == 3_500_000_000
    assert node.links.pcie_gpu == base.links.pcie_gpu
    assert node.hbm_bytes == base.hbm_bytes
    assert node.platform == "L40S/610"


def test_a_node_is_described_by_hand(tmp_path: Path) -> None:
    (node,) = _load(
        tmp_path,
        '[[group]]\nname = "lab"\ngpu_type = "T4"\ngpus = 2\nhbm_gib = 16\nhost_gib = 64\n'
        'zone = "attic"\nlinks = { pcie_gpu_gb_per_s = 12, network_gbps = 10 }\n',
    )
    assert (node.instance_type, node.zone, node.nvme_bytes) == ("custom", "attic", 0)
    assert (node.links.pcie_root, node.links.nvme_read) == (24_000_000_000, 0)
    assert node.links.network == 1_250_000_000


def test_the_demo_cluster_loads() -> None:
    path = Path(__file__).parents[2] / "traces" / "demo-cluster.toml"
    assert {node.zone for node in load_cluster(str(path))} == {"us-east-1a"}


@pytest.mark.parametrize(
    "changes",
    [
        {"gpus": 2},
        {"gpu_type": "H100"},
        {"hbm_bytes": 23 * GIB},
        {"host_bytes": 17 * GIB},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_function_that_fits_no_node_is_told(changes) -> None:
    nodes = load_cluster("g5.xlarge=1")
    check_fit([_function(), _function(gpu_type="A10G")], nodes)
    with pytest.raises(DescriptionError, match=r"^function f: .* fit no node; expected at most"):
        check_fit([_function(), _function(**changes)], nodes)


def test_a_function_must_fit_one_node_in_every_respect() -> None:
    nodes = load_cluster("g5.48xlarge=1,p5.4xlarge=1")
    assert misfits([_function(gpus=8), _function(hbm_bytes=80 * GIB)], nodes) == ()
    assert len(misfits([_function(gpus=2, hbm_bytes=80 * GIB)], nodes)) == 1

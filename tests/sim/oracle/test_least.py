"""The least times of a world, by hand."""

import msgspec

from inferx.core.types import FunctionSpec
from inferx.core.units import GIB
from inferx.sim.oracle.least import least_starts
from inferx.sim.profile import load_profile
from inferx.sim.world import World
from inferx.spec.cluster import load_cluster


def test_a_state_larger_than_a_nodes_host_memory_is_never_resumed():
    function = FunctionSpec(
        name="f", hbm_bytes=40 * GIB, device_bytes=30 * GIB, host_bytes=GIB, weight_bytes=GIB
    )
    found = []
    for host in (30, 31):
        nodes = tuple(
            msgspec.structs.replace(node, host_bytes=host * GIB)
            for node in load_cluster("g6e.2xlarge=2")
        )
        world = World(nodes=nodes, functions=(function,), profile=load_profile("criu-memfd"))
        found.append(least_starts(world))
    assert found[0].any_s == found[0].below_s == found[1].below_s
    assert found[1].any_s < found[1].below_s

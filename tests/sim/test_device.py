"""Links share their bandwidth fairly, count to the byte, and give back at once."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.core.types import Links, NodeSpec, Tier
from inferx.core.units import NS_PER_S
from inferx.sim.clock import SimClock
from inferx.sim.device import UNCAPPED, Flow, Link, NodeDevices

RATES = Links(pcie_gpu=50, pcie_root=60, dram=1000, nvme_read=28, nvme_write=10, ebs=2, network=12)


def node(gpus=2, **rates):
    links = Links(
        **{name: rates.get(name, getattr(RATES, name)) for name in Links.__struct_fields__}
    )
    return NodeSpec(
        name="n0",
        group="g",
        zone="z",
        instance_type="t",
        gpu_type="H100",
        platform="H100/580",
        gpus=gpus,
        hbm_bytes=80,
        host_bytes=1000,
        nvme_bytes=1000,
        links=links,
    )


class Landed:
    """Remembers when each named flow ended."""

    def __init__(self):
        self.clock = SimClock()
        self.at_s = {}

    def start(self, name, path, size, cap=UNCAPPED):
        def done(_flow):
            self.at_s[name] = self.clock.now_ns() / NS_PER_S

        return Flow(self.clock, path, size_bytes=size, cap_bytes_per_s=cap, done=done)

    def start_at(self, at_s, *args, **kwargs):
        self.clock.after(round(at_s * NS_PER_S), lambda: self.start(*args, **kwargs))


def test_a_flow_alone_takes_its_size_over_its_narrowest_link():
    world = Landed()
    world.start("a", (Link("wide", 100), Link("narrow", 10)), 50)
    world.start("b", (), 50, cap=5)
    world.clock.run()
    assert world.at_s == {"a": 5.0, "b": 10.0}


def test_two_restores_on_one_link_slow_each_other():
    world, link = Landed(), Link("nvme", 10)
    world.start("a", (link,), 50)
    world.start_at(2, "b", (link,), 60)
    world.clock.run()
    assert world.at_s == {"a": 8.0, "b": 11.0}, "20 alone, 30 at half, then 30 alone"


def test_what_a_capped_flow_leaves_the_others_get():
    world, link = Landed(), Link("nvme", 28)
    world.start("capped", (link,), 40, cap=4)
    world.start("free", (link,), 240)
    world.clock.run()
    assert world.at_s == {"capped": 10.0, "free": 10.0}


def test_what_a_flow_cannot_use_for_a_link_elsewhere_the_others_get():
    world = Landed()
    store, slow, fast = Link("store", 20), Link("slow", 5), Link("fast", 100)
    world.start("a", (store, slow), 50)
    world.start("b", (store, fast), 150)
    world.clock.run()
    assert world.at_s == {"a": 10.0, "b": 10.0}


def test_a_flow_of_no_bytes_ends_at_once_but_not_before_it_is_returned():
    world = Landed()
    world.start("a", (Link("l", 1),), 0)
    assert world.at_s == {}
    world.clock.run()
    assert world.at_s == {"a": 0.0}


def test_an_aborted_flow_gives_its_share_back_and_keeps_what_it_moved():
    world, link = Landed(), Link("nvme", 10)
    aborted = world.start("a", (link,), 100)
    world.start("b", (link,), 60)
    world.clock.after(4 * NS_PER_S, aborted.abort)
    world.clock.run()
    assert world.at_s == {"b": 8.0}
    assert (aborted.moved_bytes, link.moved_bytes) == (20, 80)
    aborted.abort()
    assert link.moved_bytes == 80


def test_a_link_counts_what_is_still_on_its_way():
    world, link = Landed(), Link("nvme", 10)
    world.start("a", (link,), 100)
    world.clock.run(until_ns=4 * NS_PER_S)
    assert link.moved_bytes == 40
    world.clock.run()
    assert (link.moved_bytes, world.at_s) == (100, {"a": 10.0})


def test_a_link_without_bandwidth_is_refused():
    with pytest.raises(DescriptionError, match="link l: 0 bytes/s"):
        Link("l", 0)


FLOWS = st.lists(
    st.tuples(
        st.integers(0, 40),  # starts, s
        st.sets(st.integers(0, 3), min_size=1),  # path
        st.integers(0, 2000),  # bytes
        st.one_of(st.just(UNCAPPED), st.integers(1, 60)),  # cap
        st.one_of(st.none(), st.integers(0, 40)),  # aborted after, s
    ),
    max_size=12,
)


@given(FLOWS, st.lists(st.integers(13, 200), min_size=4, max_size=4))
@settings(max_examples=80, deadline=None)
def test_links_conserve_bytes_and_share_them_max_min(flows, rates):
    clock = SimClock()
    links = [Link(str(row), rate) for row, rate in enumerate(rates)]
    begun, ended = [], []

    def check():
        for link in links:
            assert link.moved_bytes == sum(f.moved_bytes for f in begun if link in f.path)
            assert sum(f.bytes_per_s for f in link.flows) <= link.bytes_per_s
            assert link.moved_bytes <= -(-link.bytes_per_s * clock.now_ns() // NS_PER_S)
        for flow in {f for link in links for f in link.flows}:
            if flow.bytes_per_s < flow.cap_bytes_per_s:
                assert any(
                    sum(f.bytes_per_s for f in link.flows) > link.bytes_per_s - len(link.flows)
                    and flow.bytes_per_s >= max(f.bytes_per_s for f in link.flows) - 1
                    for link in flow.path
                ), "each flow is at its cap or has a full link on which nobody gets more"

    def start(path, size, cap, abort_s):
        flow = Flow(clock, path, size_bytes=size, cap_bytes_per_s=cap, done=end)
        begun.append(flow)
        if abort_s is not None:
            clock.after(abort_s * NS_PER_S + 1, lambda: (flow.abort(), check()))
        check()

    def end(flow):
        assert flow.moved_bytes == flow.size_bytes
        ended.append(flow)
        check()

    for at_s, path, size, cap, abort_s in flows:
        way = tuple(links[row] for row in sorted(path))
        clock.after(at_s * NS_PER_S, lambda a=(way, size, cap, abort_s): start(*a))
    clock.run()
    check()
    assert not any(link.flows for link in links)
    kept = sum(abort_s is None for *_, abort_s in flows)
    assert len(set(ended)) == len(ended) >= kept


def test_flows_of_one_size_end_in_the_order_of_their_starts():
    world, link = Landed(), Link("l", 7)
    for at_s in range(6):
        world.start_at(at_s, at_s, (link,), 20)
    world.clock.run()
    assert list(world.at_s) == list(range(6))
    assert all(first < second for first, second in pairwise(world.at_s.values()))


def test_paths_of_a_node_lead_over_its_links():
    store = Link("store", 20)
    devices = NodeDevices(SimClock(), node(), store)

    def names(*args, **kwargs):
        return [link.name for link in devices.path(*args, **kwargs)]

    assert names("pcie", gpu=1) == ["n0/pcie_1", "n0/pcie_root"]
    assert names("remote") == names("tier", source=Tier.REMOTE) == ["n0/network", "store"]
    assert names("tier", source=Tier.NVME) == names("disk_read") == ["n0/nvme_read"]
    assert names("tier", source=Tier.DRAM) == names("dram") == ["n0/dram"]
    assert names("disk_write") == ["n0/nvme_write"]
    assert names("network") == ["n0/network"]


def test_a_node_without_a_disk_uses_its_volume_and_without_a_root_shares_nothing():
    devices = NodeDevices(SimClock(), node(nvme_read=0, nvme_write=0, pcie_root=0), None)
    assert devices.path("disk_read") == devices.path("disk_write") == (devices.link("ebs"),)
    assert devices.path("pcie") == (devices.link("pcie_0"),)


@pytest.mark.parametrize(
    ("rates", "path", "message"),
    [
        ({"network": 0}, "remote", "no network link"),
        ({"pcie_gpu": 0}, "pcie", "no pcie_0 link"),
        ({"nvme_read": 0, "ebs": 0}, "disk_read", "no nvme_read link"),
        ({"dram": 0}, "dram", "no dram link"),
    ],
)
def test_an_absent_link_is_an_error_when_the_path_is_built(rates, path, message):
    devices = NodeDevices(SimClock(), node(**rates), Link("store", 1))
    with pytest.raises(DescriptionError, match=f"node n0: {message}"):
        devices.path(path)


def test_a_cluster_without_a_store_has_no_remote_path():
    with pytest.raises(DescriptionError, match="no object store"):
        NodeDevices(SimClock(), node(), None).path("remote")


def test_a_node_counts_bytes_by_kind_and_a_gpus_bytes_once():
    world = Landed()
    devices = NodeDevices(world.clock, node(), Link("store", 20))
    world.start(0, devices.path("pcie", gpu=0), 100)
    world.start(1, devices.path("pcie", gpu=1), 50)
    world.start(2, (*devices.path("remote"), *devices.path("disk_write")), 30)
    world.start(3, devices.path("disk_read"), 7)
    world.clock.run()
    assert devices.moved_bytes() == {"pcie": 150, "dram": 0, "nvme": 37, "ebs": 0, "network": 30}


def test_a_lost_node_frees_the_store_for_the_others():
    world, store = Landed(), Link("store", 12)
    lost, other = (NodeDevices(world.clock, node(), store) for _ in range(2))
    world.start("lost", lost.path("remote"), 120)
    world.start("other", other.path("remote"), 120)
    world.clock.after(10 * NS_PER_S, lost.abort_all)
    world.clock.run()
    assert world.at_s == {"other": 15.0}
    assert lost.moved_bytes()["network"] == 60

"""Orders of our own, and the lists they are made from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.policy.packing.shapes import NodeState, PodShape
from inferx.sim.packing.curves import bin_curves
from inferx.sim.packing.lists import NodeList, PodList, read_pods
from inferx.sim.packing.orders import draw_order

shapes = st.builds(
    lambda gpus, milli: PodShape(1, 1, gpus, milli if gpus == 1 else 1000 * (gpus > 0), ""),
    st.sampled_from([0, 1, 1, 2]),
    st.sampled_from([100, 500, 1000]),
)


def pod_list(some, *, backwards=False):
    names = [f"p{i}" for i in range(len(some))]
    order = slice(None, None, -1 if backwards else 1)
    return PodList("pods", tuple(names[order]), tuple(some[order]))


def node_list(count):
    state = NodeState("A", 8, 8, (1000,) * 4, frozenset(), 9)
    return NodeList(tuple(f"n{i}" for i in range(count)), (state,) * count)


@given(st.lists(shapes, min_size=1, max_size=40), st.integers(1, 4), st.integers(0, 9))
def test_order_asks_for_up_to_130_percent_and_ranks_each_node_once(some, count, seed):
    pods, nodes = pod_list(some), node_list(count)
    order = draw_order(pods, nodes, seed)
    asked = sum(pods.shapes[row].milli * pods.shapes[row].gpus for row in order.pods.tolist())
    assert asked <= 1.3 * 4000 * count
    if sum(pod.milli * pod.gpus for pod in some) in range(1, 5200 * count + 1):
        assert set(order.pods.tolist()) == set(range(len(some)))  # Nobody is left out.
        assert asked > 1.3 * 4000 * count - 2000  # The next clone would have been too much.
    assert sorted(order.rank.tolist()) == list(range(count))


@given(st.lists(shapes, min_size=1, max_size=20), st.integers(0, 9))
def test_order_does_not_depend_on_the_order_of_the_file(some, seed):
    first, last = pod_list(some), pod_list(some, backwards=True)
    nodes = node_list(2)
    told = [[p.names[row] for row in draw_order(p, nodes, seed).pods] for p in (first, last)]
    assert told[0] == told[1]


def test_list_without_gpus_comes_once():
    order = draw_order(pod_list([PodShape(1, 1, 0, 0, "")] * 5), node_list(1), 1)
    assert sorted(order.pods.tolist()) == [0, 1, 2, 3, 4]


def test_mean_of_a_load_is_over_its_arrivals():
    curves = bin_curves(
        np.array([0, 10, 20, 1310]), np.array([0, 10, 10, 1000]), np.array([1000.0, 0, 495, 0]), 1
    )
    assert curves.alloc[[0, 1, 2]].tolist() == [0.0, 1.0, 1.0]
    assert curves.frag_ratio[[0, 1, 2]].tolist() == [100.0, 0.0, 50.0]
    assert np.isnan(curves.alloc[3:]).all()  # Loads above the last point are left out.


def test_file_that_is_no_text_is_told(tmp_path):
    path = tmp_path / "pods.csv"
    path.write_bytes(b"name,cpu_milli\n\xff\xfe\xff,1\n")
    with pytest.raises(DescriptionError, match=r"not a CSV file|no column"):
        read_pods(path)

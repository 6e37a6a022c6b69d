"""The optimum of a list, against all that could be done and against every rule."""

from functools import partial
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.core.rng import stream
from inferx.policy.packing import rules
from inferx.policy.packing.fragmentation import Fragmentation, typical_pods
from inferx.policy.packing.published import PUBLISHED
from inferx.policy.packing.shapes import NodeState, PodShape, fits, placed
from inferx.sim.packing.columns import ColumnChooser
from inferx.sim.packing.optimum import optimum_milli
from inferx.sim.packing.replay import PublishedChooser, pack

pods = st.builds(
    lambda cpu, memory, gpus, milli, models: PodShape(
        cpu, memory, gpus, (1000 if gpus > 1 else milli) if gpus else 0, models if gpus else ""
    ),
    st.sampled_from([0, 4000, 7000]),
    st.sampled_from([0, 250_000, 400_000]),
    st.sampled_from([0, 1, 1, 1, 1, 2]),
    st.sampled_from([300, 350, 500, 600, 1000]),
    st.sampled_from(["", "", "A", "A|B|B", "C"]),
)
nodes = st.builds(
    lambda model, cpu, memory, gpus, room: NodeState(
        model, cpu, memory, (1000,) * gpus, frozenset(), room
    ),
    st.sampled_from("AB"),
    st.sampled_from([8000, 32_000]),
    st.sampled_from([400_000, 786_432]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([1, 2, 9]),
)
clusters = st.lists(nodes, min_size=1, max_size=2)


def tried(arriving, states):
    """The most of every way to give each pod room, or none."""
    if not arriving:
        return 0
    (pod, *later), most = arriving, 0
    for row, state in enumerate(states):
        for gpus in combinations(range(len(state.gpus)), pod.gpus) if fits(pod, state) else ():
            if all(state.gpus[gpu] >= pod.milli for gpu in gpus):
                rest = [*states[:row], placed(pod, state, gpus), *states[row + 1 :]]
                most = max(most, pod.gpus * pod.milli + tried(later, rest))
    return max(most, tried(later, states))


@settings(max_examples=40)
@given(st.lists(pods, max_size=4), clusters)
def test_optimum_is_the_best_of_all_that_could_be_done(arriving, cluster):
    assert optimum_milli(arriving, cluster) == tried(arriving, cluster)


def at_work(name, measure, seen):
    """A rule, clean or published, that looks at nodes."""
    if name in PUBLISHED:
        return PublishedChooser(PUBLISHED[name](measure), list(seen), stream(1, name))
    return ColumnChooser(rules()[name](), list(seen), measure.typical, stream(1, name))


@settings(max_examples=20)
@given(
    st.lists(pods, min_size=1, max_size=12),
    st.lists(nodes, min_size=1, max_size=3).filter(lambda some: any(n.gpus for n in some)),
)
def test_no_rule_places_more_than_the_optimum(arriving, cluster):
    most = optimum_milli(arriving, cluster)
    measure = Fragmentation(typical_pods(arriving))
    for name in (*rules(), *PUBLISHED):
        working = partial(at_work, name, measure)
        done = pack(arriving, cluster, list(range(len(cluster))), working, measure)
        found = zip(arriving, done.nodes, strict=True)
        assert sum(pod.gpus * pod.milli for pod, at in found if at >= 0) <= most, name


def test_what_has_no_gpus_makes_no_list_long():
    node = NodeState("A", 8, 8, (1000,) * 4, frozenset(), 2000)
    few, many = [PodShape(0, 0, 1, 300, "")] * 4, [PodShape(0, 0, 0, 0, "")] * 2000
    assert optimum_milli(many, [node]) == 0
    assert optimum_milli(few + many, [node, node._replace(gpus=())]) == 1200
    with pytest.raises(DescriptionError, match="1,001 requests of GPUs at 4 GPUs: 4,004 pairs"):
        optimum_milli([PodShape(0, 0, 1, 300, "")] * 1001, [node])

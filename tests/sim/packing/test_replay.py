"""The loop and the published rules against plain loops that remember nothing."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.rng import stream
from inferx.policy.packing.fragmentation import Fragmentation, fragment, typical_pods
from inferx.policy.packing.published import PUBLISHED
from inferx.policy.packing.shapes import NodeState, PodShape, fits, placed
from inferx.sim.packing.replay import PublishedChooser, pack

MODELS = ("A", "B")
pods = st.builds(
    lambda cpu, memory, gpus, milli, models: PodShape(
        cpu, memory, gpus, (1000 if gpus > 1 else milli) if gpus else 0, models if gpus else ""
    ),
    st.sampled_from([0, 1000, 4000, 8000]),
    st.sampled_from([0, 1024, 4096]),
    st.sampled_from([0, 1, 1, 1, 2, 4]),
    st.sampled_from([100, 300, 500, 1000]),
    st.sampled_from(["", "", "A", "A|B|B", "C"]),
)
nodes = st.builds(
    lambda model, cpu, memory, gpus: NodeState(model, cpu, memory, (1000,) * gpus, frozenset(), 9),
    st.sampled_from(MODELS),
    st.sampled_from([4000, 8000, 32_000]),
    st.sampled_from([4096, 16_384]),
    st.sampled_from([0, 1, 2, 4, 8]),
)
clusters = st.lists(nodes, min_size=1, max_size=6).filter(lambda c: any(n.gpus for n in c))
arrivals = st.lists(pods, min_size=1, max_size=40)


def fgd_by_the_book(pod, node, typical):
    """The published score of the best GPUs, and those, from the formula."""
    gpus_left, scored = node.gpus, []
    before = fragment(node.model, node.cpu_milli, gpus_left, typical)
    for gpus in gpu_choices(pod, node):
        rest = [left - pod.milli * (gpu in gpus) for gpu, left in enumerate(gpus_left)]
        after = fragment(node.model, node.cpu_milli - pod.cpu_milli, rest, typical)
        scored.append((int(1 / (1 + math.exp((after - before) / 1000)) * 100), gpus))
    best = max(score for score, _ in scored)
    return next(pair for pair in scored if pair[0] == best)


def gpu_choices(pod, node):
    if pod.gpus == 0:
        return [()]
    if pod.milli < 1000:
        return [(i,) for i, left in enumerate(node.gpus) if left >= pod.milli]
    return [tuple(i for i, left in enumerate(node.gpus) if left == 1000)[: pod.gpus]]


def naive(policy, arriving, cluster, rank, typical):
    """Where each pod goes, looking at every node anew; ties go to the lowest rank."""
    states, where = list(cluster), []
    rule = PUBLISHED[policy](None)
    for pod in arriving:
        best, at = (-1, ()), -1
        for row in sorted(range(len(states)), key=rank.__getitem__):
            if fits(pod, states[row]):
                if policy == "fgd":
                    found = fgd_by_the_book(pod, states[row], typical)
                else:
                    gpus = rule.gpus(pod, states[row], None) if pod.gpus else ()
                    found = rule.score(pod, states[row]), gpus
                if found[0] > best[0]:
                    best, at = found, row
        where.append(at)
        if at >= 0:
            states[at] = placed(pod, states[at], best[1])
    return where


@given(arrivals, clusters, st.randoms(use_true_random=False))
def test_replay_goes_where_a_plain_loop_goes_ties_included(arriving, cluster, chance):
    rank = list(range(len(cluster)))
    chance.shuffle(rank)
    typical = typical_pods(arriving)
    measure = Fragmentation(typical)
    for policy in sorted(set(PUBLISHED) - {"random"}):

        def at_work(states, policy=policy):
            return PublishedChooser(PUBLISHED[policy](measure), states, stream(1, "x"))

        done = pack(arriving, cluster, rank, at_work, measure)
        assert list(done.nodes) == naive(policy, arriving, cluster, rank, typical), policy


@given(arrivals, clusters)
def test_random_places_only_what_fits_and_turns_away_only_what_does_not(arriving, cluster):
    measure = Fragmentation(typical_pods(arriving))
    states = list(cluster)

    def at_work(seen):
        return PublishedChooser(PUBLISHED["random"](measure), seen, stream(1, "x"))

    done = pack(arriving, cluster, list(range(len(cluster))), at_work, measure)
    again = pack(arriving, cluster, list(range(len(cluster))), at_work, measure)
    assert done.nodes == again.nodes
    for pod, node in zip(arriving, done.nodes, strict=True):
        if node < 0 and not pod.gpus:
            assert not any(fits(pod, state) for state in states)
        elif node >= 0:
            assert pod.gpus or fits(pod, states[node])
            if not pod.gpus:
                states[node] = placed(pod, states[node], ())
            else:
                break  # Which GPU was drawn is not told; later states are unknown.


@given(
    arrivals,
    st.lists(st.sampled_from([0, 100, 400, 500, 1000]), max_size=8),
    st.sampled_from([0, 500, 1000, 4000, 9000]),
    st.sampled_from(["A", "B", "C", ""]),
)
def test_remembered_fragment_is_the_plain_sum_to_the_last_bit(arriving, gpus, cpu_milli, model):
    typical = typical_pods(arriving)
    measure = Fragmentation(typical)
    for order in (tuple(gpus), tuple(reversed(gpus))):
        assert measure.of(model, cpu_milli, order) == fragment(model, cpu_milli, gpus, typical)


def test_typical_pods_are_the_most_frequent_and_add_up_to_one():
    common, rare = PodShape(4000, 0, 1, 500, ""), PodShape(1000, 0, 0, 0, "")
    typical = typical_pods([common] * 97 + [rare] * 3)
    assert [(pod.cpu_milli, pod.share) for pod in typical] == [(4000, 1.0)]
    both = typical_pods([common] * 50 + [rare] * 50)
    assert [pod.cpu_milli for pod in both] == [4000, 1000]
    assert math.isclose(sum(pod.share for pod in both), 1.0)


def test_fragment_of_the_papers_kinds_of_nodes():
    """Weng et al. 2023, USENIX ATC, p. 1000: its three cases, equations 2 and 3."""
    half = typical_pods([PodShape(4000, 0, 1, 500, "A")])
    assert fragment("A", 8000, (500, 300), half) == 300  # What is too small is lost.
    assert fragment("A", 8000, (400, 300), half) == 700  # Nothing fits: all is lost.
    assert fragment("A", 3000, (1000, 1000), half) == 2000  # No CPU: all is lost.
    assert fragment("B", 8000, (1000, 1000), half) == 2000  # The wrong model.
    cpu = typical_pods([PodShape(1000, 0, 0, 0, "")])
    assert fragment("A", 8000, (1000,), cpu) == 1000  # Nobody asks for GPUs.


def test_no_idle_gpu_has_no_fragment():
    measure = Fragmentation(typical_pods([PodShape(0, 0, 1, 1000, "")]))
    node = NodeState("A", 1, 1, (1000,), frozenset(), 9)

    def at_work(states):
        return PublishedChooser(PUBLISHED["fgd"](measure), states, stream(1, "x"))

    done = pack([PodShape(0, 0, 1, 1000, "")] * 2, [node], [0], at_work, measure)
    assert done.nodes == (0, -1)
    assert done.curves.alloc[100] == 100.0
    assert done.curves.frag_ratio[100] == 0.0
    assert np.isnan(done.curves.alloc[50])

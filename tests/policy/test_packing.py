"""Each packing rule against a plain loop over nodes and GPUs, ties included; and in its slot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.cluster import Cluster
from inferx.core.lifecycle import PodState
from inferx.core.machine.proposals import check_place
from inferx.core.rng import stream
from inferx.core.types import FunctionSpec, Links, NodeSpec
from inferx.core.view import ClusterView
from inferx.load import LoadError, load_bundle
from inferx.policy import Defer, FunctionId, GpuId, NodeId, Place, PodId, want_of
from inferx.policy.packing import rules
from inferx.policy.packing.case import Case, Mix, choose_gpus, choose_row, kind_bit
from inferx.policy.packing.slot import case_of_view

GIB = 1 << 30
RULES = rules()
LOOPS = {}


def loop(*names):
    """The plain loops, by the names of the rules that they are twins of."""

    def keep(function):
        LOOPS.update(dict.fromkeys(names, function))
        return function

    return keep


def dimensions(c, row):
    left = [int(c.left[row].sum()), *c.host_left[row].tolist()]
    asked = [int(c.milli[row]) * c.gpus, *c.host[row].tolist()]
    return list(zip(left, asked, c.most.tolist(), strict=True))


def tight(c, row, gpu):
    return -int(c.left[row, gpu])


@loop("first-fit")
def first_fit(c, row, name):
    return 0, [0] * c.left.shape[1]


@loop("clean-best-fit", "worst-fit")
def fit(c, row, name):
    total = 0.0
    for left, asked, most in dimensions(c, row):
        total += (left - asked) / most
    share = total / len(c.most)
    gpus = [tight(c, row, gpu) for gpu in range(c.left.shape[1])]
    return (share, [-x for x in gpus]) if name == "worst-fit" else (1.0 - share, gpus)


@loop("dot-product-min", "dot-product-max", "tetris")
def product(c, row, name):
    total = 0.0
    own = [int(c.count[row]) * 1000, *c.host_total[row].tolist()]
    for (left, asked, most), mine in zip(dimensions(c, row), own, strict=True):
        scale = max(1, mine) if name == "tetris" else most
        total += (left / scale) * (asked / scale)
    total /= len(c.most)
    gpus = [tight(c, row, gpu) for gpu in range(c.left.shape[1])]
    return (-total if name == "dot-product-min" else total), gpus


@loop("clean-gpu-clustering")
def clustering(c, row, name):
    gpus = [tight(c, row, gpu) for gpu in range(c.left.shape[1])]
    if c.gpus == 0:
        return 0, gpus
    kinds = [bit for bit in range(12) if int(c.kinds[row]) >> bit & 1]
    mine = c.kind.bit_length() - 1
    fuller = 1 - sum(c.left[row].tolist()) / max(1, int(c.count[row]) * 1000)
    if mine in kinds:
        return (3 if len(kinds) == 1 else 2) + fuller, gpus
    return (0 if kinds else 1) + fuller, gpus


@loop("clean-gpu-packing")
def packing(c, row, name):
    left, width = c.left[row].tolist(), c.left.shape[1]
    gpus = [-x for x in left]
    if c.gpus == 0:
        return 0, gpus
    free = left.count(1000)
    if free == c.count[row]:
        return 1 - free / (width + 1), gpus
    taken = sorted(x for x, ok in zip(left, c.open[row].tolist(), strict=True) if ok)[: c.gpus]
    opened = taken.count(1000)
    if opened:
        return 2 - opened / (width + 1), gpus
    return 3 - sum(taken) / (1001 * c.gpus), gpus


@loop("hami-binpack", "hami-spread")
def hami(c, row, name):
    sign = 1 if name.endswith("binpack") else -1
    total, asked = max(1, int(c.count[row]) * 1000), int(c.milli[row])
    used = (total - sum(c.compute_left[row].tolist())) / total
    used += (total - sum(c.memory_left[row].tolist())) / total
    gpus = []
    for compute, memory in zip(c.compute_left[row], c.memory_left[row], strict=True):
        gpus.append(sign * 10 * ((asked + 1000 - compute) / 1000 + (asked + 1000 - memory) / 1000))
    return sign * 10.0 * used, gpus


@loop("kai-binpack", "kai-spread")
def kai(c, row, name):
    idle = [sum(left) / 1000 for left in c.left.tolist()]
    among = [x for x, ok in zip(idle, c.room.tolist(), strict=True) if ok]
    used = [1 - left / 1000 for left in c.left[row].tolist()]
    if name == "kai-spread":
        score, used = idle[row] / max(1, int(c.count[row])), [left / 1000 for left in c.left[row]]
    elif max(among) == min(among):
        score = 9.0
    else:
        score = 9 * (1 - (idle[row] - min(among)) / (max(among) - min(among)))
    if c.gpus == 0 and c.count[row] == 0:
        score += 10
    shared = any(ok and left < 1000 for ok, left in zip(c.open[row], c.left[row], strict=True))
    return score + (1_000 if c.gpus == 1 and c.milli[row] < 1000 and shared else 0), used


def fragment(c, row, left, host):
    total = 0
    for kind, weight in enumerate(c.mix.weight.tolist()):
        milli = int(c.mix.milli[kind, row])
        takes = c.mix.gpus[kind] > 0 and c.mix.allowed[kind, row]
        takes = takes and sum(x >= milli for x in left) >= c.mix.gpus[kind]
        takes = takes and all(h >= w for h, w in zip(host, c.mix.host[kind], strict=True))
        total += weight * sum(x for x in left if not takes or x < milli)
    return total


@loop("fragmentation-gradient-descent")
def gradient(c, row, name):
    left, host = c.left[row].tolist(), c.host_left[row].tolist()
    host_after = [h - w for h, w in zip(host, c.host[row].tolist(), strict=True)]
    order = sorted((x, g) for g, x in enumerate(left) if c.open[row, g])[: c.gpus]
    choices = [[g] for g in range(len(left))] if c.gpus == 1 else [[g for _, g in order]]
    scores = []
    for gpus in choices:
        after = [x - int(c.milli[row]) * (g in gpus) for g, x in enumerate(left)]
        less = fragment(c, row, left, host) - fragment(c, row, after, host_after)
        scores.append(less if all(c.open[row, g] for g in gpus) else -(10**18))
    gpus = scores if c.gpus == 1 else [-x for x in left]
    return max(scores) / (1000 * sum(c.mix.weight.tolist())), gpus


@loop("gradient-and-fit")
def gradient_and_fit(c, row, name):
    descent, gpus = gradient(c, row, name)
    return descent + 0.04 * fit(c, row, "clean-best-fit")[0], gpus


def chosen_by_loop(c, name):
    best, at, preferred = None, -1, []
    for row in range(len(c.room)):
        if c.room[row]:
            score, gpus = LOOPS[name](c, row, name)
            if best is None or score > best:
                best, at, preferred = score, row, gpus
    if at < 0:
        return -1, ()
    fitting = [gpu for gpu in range(len(preferred)) if c.open[at, gpu]]
    order = sorted(fitting, key=lambda gpu: -preferred[gpu])[: c.gpus]
    return at, tuple(sorted(order))


@st.composite
def cases(draw):
    """A few nodes with few sizes, so that ties are common."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    rows, width = draw(st.integers(1, 6)), draw(st.sampled_from([1, 2, 4, 8]))
    gpus = draw(st.sampled_from([n for n in (0, 1, 1, 2, 4) if n <= width]))
    count = rng.choice([0, width, width], rows)
    there = np.arange(width) < count[:, np.newaxis]
    compute = np.where(there, rng.choice([0, 300, 500, 1000, 1000], (rows, width)), 0)
    memory = np.where(there, rng.choice([200, 300, 500, 1000, 1000], (rows, width)), 0)
    left = np.minimum(compute, memory)
    milli = rng.choice([300, 300, 500, 1000], rows)
    host_left = rng.choice([0, 4, 8], (rows, 2))
    host = np.broadcast_to(rng.choice([0, 4], 2), (rows, 2))
    fits = (host <= host_left).all(axis=1)
    opened = (left >= milli[:, np.newaxis]) & fits[:, np.newaxis] & there
    kinds = draw(st.integers(1, 5))
    return Case(
        gpus=gpus,
        kind=kind_bit(gpus, int(milli[0])),
        milli=milli,
        host=host,
        left=left,
        compute_left=compute,
        memory_left=memory,
        open=opened,
        room=fits & (opened.sum(axis=1) >= gpus),
        count=count,
        kinds=rng.choice([0, 1, 2, 3, 4], rows),
        host_left=host_left,
        host_total=host_left + rng.choice([0, 4], (rows, 2)),
        most=np.array([1000 * width, 8, 12]),
        mix=Mix(
            weight=rng.integers(1, 5, kinds),
            gpus=rng.choice([0, 1, 1, 2], kinds),
            milli=rng.choice([300, 500, 1000], (kinds, rows)),
            host=rng.choice([0, 4], (kinds, 2)),
            allowed=rng.random((kinds, rows)) < 0.8,
        ),
    )


def test_every_rule_but_random_has_a_twin():
    assert set(LOOPS) == set(RULES) - {"clean-random"}


@pytest.mark.parametrize("name", sorted(LOOPS))
@given(cases())
def test_rule_chooses_as_a_plain_loop_does(name, case):
    rule = RULES[name]()
    row = choose_row(rule.score(case, stream(1, "p")), case.room)
    gpus = choose_gpus(rule, case, row) if row >= 0 else ()
    assert (row, gpus) == chosen_by_loop(case, name)


@pytest.mark.parametrize("name", sorted(RULES))
@given(cases())
def test_local_rule_scores_some_rows_as_among_all(name, case):
    rule = RULES[name]()
    if rule.local:
        rows = np.arange(0, len(case.room), 2)
        some = rule.score(case.take(rows), stream(1, "p"))
        assert np.array_equal(some, rule.score(case, stream(1, "p"))[rows])


@given(cases())
def test_random_draws_among_all_that_have_room(case):
    rule, rng = RULES["clean-random"](), stream(1, "p")
    rows = {choose_row(rule.score(case, rng), case.room) for _ in range(100)}
    assert rows == (set(np.flatnonzero(case.room).tolist()) or {-1})
    for row in rows - {-1}:
        assert case.open[row, list(choose_gpus(rule, case, row))].all()


# -- what the papers say ------------------------------------------------------------------------
def gpus_of(left, asked, *, mix=()):
    """Return nodes of these GPUs, thousandths left of each, for a pod that asks for a part of one.

    The mix is the parts that usually come, each as often as the others. No host resources.
    """
    left = np.array(left)
    opened = left >= asked
    rows = len(left)
    return Case(
        left=left,
        compute_left=left,
        memory_left=left,
        open=opened,
        milli=np.full(rows, asked),
        gpus=1,
        host=np.zeros((rows, 0), np.int64),
        kind=kind_bit(1, asked),
        room=opened.any(axis=1),
        count=np.full(rows, left.shape[1]),
        kinds=np.zeros(rows, np.int64),
        host_left=np.zeros((rows, 0), np.int64),
        host_total=np.zeros((rows, 0), np.int64),
        most=np.array([1000 * left.shape[1]]),
        mix=Mix(
            weight=np.ones(len(mix), np.int64),
            gpus=np.ones(len(mix), np.int64),
            milli=np.tile(np.array(mix)[:, None], rows),
            host=np.zeros((len(mix), 0), np.int64),
            allowed=np.ones((len(mix), rows), bool),
        ),
    )


def test_gradient_descent_takes_the_steps_of_the_papers_running_example():
    """Weng et al. 2023, USENIX ATC, p. 1003, figure 8; the numbers are in the text of p. 1002.

    A node with <0.5, 1> GPUs left; 0.3, 0.5 and 0.7 of one come equally often. The fragment is 1/6
    of a GPU. 0.3 goes to the second, 0.5 to the first, which leaves none, 0.7 to the second.
    """
    rule, left = RULES["fragmentation-gradient-descent"](), [500, 1000]
    taken, gains = [], []
    for asked in (300, 500, 700):
        case = gpus_of([left], asked, mix=(300, 500, 700))
        gains.append(float(rule.score(case, stream(1, "p"))[0]))
        (gpu,) = choose_gpus(rule, case, 0)
        taken.append(gpu)
        left[gpu] -= asked
    assert taken == [1, 0, 1]
    assert gains == pytest.approx([0.0, 1 / 6, 0.0])
    assert left == [0, 0]


@pytest.mark.parametrize("name", ["first-fit", "clean-best-fit"])
@given(parts=st.integers(2, 5), sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=60))
def test_first_and_best_fit_open_no_more_gpus_than_is_proven(name, parts, sizes):
    """Johnson et al. 1974, SIAM Journal on Computing 3(4), p. 307, theorem 2.3 (ii).

    Where nobody asks for more than 1 / m of a bin, both need at most (m + 1) / m L* + 2 bins. The
    proof's bins are all but two more than m / (m + 1) full, so that what is asked for stands in
    for the optimum L*, which is no less.
    """
    sizes = [max(1, size // parts) for size in sizes]
    rule, left = RULES[name](), np.full((len(sizes), 1), 1000)
    for size in sizes:
        case = gpus_of(left, size, mix=(1000,))
        left[choose_row(rule.score(case, stream(1, "p")), case.room)] -= size
    assert (left < 1000).sum() <= (parts + 1) / parts * sum(sizes) / 1000 + 2


# -- in the placement slot -----------------------------------------------------------------------
def node(index, gpu_type, gpus, gib):
    return NodeSpec(
        name=f"n{index}",
        group=gpu_type,
        zone="z",
        instance_type="t",
        gpu_type=gpu_type,
        platform=f"{gpu_type}/580",
        gpus=gpus,
        hbm_bytes=gib * GIB,
        host_bytes=64 * GIB,
        nvme_bytes=1000 * GIB,
        links=Links(pcie_gpu=1, pcie_root=0, dram=1, nvme_read=1, nvme_write=1, ebs=0, network=1),
    )


def function(name, *, gib, milli, gpus=1, gpu_type="Any"):
    return FunctionSpec(
        name=name,
        gpus=gpus,
        milli_gpu=milli,
        hbm_bytes=gib * GIB,
        gpu_type=gpu_type,
        device_bytes=gpus * gib * GIB // 2,
        host_bytes=2 * GIB,
        weight_bytes=gib * GIB // 2,
    )


NODES = [node(0, "A", 4, 80), node(1, "B", 2, 48), node(2, "A", 4, 80)]
FUNCTIONS = [
    function("small", gib=20, milli=200),
    function("large", gib=40, milli=1000),
    function("pair", gib=30, milli=500, gpus=2, gpu_type="A"),
    function("bound", gib=24, milli=300, gpu_type="B"),
]


def cluster():
    made = Cluster(NODES, FUNCTIONS)
    for index in range(len(NODES)):
        made.set_schedulable(NodeId(index), yes=True)
        made.node_alive[index] = True
    return made


def want(f):
    return want_of(FunctionId(f), FUNCTIONS[f])


def add(c, pod, f, gpus):
    where = tuple(map(GpuId, gpus))
    added = c.add_pod(PodId(pod), FunctionId(f), where, NodeId(int(c.gpu_node[gpus[0]])))
    c.charge_gpus(added)
    c.charge_host(added, c.functions[f].host_bytes)
    c.enter(added, PodState.CREATING)
    c.enter(added, PodState.READY)


@pytest.mark.parametrize("name", sorted(RULES))
@given(st.lists(st.integers(0, len(FUNCTIONS) - 1), max_size=25))
def test_rule_in_its_slot_places_whatever_fits(name, arriving):
    c, rule, rng = cluster(), RULES[name](), stream(1, "p")
    view = ClusterView(c, snapshots=True)
    for pod, f in enumerate(arriving):
        fits = view.fits(want(f))
        answer = rule.place(want(f), view, rng)
        if not fits.any():
            assert answer == Defer("no GPU fits")
            continue
        assert isinstance(answer, Place)
        check_place(want(f), answer, c)
        add(c, pod, f, answer.gpus)


def test_view_is_told_in_thousandths_of_the_scarcer_of_compute_and_memory():
    c = cluster()
    add(c, 0, 0, [0])
    add(c, 1, 2, [1, 2])
    case = case_of_view(want(1), ClusterView(c, snapshots=True), mixed=True)
    assert case.left.tolist() == [[750, 500, 500, 1000], [1000, 1000, 0, 0], [1000] * 4]
    assert case.memory_left[0].tolist() == [750, 625, 625, 1000]
    assert case.compute_left[0].tolist() == [800, 500, 500, 1000]
    assert case.milli.tolist() == [1000, 1000, 1000]
    assert case.open.tolist() == [[False] * 3 + [True], [True, True, False, False], [True] * 4]
    assert case.kinds.tolist() == [1 | 4, 0, 0]
    assert case.count.tolist() == [4, 2, 4]
    assert case.mix.allowed.tolist().count([False, True, False]) == 1
    bound = case_of_view(want(3), ClusterView(c, snapshots=True), mixed=False)
    assert bound.milli.tolist() == [300, 500, 300]
    assert bound.room.tolist() == [False, True, False]


def test_packing_rule_is_a_setting_of_a_bundle():
    made = load_bundle("inferx.policy.packing.bundles:bundle", {"rule": "kai-spread"})
    assert made.placement == RULES["kai-spread"]()
    with pytest.raises(LoadError, match="expected one of clean-best-fit"):
        load_bundle("inferx.policy.packing.bundles:bundle", {"rule": "none"})

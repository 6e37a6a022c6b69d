import os
from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inferx.sim.oracle.packing import Requests, most_milli_placed
from inferx.sim.oracle.solver import silent


def tried(asks, node_gpus, node_host):
    """The most of every way to place each request, or not."""

    def best(row, free, host):
        if row == len(asks):
            return 0
        gpus, milli, cpu, allowed = asks[row]
        most = best(row + 1, free, host)
        for node in range(len(free)):
            if not allowed[node] or host[node] < cpu:
                continue
            for chosen in combinations(range(len(free[node])), gpus):
                if all(free[node][g] >= milli for g in chosen):
                    left = [list(gpus_) for gpus_ in free]
                    for g in chosen:
                        left[node][g] -= milli
                    rest = [h - cpu * (n == node) for n, h in enumerate(host)]
                    most = max(most, gpus * milli + best(row + 1, left, rest))
        return most

    return best(0, [[1000] * count for count in node_gpus], list(node_host))


ASKS = st.lists(
    st.tuples(
        st.integers(1, 2),
        st.sampled_from([200, 350, 500, 600, 1000]),
        st.integers(0, 5),
        st.tuples(st.booleans(), st.booleans()),
    ),
    min_size=1,
    max_size=5,
)


EITHER = (True, True)


@settings(max_examples=40)
@example([(2, 500, 0, EITHER), (1, 1000, 0, EITHER)], 0, 2, 1)  # Not both slices on one GPU.
@example([(2, 350, 1, EITHER)] * 3 + [(1, 600, 1, EITHER)] * 2, 1, 2, 4)
@given(ASKS, st.integers(0, 2), st.integers(1, 2), st.integers(1, 9))
def test_the_optimum_is_the_best_of_all_that_could_be_done(asks, first, second, host):
    requests = Requests(
        gpus=np.array([ask[0] for ask in asks]),
        milli=np.array([ask[1] for ask in asks]),
        host=np.array([[ask[2]] for ask in asks]),
        allowed=np.array([ask[3] for ask in asks]),
    )
    found = most_milli_placed(
        requests, node_gpus=np.array([first, second]), node_host=np.array([[host], [host]])
    )
    assert found == tried(asks, [first, second], [host, host])


def test_many_equal_requests_fill_every_gpu():
    milli = np.repeat([350, 300, 270], 40)
    requests = Requests(
        gpus=np.ones(120, np.int64),
        milli=milli,
        host=np.zeros((120, 0), np.int64),
        allowed=np.ones((120, 1), np.bool_),
    )
    most = most_milli_placed(
        requests, node_gpus=np.array([20]), node_host=np.zeros((1, 0), np.int64)
    )
    assert most == 20 * (2 * 350 + 300)


def test_nothing_but_ours_is_printed(capfd):
    print("before")
    with silent():
        os.write(1, b"a solver's own line")
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"


def test_what_is_not_small_is_refused():
    many = np.ones(1001, np.int64)
    requests = Requests(
        gpus=many, milli=many, host=many[:, None], allowed=np.ones((1001, 1), np.bool_)
    )
    with pytest.raises(ValueError, match="4,004 pairs of request and GPU; expected at most 4,000"):
        most_milli_placed(requests, node_gpus=np.array([4]), node_host=np.array([[1]]))

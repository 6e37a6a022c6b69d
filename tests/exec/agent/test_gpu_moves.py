"""The map of GPUs that a restore gives the driver: whole, one to one, model by model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.exec.agent.gpus.gpu_moves import full_map
from inferx.exec.agent.ports import AgentError

H, L = "H100", "L40S"


def gpus(text: str) -> dict[str, str]:
    """Return UUID and model of each: `a` an H100, `A` an L40S."""
    return {one: H if one.islower() else L for one in text}


def test_nothing_moves_where_the_pod_was() -> None:
    assert full_map(gpus("abc"), gpus("abcd"), built_on="b", onto="b") == {}


def test_who_is_in_the_way_takes_the_place_that_was_left() -> None:
    moved = full_map(gpus("abc"), gpus("abc"), built_on="a", onto="b")
    assert moved == {"a": "b", "b": "a", "c": "c"}


def test_gpus_of_another_node_all_get_a_place_though_one_is_used() -> None:
    moved = full_map(gpus("abA"), gpus("xXyz"), built_on="b", onto="z")
    assert moved == {"b": "z", "a": "x", "A": "X"}


def test_a_node_that_shares_a_gpu_with_the_old_one_keeps_it() -> None:
    assert full_map(gpus("ab"), gpus("bc"), built_on="a", onto="c") == {"a": "c", "b": "b"}


def test_the_pods_gpu_is_here_and_one_beside_it_is_not() -> None:
    assert full_map(gpus("ab"), gpus("ac"), built_on="a", onto="a") == {"a": "a", "b": "c"}


def test_a_node_with_too_few_is_told_which() -> None:
    with pytest.raises(AgentError, match="among 2 of L40S, here are 1: ") as caught:
        full_map(gpus("aAB"), gpus("xyX"), built_on="a", onto="x")
    assert caught.value.phase == "fit"


@given(st.sets(st.sampled_from("abcdABCD"), min_size=1), st.data())
def test_maps_are_one_to_one_and_of_one_model(made, data) -> None:
    among = gpus("".join(sorted(made)))
    # As many of each model or more, some of them the same GPUs.
    extra = data.draw(st.sets(st.sampled_from("efgEFG")))
    swapped = data.draw(st.sets(st.sampled_from(sorted(made))))
    here = gpus("".join(sorted((made - swapped) | extra)) + "".join(_strangers(swapped)))
    old = data.draw(st.sampled_from(sorted(made)))
    new = data.draw(st.sampled_from([one for one in here if here[one] == among[old]]))

    moved = full_map(among, here, built_on=old, onto=new)

    if moved:
        assert moved.keys() == among.keys()
        assert len(set(moved.values())) == len(moved)
        assert all(among[before] == here[after] for before, after in moved.items())
        assert moved[old] == new
    else:
        assert old == new


def _strangers(gone: set[str]) -> list[str]:
    return [chr(ord(one) + 15) for one in sorted(gone)]

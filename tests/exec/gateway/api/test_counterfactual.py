"""What else could have become of a request, in sentences."""

import pytest

from inferx.exec.gateway.api.counterfactual import counterfactual


def told(how="warm", candidates=(), decisions=()):
    return {"how": how, "candidates": candidates, "decisions": decisions}


def pod(number, free, inflight, *, chosen=False):
    return {"pod": number, "free_slots": free, "inflight": inflight, "chosen": chosen}


def candidate(gpu, score, **terms):
    return {"node": "n", "gpu": gpu, "score": score, "terms": terms}


def placed(*top, kind="place", **why):
    return {"kind": kind, "explanation": {"gpus": 4, "feasible": len(top), "top": top, **why}}


def test_the_pod_with_the_most_free_slots_is_next_best():
    others = (pod(1, 2, 6), pod(2, 4, 4, chosen=True), pod(3, 3, 5), pod(4, 3, 5))
    assert counterfactual(told(candidates=others)) == [
        "pod 3 would have served it as well: 3 of its slots were free, 5 in use"
    ]


@pytest.mark.parametrize(
    ("how", "said"),
    [("warm", "no other pod"), ("slot", "no leased pod"), ("cold", ""), ("none", "")],
)
def test_without_a_choice_it_says_what_one_pod_more_or_less_had_meant(how, said):
    lines = counterfactual(told(how))
    assert [line[: len(said)] for line in lines] == ([said] if said else [])


def test_the_next_best_gpu_is_told_with_what_it_lacked():
    best = candidate(0, 1.5, soon=1.0, fit=0.5)
    other = candidate(1, 1.2, soon=0.6, fit=0.6)
    (line,) = counterfactual(told("cold", decisions=[placed(best, other)]))
    assert line == "next best was n GPU 1, 0.300 behind: it lacked 0.400 of soon"


def test_equals_are_told_as_such():
    best, other = candidate(0, 1.0, soon=1.0), candidate(1, 1.0, soon=1.0)
    (line,) = counterfactual(told("cold", decisions=[placed(best, other)]))
    assert line == "n GPU 1 was as good: the first of equals is taken"


def test_the_only_gpu_is_told_with_what_turned_the_others_away():
    only = candidate(0, 1.0, soon=1.0)
    decisions = [placed(only, filtered={"memory": 2, "compute": 1}), placed(only)]
    assert counterfactual(told("cold", decisions=decisions)) == [
        "no other GPU could take the pod: 2 by memory, 1 by compute",
        "there is no other GPU",
    ]


def test_a_want_without_room_says_who_would_have_had_to_leave_once():
    text = "would fit on GPU 0 if the idle pod 5 left"
    deferred = placed(kind="defer", counterfactual=text)
    other = placed(kind="evict", counterfactual="no single pod's leaving would make room")
    assert counterfactual(told("cold", decisions=[deferred, deferred, other])) == [
        f"it {text}",
        "no single pod's leaving would make room",
    ]


def test_what_its_reader_may_not_see_is_not_told():
    assert counterfactual(told("cold", decisions=[{"kind": "place", "reason": ""}])) == []

"""Decisions in words: whom they are about, and which way state goes."""

import pytest

from inferx.cli.client.decisions import decision_lines
from inferx.cli.client.explaining import pod_line

EVICTION = {
    "kind": "evict",
    "function": "acme/chat/big@3",
    "pod": 8,
    "node": "node-0",
    "gpus": [1],
    "start": "resume",
    "reason": "no room",
    "victims": [5, 6],
    "explanation": None,
}


def test_an_eviction_is_told_of_who_gets_the_room_and_of_who_leaves():
    leaving = "to make room, these leave: pod 5, pod 6"
    assert decision_lines(EVICTION) == [
        "room is made for it on node-0, resume (pod 8): no room",
        leaving,
    ]
    assert decision_lines(EVICTION, about=8) == decision_lines(EVICTION)
    assert decision_lines(EVICTION, about=6) == [
        "made to leave on node-0, for acme/chat/big@3 (pod 8)",
        leaving,
    ]


@pytest.mark.parametrize(
    ("kind", "tier", "told"),
    [
        ("demote", "hbm", "its idle pod taken off the GPU ahead of need on node-0 (pod 8)"),
        ("demote", "nvme", "its snapshot removed from disk on node-0 (pod 8)"),
        ("promote", "hbm", "started ahead of need on node-0 (pod 8)"),
        ("sink", "dram", "put to sleep in host memory on node-0 (pod 8)"),
        ("sink", "another", "put to sleep on node-0 (pod 8): another"),
    ],
)
def test_a_move_says_where_to(kind, tier, told):
    one = EVICTION | {"kind": kind, "reason": tier, "victims": [], "start": ""}
    assert decision_lines(one) == [told]


def test_a_pod_that_sleeps_in_host_memory_is_on_no_gpu():
    one = {"state": "ready", "node": "n", "gpus": [0, 1], "function": "f@1"}
    one |= {"leased_slots": 2, "slots": 8}
    assert pod_line(one) == "ready on n, GPU 0, 1; of f@1; 2 of 8 slots in use"
    asleep = one | {"state": "standby", "gpus": []}
    assert pod_line(asleep) == "standby on n; of f@1; 2 of 8 slots in use"

"""What is believed of a process after each answer of the driver."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.exec.agent.gpus.device.states import LEGAL, Error, explain, state_after, version


def test_the_only_way_goes_around():
    state = "running"
    for call in ("lock", "checkpoint", "restore", "unlock"):
        assert LEGAL[call][0] == state
        state = state_after(call, state, Error.SUCCESS)
    assert state == "running"


@pytest.mark.parametrize(
    ("call", "before", "error", "after"),
    [
        ("lock", "running", Error.NOT_READY, "running"),
        ("lock", "running", 999, ""),
        ("checkpoint", "locked", Error.OUT_OF_MEMORY, "failed"),
        ("checkpoint", "", Error.ILLEGAL_STATE, ""),
        ("restore", "checkpointed", Error.OUT_OF_MEMORY, "failed"),
        ("restore", "checkpointed", Error.INVALID_VALUE, "checkpointed"),
        ("restore", "checkpointed", 304, "failed"),
        ("unlock", "locked", 999, ""),
    ],
)
def test_an_error_leaves_what_is_known(call, before, error, after):
    assert state_after(call, before, error) == after


@given(st.sampled_from(sorted(LEGAL)), st.integers(1, 999))
def test_no_error_is_taken_for_success(call: str, error: int):
    before = LEGAL[call][0]
    assert state_after(call, before, error) in {before, "", "failed"}
    assert "\n" not in explain(call, error)


def test_versions_are_told_as_people_write_them():
    assert version(12080) == "12.8"
    assert version(13000) == "13.0"

"""The page of faults says what its data say."""

import json
from pathlib import Path

from studies.faults.document import page

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def test_the_page_is_that_of_the_data() -> None:
    told = json.loads((RESULTS / "data" / "faults.json").read_text())
    assert (RESULTS / "faults.md").read_text() == page(told)


def test_nothing_was_wrong_twice_or_double_booked() -> None:
    told = json.loads((RESULTS / "data" / "faults.json").read_text())
    for one in told.values():
        assert {one[name] for name in ("wrong", "twice", "denied", "unserved", "breaches")} == {0}

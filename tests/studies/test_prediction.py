"""The page of the prediction is what the kept data say, and the data are whole."""

import json
from pathlib import Path

import pytest

from studies.prediction.__main__ import shares
from studies.prediction.compare import COUNTS, TIMES, by_kind, middle, spread
from studies.prediction.document import document

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture(scope="module")
def found() -> dict:
    return json.loads((RESULTS / "data" / "prediction.json").read_text())


def test_the_page_is_written_from_the_kept_data(found: dict) -> None:
    assert (RESULTS / "prediction.md").read_text() == document(found)


def test_every_request_is_in_the_kept_data_and_every_journal_replayed(found: dict) -> None:
    assert list(found["rows"]) == [
        "live",
        *(f"predicted ({name})" for name in ("bench", "calibrated", "hindsight")),
    ]
    assert list(found["profiles"]) == ["bench", "calibrated", "hindsight"]
    assert list(found["rows"]) == list(found["spread"]) == list(found["requests"])
    assert list(found["rows"]) == list(found["kinds"]) == list(found["same"])
    arrived = len(found["requests"]["live"][0]["cause"])
    for who, numbers in found["rows"].items():
        assert set(numbers) == set(found["spread"][who]) == {*TIMES, *COUNTS}
        for columns in found["requests"][who]:
            assert {len(column) for column in columns.values()} == {arrived}
        assert sum(numbers[key] for key in ("finished", "refused", "aborted")) == arrived
        waited = sum(count for kind, (count, *_) in found["kinds"][who].items())
        assert waited == pytest.approx(arrived)
        for key, (least, most) in found["spread"][who].items():
            assert numbers[key] is None or least <= numbers[key] <= most, (who, key)
    runs = 1 + len(found["requests"]["live"])
    assert sorted(one["machine"] for one in found["journals"]) == sorted(
        runs * ["agent", "router", "scheduler"]
    )
    assert all(one["same"] and not one["truncated"] for one in found["journals"])


def test_numbers_of_runs_are_their_median_and_its_bounds_and_kinds_are_counted() -> None:
    rows = [{"a": 3.0, "b": None}, {"a": 1.0, "b": None}, {"a": 9.0, "b": 4.0}]
    assert middle(rows) == {"a": 3.0, "b": 4.0}
    assert spread(rows) == {"a": [1.0, 9.0], "b": [4.0, 4.0]}
    assert middle(rows[:2]) == {"a": 2.0, "b": None}
    runs = [
        {"cause": ["warm", "resume", "warm"], "ttft_s": [0.1, 0.5, None]},
        {"cause": ["resume", "resume", "warm"], "ttft_s": [0.7, 0.6, 0.2]},
    ]
    assert by_kind(runs) == {"warm": [1.0, 0.1, 0.1, 0.2], "resume": [1.5, 0.5, 0.6, 0.7]}


def test_shares_of_the_same_cause_are_of_pairs_of_runs() -> None:
    one, two, three = ({"cause": list(causes)} for causes in ("wwrr", "wwrc", "wrcc"))
    real = [one, two, three]
    assert shares(real, real) == [0.25, 0.5, 0.75]
    assert shares(real, [one]) == [0.25, 0.75, 1.0]

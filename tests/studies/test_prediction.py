"""The page of the prediction is what the kept data say, and the data are whole."""

import json
from pathlib import Path

import pytest

from studies.prediction.compare import COUNTS, TIMES
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
    assert list(found["profiles"]) == list(found["spread"]) == ["bench", "calibrated", "hindsight"]
    for who, numbers in found["rows"].items():
        assert set(numbers) == {*TIMES, *COUNTS}
        columns = found["requests"][who]
        assert {len(column) for column in columns.values()} == {len(columns["cause"])}
        assert sum(numbers[key] for key in ("finished", "refused", "aborted")) == len(
            columns["cause"]
        )
    assert sorted(one["machine"] for one in found["journals"]) == [
        *("agent", "agent", "router", "router", "scheduler", "scheduler")
    ]
    assert all(one["same"] and not one["truncated"] for one in found["journals"])

"""The page of restores is what the kept data say, and the data are whole."""

import json
from pathlib import Path

import msgspec

from inferx.exec.agent.bench import Results
from studies.restore.document import document

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_the_page_is_written_from_the_kept_data():
    found = json.loads((RESULTS / "data" / "restore.json").read_text())
    assert (RESULTS / "restore.md").read_text() == document(found)


def test_the_kept_data_have_every_round_that_was_asked_for():
    found = json.loads((RESULTS / "data" / "restore.json").read_text())
    for one in found["runs"]:
        results = msgspec.convert(one, type=Results)
        assert results.about.finished
        assert results.about.commit
        cases = {(r.engine, r.weight_bytes, r.tier) for r in results.rounds}
        assert len(results.rounds) == results.about.rounds * len(cases)
        assert {tier for _, _, tier in cases} == {"dram", "nvme"}
        assert results.clones

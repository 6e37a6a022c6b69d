"""Published traces, where someone has them: INFERX_TRACE_DIR names the folder."""

import hashlib
import os
import tomllib
from pathlib import Path

import pytest

from inferx.sim.workload.formats import FORMATS
from inferx.sim.workload.read import open_trace, read_trace
from inferx.sim.workload.stats import trace_stats

MANIFEST = Path(__file__).parents[3] / "traces" / "manifest.toml"
PUBLIC = tomllib.loads(MANIFEST.read_text())["trace"]
FOLDER = os.environ.get("INFERX_TRACE_DIR")


def folder_file(name: str) -> Path:
    if FOLDER is None:
        pytest.skip("INFERX_TRACE_DIR is not set")
    path = Path(FOLDER) / name
    if not path.exists():
        pytest.skip(f"{name} is not in INFERX_TRACE_DIR")
    return path


def test_manifest_tells_format_source_and_licence_of_every_trace():
    formats = {known.NAME for known in FORMATS} - {"inferx"}
    assert {entry["format"] for entry in PUBLIC} == formats | {"servegen"}
    for entry in PUBLIC:
        assert entry["source"].startswith("GitHub ")
        assert entry["licence"]
        assert entry["cite"]
    assert len({entry["name"] for entry in PUBLIC}) == len(PUBLIC)


@pytest.mark.parametrize(
    "entry", [entry for entry in PUBLIC if "file" in entry], ids=lambda entry: entry["name"]
)
def test_published_file_is_read_as_the_manifest_says(entry):
    path = folder_file(entry["file"])
    assert hashlib.md5(path.read_bytes()).hexdigest() == entry["md5"]
    reader = open_trace(path)
    assert reader.format == entry["format"]
    trace = read_trace(path)
    trace.validate()
    assert len(trace) == entry["requests"]


def test_azure_code_is_as_bursty_as_known():
    stats = trace_stats(open_trace(folder_file("azure-llm-2023/AzureLLMInferenceTrace_code.csv")))
    assert stats.gaps.cv == pytest.approx(13.15, abs=0.01)
    assert stats.second.dispersion == pytest.approx(13.2, abs=0.05)
    assert stats.second.peak == 67


def test_gentd26_is_as_skewed_as_known():
    stats = trace_stats(open_trace(folder_file("gentd26/lora_request_trace.csv")))
    assert stats.functions.count == 86
    assert stats.functions.top1 == pytest.approx(0.307, abs=5e-4)
    assert stats.functions.top10 == pytest.approx(0.867, abs=5e-4)
    assert stats.functions.gini == pytest.approx(0.871, abs=5e-4)
    assert stats.functions.zipf_alpha == pytest.approx(2.19, abs=5e-3)
    assert stats.gaps.cv == pytest.approx(12.0, abs=0.05)


def test_openb_lists_with_models_keep_each_model_once():
    trace = read_trace(folder_file("openb/openb_pod_list_gpuspec20.csv"))
    for name in trace.names:
        models = name.partition(":")[2].split("|")
        assert len(set(models)) == len(models)

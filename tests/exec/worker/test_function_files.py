"""The function files that are shipped: they load, and those of our own workers start."""

import json
import re
from pathlib import Path

import pytest
from worker_process import worker

from inferx.cli.worker import worker as command
from inferx.core.errors import DescriptionError
from inferx.core.units import MIB
from inferx.spec.functions import load_functions

FOLDER = Path(__file__).parents[3] / "deploy" / "functions"
FILES = sorted(FOLDER.glob("*.json"))
OURS = [file for file in FILES if file.stem.startswith("worker-")]


def spec_of(file):
    return json.loads(file.read_text())["object"]["spec"]


def test_all_load_together():
    functions = {one.name: one for one in load_functions(FOLDER)}
    assert sorted(functions) == [file.stem for file in FILES]
    assert functions["worker-paced"].weight_bytes == 64 * MIB
    assert functions["worker-paced"].slots == 8
    for name in ("vllm-qwen3-8b", "sglang-qwen3-8b"):
        assert functions[name].enforcement == "env"
        assert functions[name].device_bytes > functions[name].weight_bytes > 15_000 * MIB


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_says_what_an_agent_needs(file):
    spec = spec_of(file)
    assert spec["endpoint"]["port"] == 8000
    assert spec["endpoint"]["probe"] == "/health"
    assert {"path"} <= set(spec["inferx"]["quiesce"]) & set(spec["inferx"]["wake"])
    served = spec["sample_query"]["body"]["model"]
    assert served == file.stem
    assert served in spec["commands"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_setting_is_explained(file):
    spec = spec_of(file)
    page = (FOLDER.parents[1] / "docs" / "engines.md").read_text()
    flags = [word for word in spec["commands"] if word.startswith("--")]
    named = [*flags, *(name for name, _ in spec.get("envs", ()))]
    explained = set(re.findall(r"[-\w]+", page))
    assert [one for one in named if one not in explained] == []
    assert spec["policy"]["Obj"]["parallel"] in {
        int(spec["commands"][spec["commands"].index(flag) + 1])
        for flag in {"--slots", "--max-num-seqs", "--max-running-requests"} & {*flags}
    }


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.stem)
def test_our_workers_start_from_their_files(file):
    spec = spec_of(file)
    assert spec["entrypoint"] == ["inferx", "worker"]
    options = command.make_context("worker", list(spec["commands"])).params
    assert options["slots"] == spec["policy"]["Obj"]["parallel"]
    with worker(*spec["commands"]) as one:
        query = spec["sample_query"]
        body = {**query["body"], "prompt": query["prompt"]}
        text = one.post(f"/{query['path']}", body)["choices"][0]["text"]
        assert one.post(spec["inferx"]["quiesce"]["path"], {})["kv_bytes"] == 0
        assert one.post(spec["inferx"]["wake"]["path"], {})["kv_bytes"] > 31 * MIB
        assert one.post(f"/{query['path']}", body)["choices"][0]["text"] == text


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ({}, "quiesce.path: nothing"),
        ({"path": "sleep"}, "quiesce.path: the text 'sleep'; expected a path"),
        ({"path": "/sleep", "query": "x"}, "quiesce.query: an unknown key"),
        ("/sleep", "quiesce: the text '/sleep'; expected a table"),
    ],
)
def test_a_hook_that_is_none_is_one_line(tmp_path, hook, message):
    told = json.loads(OURS[0].read_text())
    told["object"]["spec"]["inferx"]["quiesce"] = hook
    file = tmp_path / "f.json"
    file.write_text(json.dumps(told))
    with pytest.raises(DescriptionError) as caught:
        load_functions(file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

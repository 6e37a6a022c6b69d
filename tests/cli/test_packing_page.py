"""The page on packing: its rules are all the rules, its replay runs, its example is a rule."""

import re
import shlex
from pathlib import Path

import numpy as np

from inferx.core.rng import stream
from inferx.policy.packing import rules
from inferx.policy.packing.case import choose_row
from inferx.policy.packing.fragmentation import typical_pods
from inferx.policy.packing.published import PUBLISHED
from inferx.policy.packing.shapes import NodeState, PodShape
from inferx.sim.packing.columns import case_of_states

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "packing.md").read_text("utf-8")


def test_page_names_every_rule():
    named = set(re.findall(r"`([a-z-]+)`", PAGE))
    assert named >= {*PUBLISHED, *rules()}


def test_replay_of_the_page_runs(good, tmp_path, monkeypatch):
    (tmp_path / "traces").symlink_to(ROOT / "traces")
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line in PAGE.splitlines() if line.startswith("inferx replay")]
    assert "packing" in good(*shlex.split(line)[1:])


def test_example_of_the_page_is_a_rule():
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {"np": np}
    for module in ("dataclasses", "numpy.random", "inferx.policy"):
        names.update(vars(__import__(module, fromlist=["_"])))
    for module in ("case", "slot"):
        names.update(vars(__import__(f"inferx.policy.packing.{module}", fromlist=["_"])))
    exec(example, names)
    rule = names["RULES"]["fewest-gpus"]()
    states = [NodeState("A", 8000, 8000, (1000,) * gpus, frozenset(), 9) for gpus in (4, 2, 2)]
    pod = PodShape(1, 1, 1, 500, "")
    case = case_of_states(pod, states, typical_pods([pod]))
    assert choose_row(rule.score(case, stream(1, "p")), case.room) == 1


def test_links_of_the_page_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target

"""The README and the guide: every command runs, and every policy shown is the one in the file."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "docs" / "examples" / "my_policy.py").read_text("utf-8")
NEED_A_CLUSTER = {"agent", "snapshot", "up", "apply", "top"}
"""Commands that tests of their own run."""
PAGES = ("README.md", "docs/write-a-policy.md")


def commands(page: str) -> list[list[str]]:
    """The lines of a page's shell blocks that call `inferx`."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("inferx ")]


@pytest.mark.parametrize("page", PAGES)
def test_policy_on_the_page_is_the_file(page):
    assert f"```python\n{EXAMPLE}```" in (ROOT / page).read_text("utf-8")


def test_policy_fits_on_a_screen():
    assert len(EXAMPLE.splitlines()) <= 40


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_the_page_run(page, good, tmp_path, monkeypatch):
    for name in ("docs", "traces"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    # Those of a node need root; tests of the agent's page run them.
    found = [words for words in commands(page) if words[0] not in NEED_A_CLUSTER]
    assert {words[0] for words in found} == {"replay", "check", "explain"}
    if page != PAGES[0]:
        # A check reads nothing that the other commands write: the same one is run once.
        found = [w for w in found if w[0] != "check" or w not in commands(PAGES[0])]
    for words in found:
        assert good(*words)


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_page_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_guide_tells_every_slot():
    from inferx.core.watched import METHODS

    text = (ROOT / "docs" / "write-a-policy.md").read_text("utf-8")
    for slot, methods in METHODS.items():
        assert f"`{slot}`" in text
        for method in methods:
            assert f"`{method}(" in text

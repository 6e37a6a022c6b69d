"""Every example of the documentation loads."""

import re
from pathlib import Path

import pytest

from inferx.sim.profile import profile_names
from inferx.spec.cluster import load_cluster
from inferx.spec.functions import load_functions
from inferx.spec.template import load_template

_PAGE = Path(__file__).parents[2] / "docs" / "descriptions.md"
_BLOCKS = re.findall(r"^```(toml|json)\n(.*?)^```", _PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("syntax", "text"), _BLOCKS)
def test_an_example_loads(tmp_path: Path, syntax: str, text: str) -> None:
    path = tmp_path / f"example.{syntax}"
    path.write_text(text)
    if "[[group]]" in text:
        assert load_cluster(str(path))
    elif "[share]" in text:
        assert load_template(f"auto:{path}").classes
    else:
        assert load_functions(path)


def test_the_page_has_examples_of_every_format() -> None:
    assert len(_BLOCKS) >= 5


def test_every_shipped_profile_is_in_the_page() -> None:
    page = _PAGE.with_name("profiles.md").read_text()
    assert set(re.findall(r"^\| `([a-z-]+)`(?: \(default\))? \|", page, re.MULTILINE)) >= set(
        profile_names()
    )

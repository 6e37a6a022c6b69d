"""Functions made for the names of a trace."""

from collections import Counter
from pathlib import Path

import pytest

from inferx.core.errors import DescriptionError
from inferx.core.units import GIB
from inferx.spec.cluster import check_fit, load_cluster
from inferx.spec.template import auto_functions, load_template, template_names

_NAMES = [f"f{index}" for index in range(2_000)]


def test_each_name_gets_one_function_in_order() -> None:
    functions = auto_functions(_NAMES, seed=1, tenants={"f1": "acme"})
    assert [function.name for function in functions] == _NAMES
    assert (functions[0].tenant, functions[1].tenant) == ("default", "acme")
    assert {function.max_replica for function in functions} == {8}


def test_classes_are_drawn_by_share() -> None:
    template = load_template("auto")
    counts = Counter(f.weight_bytes for f in auto_functions(_NAMES, seed=3))
    assert sum(template.shares) == pytest.approx(1)
    for share, shape in zip(template.shares, template.classes, strict=True):
        # Four standard deviations of a binomial count.
        spread = 4 * (share * (1 - share) * len(_NAMES)) ** 0.5
        assert abs(counts[shape.weight_bytes] - share * len(_NAMES)) < spread


def test_a_function_keeps_its_class_when_the_trace_is_cut() -> None:
    whole = auto_functions(_NAMES[:50], seed=7)
    assert auto_functions(_NAMES[20:30], seed=7) == whole[20:30]
    assert auto_functions(_NAMES[:50], seed=7) == whole
    assert auto_functions(_NAMES[:50], seed=8) != whole


def test_a_draw_is_pinned() -> None:
    """The same seed means the same functions on every machine and in every release."""
    weights = [f.weight_bytes / GIB for f in auto_functions(_NAMES[:6], seed=1)]
    assert weights == pytest.approx([15, 6, 15, 15, 27.5, 2.3])


def test_shipped_templates_fit_the_machines_they_were_made_for() -> None:
    assert set(template_names()) == {
        "auto",
        "auto:7b",
        "auto:diffusion",
        "auto:large",
        "auto:small",
    }
    for template, cluster in {
        "auto": "g6e.12xlarge=1",
        "auto:large": "g6e.48xlarge=1",
        "auto:small": "g5.xlarge=1",
        "auto:7b": "g6.xlarge=1",
        "auto:diffusion": "g6.xlarge=1",
    }.items():
        classes = load_template(template).classes
        check_fit(classes, load_cluster(cluster))
        for shape in classes:
            assert shape.weight_bytes < shape.device_bytes < shape.gpus * shape.hbm_bytes
    assert {shape.slots for shape in load_template("auto:diffusion").classes} == {1}


def test_a_template_of_ones_own_mixes_shipped_and_new_classes(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[class.tiny]\nhbm_gib = 2\nslots = 4\n[share]\ntiny = 3\n8b = 1\n")
    template = load_template(f"auto:{path}")
    assert template.shares == (0.75, 0.25)
    assert [(shape.name, shape.slots) for shape in template.classes] == [("tiny", 4), ("8b", 32)]
    assert template.classes[0].max_replica == template.classes[1].max_replica == 8
    path.write_text("[defaults]\nmax_replica = 2\n" + path.read_text())
    assert [shape.max_replica for shape in load_template(f"auto:{path}").classes] == [2, 8]


@pytest.mark.parametrize(
    ("names", "template", "message"),
    [
        (["a", "a"], "auto", "function a: named twice"),
        (["a\n"], "auto", "function 'a\\\\n': a bad name"),
        ([""], "auto", "function '': a bad name"),
        (["a"], "auto:smal", r"auto:smal: an unknown template; .*did you mean auto:small\?"),
        (["a"], "auto:models", "an unknown template"),
        (["a"], "auto:/nowhere/x.toml", "/nowhere/x.toml: no such file"),
    ],
)
def test_bad_names_and_templates_are_told(names, template, message) -> None:
    with pytest.raises(DescriptionError, match=message):
        auto_functions(names, seed=1, template=template)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"1: share: nothing; expected the share of each class"),
        ("[share]\n9b = 1\n", r"2: share\.9b: an unknown class; expected one of 1b, .*8b"),
        ("[share]\n8b = 0\n", r"2: share\.8b: the number 0; expected a number"),
        ("[share]\n8b = 1\n[class.a]\nhbm_gb = 2\n", r"3: class\.a: no hbm; expected one of"),
        ("other = 1\n[share]\n8b = 1\n", r"1: other: an unknown key"),
    ],
)
def test_bad_templates_are_told_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(DescriptionError, match=rf"mine\.toml:{message}"):
        load_template(f"auto:{path}")

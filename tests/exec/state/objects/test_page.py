"""The page on objects says what is so."""

import re
from pathlib import Path

import msgspec
import pytest

from inferx.exec.state.objects import bodies
from inferx.exec.state.objects.envelope import parse_object
from inferx.exec.state.objects.errors import ObjectsError
from inferx.exec.state.objects.kinds import KINDS, LABELS_LIMIT, OBJECT_BYTES_LIMIT, checked
from inferx.exec.state.objects.status import told
from inferx.exec.state.store import StoreError
from inferx.spec.container import MOUNT_FILES_BYTES_LIMIT
from inferx.spec.reference import NAME_LIMIT

PAGE = (Path(__file__).parents[4] / "docs" / "objects.md").read_text()


def _rows(title: str) -> dict[str, str]:
    """Return the defaults of a table, by field."""
    table = re.search(rf"^\| `{title}` \| default .*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert table is not None
    rows: dict[str, str] = {}
    for names, default in re.findall(r"^\| (`.*?) \|(.*?)\|", table[0], re.MULTILINE):
        rows |= dict.fromkeys(re.findall(r"`([\w.]+)`", names), default.strip())
    rows.pop(title)
    return rows


def _fields(kind: type[msgspec.Struct], at: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(kind):
        default = (
            field.default_factory()
            if field.default is msgspec.NODEFAULT
            and (field.default_factory is not msgspec.NODEFAULT)
            else field.default
        )
        if isinstance(default, msgspec.Struct):
            found |= _fields(type(default), f"{at}{field.name}.")
        elif default is msgspec.NODEFAULT:
            found[f"{at}{field.name}"] = ""
        elif isinstance(default, bool):
            found[f"{at}{field.name}"] = str(default).lower()
        else:
            found[f"{at}{field.name}"] = str(default) if default not in ("", {}) else "none"
    return found


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("tenant", bodies.Tenant),
        ("namespace", bodies.Namespace),
        ("funcstatus", bodies.FunctionStatus),
        ("node_info", bodies.NodeInfo),
    ],
)
def test_every_field_is_in_the_page_with_its_default(
    title: str, kind: type[msgspec.Struct]
) -> None:
    assert _rows(title) == _fields(kind)


@pytest.mark.parametrize("text", re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_an_example_is_an_object(text: str) -> None:
    checked(parse_object(text, "objects.md"))


def test_the_page_has_every_type_bound_and_code() -> None:
    assert set(KINDS) <= set(re.findall(r"`(\w+)`", PAGE))
    for bound in (OBJECT_BYTES_LIMIT, MOUNT_FILES_BYTES_LIMIT, NAME_LIMIT, LABELS_LIMIT):
        assert f"{bound:,}" in PAGE
    for base in (ObjectsError, StoreError):
        for kind in (
            each for each in base.__subclasses__() if each.__module__.startswith("inferx")
        ):
            status = told(kind(""))
            assert status is not None
            assert f"`{status[0].name}`" in PAGE, kind

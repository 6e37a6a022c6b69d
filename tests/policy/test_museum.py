"""What every policy of the museum owes its reader."""

import importlib
import inspect
import pkgutil
import re
from dataclasses import fields

import pytest

from inferx.load import bundle_names, load_bundle, shipped_module
from inferx.policy.packing import rules
from inferx.sim import oracle
from studies.policies.catalogue import PAGE, WHOLE, catalogue, slot_of, source_of

PLACE = re.compile(
    r"\bpp?\. ?\d|\b(section|chapter|theorem|corollary|equations?|algorithm|figure|table) \d"
    r"|`[\w./-]+\.(py|go|rs|pod)`"
)
"""A page, a numbered part of a text, or a file of a repository."""
OF_ONE_SLOT = [name for name in bundle_names() if slot_of(name) != WHOLE]


@pytest.mark.parametrize("name", bundle_names())
def test_a_policy_cites_its_source_and_says_where_it_differs(name):
    said = inspect.getdoc(importlib.import_module(shipped_module(name)))
    if source_of(name) != "ours":
        assert "Differs:" in said or "Differs from" in said
    else:
        assert "ours" in said.lower() or name == "dedicated"


@pytest.mark.parametrize("name", [name for name in bundle_names() if source_of(name) != "ours"])
def test_a_source_names_the_place(name):
    assert PLACE.search(source_of(name))
    assert not re.search(r"\bpp?$", source_of(name)), "cut off before its page"


@pytest.mark.parametrize("name", sorted(rules()))
def test_the_source_of_a_packing_rule_names_the_place(name):
    source = re.search(r"Source: (.+)", inspect.getdoc(type(rules()[name]())), re.DOTALL).group(1)
    assert PLACE.search(source) or source.startswith("ours")


@pytest.mark.parametrize("name", [found.name for found in pkgutil.iter_modules(oracle.__path__)])
def test_the_source_of_an_oracle_names_the_place(name):
    said = inspect.getdoc(importlib.import_module(f"inferx.sim.oracle.{name}"))
    if "Source:" in said:
        assert PLACE.search(said.split("Source:")[1])


@pytest.mark.parametrize(
    ("cited", "place"),
    [
        ("Sleator and Tarjan, CACM 28(2), 1985, pp. 202-208", True),
        ("repository a/b at 1234567, `code/scheduler.py` (evict)", True),
        ("Johnson, MIT 1973", False),
        ("repository a/b, `code/scheduler`", False),
    ],
)
def test_a_place_is_told_from_a_mere_name(cited, place):
    assert bool(PLACE.search(cited)) == place


@pytest.mark.parametrize("name", OF_ONE_SLOT)
def test_a_policy_of_one_slot_replaces_that_slot_of_plain(name):
    made, plain = load_bundle(name), load_bundle("plain")
    slots = {field.name for field in fields(plain)}
    own = slot_of(name).replace("-", "_")
    assert own in slots
    changed = {slot for slot in slots if getattr(made, slot) != getattr(plain, slot)}
    # A cache is a keep-alive policy that evicts; one that waits or wakes routes by scaling.
    assert own in changed | {"keep_alive", "routing"}
    assert changed - {"name"}


def test_the_catalogue_lists_what_the_files_say():
    assert PAGE.read_text() == catalogue()

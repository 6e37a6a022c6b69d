"""What every policy of the museum owes its reader."""

import importlib
import inspect
from dataclasses import fields

import pytest

from inferx.load import bundle_names, load_bundle, shipped_module
from studies.policies.catalogue import PAGE, WHOLE, catalogue, slot_of, source_of

OF_ONE_SLOT = [name for name in bundle_names() if slot_of(name) != WHOLE]


@pytest.mark.parametrize("name", bundle_names())
def test_a_policy_cites_its_source_and_says_where_it_differs(name):
    said = inspect.getdoc(importlib.import_module(shipped_module(name)))
    if source_of(name) != "ours":
        assert "Differs:" in said or "Differs from" in said
    else:
        assert "ours" in said.lower() or name == "dedicated"


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

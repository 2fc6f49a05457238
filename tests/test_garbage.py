"""The collector is off while many objects are made, and does not look at them as new ones afterwards."""

from __future__ import annotations

import gc

import pytest

from graphprune.garbage import uncollected


@pytest.fixture(autouse=True)
def _collector() -> object:
    gc.enable()
    yield
    gc.unfreeze()
    gc.enable()


def test_what_was_made_is_old() -> None:
    with uncollected():
        assert not gc.isenabled()
        made = [[number] for number in range(1000)]
    assert gc.isenabled()
    old = set(map(id, gc.get_objects(generation=2)))
    assert all(id(each) in old for each in made)
    assert gc.get_freeze_count() == 0


def test_what_others_froze_stays_frozen() -> None:
    gc.freeze()
    count = gc.get_freeze_count()
    with uncollected():
        pass
    assert gc.get_freeze_count() == count > 0


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()

"""Python's collector of reference cycles, kept from looking where it cannot find any."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["rarely_collected", "uncollected"]

OFTEN_ENOUGH = 50_000, 20, 20
"""Thresholds as of :func:`gc.set_threshold`; with Python's own, up to a third of a run goes into collections."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Run without collections: for code that makes many objects, all of which stay.

    The more objects live, the longer a collection takes, and it is the making of objects that sets it off. Freezing
    and unfreezing moves all of them to the oldest generation: they are not looked at as new ones, all at once, either.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # what others have frozen stays so
            gc.freeze()
            gc.unfreeze()
        gc.enable()


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Run with fewer collections: for a process that makes large graphs and then ends."""
    before = gc.get_threshold()
    gc.set_threshold(*OFTEN_ENOUGH)
    try:
        yield
    finally:
        gc.set_threshold(*before)

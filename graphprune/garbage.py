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

    The more objects live, the longer a collection takes, and it is the making of objects that sets it off.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
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

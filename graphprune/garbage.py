"""Python's collector of reference cycles, kept from looking where it cannot find any."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uncollected"]


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

"""Signals that arrive while TVM runs are kept until it returns: its callbacks turn what is raised into other errors."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType

__all__ = ["deferred"]

KEPT = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Handle SIGINT and SIGTERM when the context ends; a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {number: signal.getsignal(number) for number in KEPT}

    def keep(number: int, frame: FrameType | None) -> None:
        if arrived:
            _restore(before)
            signal.raise_signal(number)
        arrived.append(number)

    for number, handler in before.items():
        if callable(handler):  # one that is ignored stays so, and the system's own ends the process anyway
            signal.signal(number, keep)
    try:
        yield
    finally:
        _restore(before)
        if arrived:
            signal.raise_signal(arrived[0])


def _restore(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type]

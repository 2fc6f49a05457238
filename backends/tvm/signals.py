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
    # One that is ignored stays so, the system's own ends the process anyway, and one of another language is not ours.
    handlers = {number: signal.getsignal(number) for number in KEPT}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}

    def keep(number: int, frame: FrameType | None) -> None:
        if arrived:
            _restore(before)
            signal.raise_signal(number)
        arrived.append(number)

    for number in before:
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

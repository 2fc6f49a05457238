"""ONNX Runtime's own tools without what they log, print and leave behind."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the converters' progress and advice off the terminal, and the caller's logging as it was.

    Importing some of them configures the root logger, which is the application's.
    """
    root = logging.getLogger()
    level, handlers = root.manager.disable, list(root.handlers)
    logging.disable(logging.ERROR)  # errors come as exceptions too
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.handlers[:] = handlers

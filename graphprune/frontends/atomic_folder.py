"""Folders that are written whole or not at all, and that never replace what is not ours."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from graphprune.errors import ModelError, UsageError

__all__ = ["check_foreign", "folder_draft"]

Foreign = Callable[[Path], str]
"""Says what in a folder is not ours to remove; nothing where it is empty or an older one of ours."""


@contextmanager
def folder_draft(
    folder: str | os.PathLike[str], *, foreign: Foreign, ours: Callable[[Path], Iterable[str]], manifest: str
) -> Iterator[Path]:
    """An empty folder to write to, whose files become those of ``folder`` if the context is left without an error.

    ``ours`` names the files of an older folder of this kind, which go. The folder itself stays: it may be a link or a
    mount. The ``manifest`` goes first and comes last: without it, a folder is not taken for one of ours.

    Raises:
        ModelError: it cannot be written.
        UsageError: ``folder`` exists and holds something else.
    """
    target = Path(os.path.realpath(folder))
    hidden = f".{target.name}-{secrets.token_hex(6)}"
    draft = target.parent / hidden
    try:
        check_foreign(folder, foreign)
        if there := target.exists():
            draft = target / hidden
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        yield draft
        if there:
            for name in ours(target):
                (target / name).unlink(missing_ok=True)
            for each in sorted(draft.iterdir(), key=lambda each: each.name == manifest):
                os.replace(each, target / each.name)
        else:
            os.replace(draft, target)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_foreign(folder: str | os.PathLike[str], foreign: Foreign) -> None:
    """Refuse a folder that holds something else.

    Raises:
        UsageError: it does.
    """
    target = Path(os.path.realpath(folder))
    if target.exists() and (reason := foreign(target)):
        raise UsageError(f"{folder}: {reason}; choose another name, or a folder of its own")

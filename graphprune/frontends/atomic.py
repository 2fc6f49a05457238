"""Files that get their names together, or never: an interrupted write leaves the folder as it was.

A file is written without a name (`O_TMPFILE`), so that even a killed process leaves nothing; where the file system
cannot do that, under a hidden name that is removed on every way out. It is synchronised before it is named.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

from graphprune.errors import ModelError

__all__ = ["AtomicFiles", "write_text"]


@dataclass(slots=True)
class Draft:
    """A file being written: the name it will get, and the hidden name it has, if any."""

    file: IO[bytes]
    target: Path
    hidden: Path | None


class AtomicFiles:
    """A context that opens files for one folder and names all of them at `commit`; leaving it otherwise drops them.

    Inside the context SIGTERM raises SystemExit, unless the program handles it itself.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drafts: list[Draft] = []
        self._aside: list[tuple[Path, Path]] = []
        self._named: list[Path] = []
        self._nameless = _supports_nameless(folder)
        self._guards = contextlib.ExitStack()

    def __enter__(self) -> AtomicFiles:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            previous = signal.signal(signal.SIGTERM, _terminate)
            self._guards.callback(signal.signal, signal.SIGTERM, previous)
        return self

    def open(self, name: str) -> IO[bytes]:
        """Return a new file that will be called `name`; its permissions follow the umask."""
        target = self._folder / name
        hidden = None if self._nameless else _hidden(target)
        flags = os.O_WRONLY | getattr(os, "O_BINARY", 0)
        if hidden is None:
            descriptor = os.open(self._folder, flags | os.O_TMPFILE, 0o666)
        else:
            descriptor = os.open(hidden, flags | os.O_CREAT | os.O_EXCL, 0o666)
        draft = Draft(os.fdopen(descriptor, "wb"), target, hidden)
        self._drafts.append(draft)
        return draft.file

    def commit(self) -> int:
        """Synchronise the files, name them in the order they were opened, and return their total size in bytes.

        Raises:
            OSError: nothing has changed in the folder.
        """
        total = 0
        for draft in self._drafts:
            draft.file.flush()
            os.fsync(draft.file.fileno())
            total += os.fstat(draft.file.fileno()).st_size
        for draft in self._drafts:
            if draft.hidden is None:
                hidden = _hidden(draft.target)
                _name(draft.file.fileno(), hidden)
                draft.hidden = hidden
            draft.file.close()
        for draft in self._drafts:
            assert draft.hidden is not None
            if len(self._drafts) > 1 and draft.target.exists():
                aside = _hidden(draft.target)
                self._aside.append((aside, draft.target))
                os.replace(draft.target, aside)
            self._named.append(draft.target)
            os.replace(draft.hidden, draft.target)
        self._named.clear()
        for aside, _ in self._aside:
            _remove(aside)
        self._aside.clear()
        _sync_folder(self._folder)
        return total

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guards:
            for draft in self._drafts:
                with contextlib.suppress(OSError):
                    draft.file.close()
                if draft.hidden is not None:
                    _remove(draft.hidden)
            for target in self._named:
                _remove(target)
            for aside, target in self._aside:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(aside, target)


def write_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write a text file whole or not at all.

    Raises:
        ModelError: it cannot be written.
    """
    target = Path(path)
    try:
        with AtomicFiles(target.parent) as files:
            files.open(target.name).write(text.encode())
            files.commit()
    except OSError as error:
        raise ModelError(f"{target}: cannot be written ({error.strerror or error})") from error


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _hidden(target: Path) -> Path:
    return target.with_name(f".graphprune-{secrets.token_hex(8)}")


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _name(descriptor: int, path: Path) -> None:
    """Give a nameless file a name; passing a folder descriptor is what makes `link` follow the /proc entry."""
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def _supports_nameless(folder: Path) -> bool:
    """Return whether files can be written without a name here and named later; tried, since file systems differ."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        descriptor = os.open(folder, os.O_WRONLY | os.O_TMPFILE, 0o600)
    except OSError:
        return False
    probe = _hidden(folder / "probe")
    try:
        _name(descriptor, probe)
    except OSError:
        return False
    finally:
        os.close(descriptor)
        _remove(probe)
    return True


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

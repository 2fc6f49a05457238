"""Reads ``.pt2`` files of ``torch.export.save``, and refuses those that would run code of their own when read.

Such a file is an archive: the graph is JSON and weights are bytes, but example inputs, and tensors of unusual kinds,
are pickles. ``torch.export.load`` unpickles them without restriction, so each of them has to pass PyTorch's restricted
unpickler first, and archives that hold other objects are not read at all.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from graphprune.errors import ModelError

__all__ = ["load_exported"]

_OBJECTS = ("custom_obj", "opaque_obj")


def load_exported(path: str | os.PathLike[str]) -> torch.export.ExportedProgram:
    """Read an exported program.

    Raises:
        ModelError: the file cannot be read, is no such archive, or holds pickled objects other than tensors.
    """
    name = os.fspath(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in _pickled(archive, name):
                _check(archive.read(entry), name, entry)
    except OSError as error:
        raise ModelError(f"{name}: the file cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        raise ModelError(
            f"{name}: not an archive of torch.export.save ({error}); write one with torch.export.save(program, path)"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(Path(path))
    except Exception as error:  # what the loader raises depends on what is broken
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{name}: torch.export.load cannot read it ({lines[0]})") from error


def _pickled(archive: zipfile.ZipFile, name: str) -> Iterator[str]:
    """The entries that the loader unpickles."""
    entries = archive.namelist()
    if not any(entry.endswith("archive_format") for entry in entries):
        raise ModelError(f"{name}: not an archive of torch.export.save; a checkpoint is loaded into its module first")
    for entry in entries:
        folder, _, file = entry.rpartition("/")
        if file.startswith(_OBJECTS):
            raise ModelError(
                f"{name}: '{entry}' is a pickled object, which is not loaded; export without script objects"
            )
        if folder.endswith("sample_inputs"):
            yield entry
        if file.endswith("_config.json"):
            tensors = json.loads(archive.read(entry)).get("config", {})
            for own in tensors.values():
                if own.get("use_pickle"):
                    yield f"{folder}/{own['path_name']}"


def _check(content: bytes, name: str, entry: str) -> None:
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(
            f"{name}: '{entry}' holds pickled objects other than tensors, which are not loaded; "
            "export with plain tensors as example inputs"
        ) from error

"""Reads ``.pt2`` files of ``torch.export.save``, and refuses those that would run code of their own when read.

Such a file is an archive: the graph is JSON and weights are bytes, but example inputs, and tensors of unusual kinds,
are pickles, and compiled libraries can lie beside them. ``torch.export.load`` unpickles without restriction, loads
libraries, evaluates text, and reads older archives that are pickles as a whole. So an archive may hold no entries but
those of one exported program, each pickle has to pass PyTorch's restricted unpickler first, and all text is checked
(see :mod:`~graphprune.frontends.torch_file_text`). Everything is read here through the reader that the loader uses, so
that both see the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from graphprune.errors import ModelError
from graphprune.frontends.torch_file_text import check_program

__all__ = ["load_exported"]

_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_PAYLOADS = {
    "data/weights/model_weights_config.json": re.compile(r"weight_[0-9]+"),
    "data/constants/model_constants_config.json": re.compile(r"tensor_[0-9]+"),
}
"""The lists of tensors, and the names of the entries that hold them."""

_PICKLED = (_SAMPLES, "data/weights/model.pt", "data/constants/model.pt")
"""Entries that are pickles as a whole; the last two are of older versions."""

_ENTRY = re.compile(
    r"archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id|\.format_version|"
    r"\.storage_alignment|models/model\.json|data/sample_inputs/model\.pt|data/weights/model(_weights_config\.json|\.pt)|"
    r"data/weights/weight_[0-9]+|data/constants/model(_constants_config\.json|\.pt)|data/constants/tensor_[0-9]+|"
    r"extra/[^/].*"
)
_OBJECTS = ("data/constants/custom_obj", "data/constants/opaque_obj")


def load_exported(path: str | os.PathLike[str]) -> torch.export.ExportedProgram:
    """Read an exported program.

    Raises:
        ModelError: the file cannot be read, is no such archive, or holds anything that reading it would run.
    """
    name = os.fspath(path)
    try:
        _check(Path(path))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None
    except OSError as error:
        raise ModelError(f"{name}: the file cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"{name}: not an archive of torch.export.save ({lines[0]}); write one with torch.export.save(program, path)"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(Path(path))
    except Exception as error:  # what the loader raises depends on what is broken
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{name}: torch.export.load cannot read it ({lines[0]})") from error


def _check(path: Path) -> None:
    """Pass an archive, or refuse it.

    Raises:
        ModelError: says what in it is not allowed.
    """
    with zipfile.ZipFile(path) as archive:
        listed = archive.namelist()
    roots = {entry.partition("/")[0] for entry in listed}
    entries = [entry.partition("/")[2] for entry in listed]
    if len(roots) != 1 or "archive_format" not in entries or "archive_version" not in entries:
        raise ModelError("not an archive of torch.export.save; a checkpoint is loaded into its module first")
    if len({entry.lower() for entry in entries}) != len(entries):
        raise ModelError("two of its entries have the same name")
    for entry in entries:
        if entry.startswith(_OBJECTS):
            raise ModelError(f"'{entry}' is a pickled object, which is not loaded; export without script objects")
        if entry.startswith("data/aotinductor/"):
            raise ModelError(f"'{entry}' is compiled code, which is not loaded; save the exported program alone")
        if not _ENTRY.fullmatch(entry):
            raise ModelError(f"'{entry}' is no part of an exported program that torch.export.save writes")
    reader = torch._C.PyTorchFileReader(str(path))
    if sorted(reader.get_all_records()) != sorted(entries):
        raise ModelError("its entries are not told apart in the same way by all who read it")
    check_program(json.loads(_read(reader, _MODEL)))
    for entry in _pickled(reader, set(entries)):
        _check_pickle(_read(reader, entry), entry)


def _read(reader: Any, entry: str) -> bytes:
    found = reader.get_record(entry)
    assert isinstance(found, bytes)
    return found


def _pickled(reader: Any, entries: set[str]) -> Iterator[str]:
    """The entries that the loader unpickles."""
    yield from (entry for entry in _PICKLED if entry in entries)
    for config, pattern in _PAYLOADS.items():
        if config not in entries:
            continue
        for tensor in json.loads(_read(reader, config))["config"].values():
            file = tensor["path_name"]
            if not isinstance(file, str) or not pattern.fullmatch(file):
                raise ModelError(f"'{config}' names an entry that holds no tensor")
            if tensor["use_pickle"]:
                yield f"{config.rpartition('/')[0]}/{file}"


def _check_pickle(content: bytes, entry: str) -> None:
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # what the unpickler raises depends on what it was about to make
        raise ModelError(
            f"'{entry}' holds pickled objects other than tensors, which are not loaded; "
            "export with plain tensors as example inputs"
        ) from error

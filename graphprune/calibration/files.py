"""Calibration data as files: arrays of NumPy, folders of them or of pictures, lists of labels; nothing is unpickled."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from graphprune.calibration.images import SUFFIXES, image_array, image_side
from graphprune.calibration.pieces import LABELS, Array, Piece, as_array, pieces_of
from graphprune.calibration.preprocess import PRESETS, Preprocess
from graphprune.calibration.slots import Slot, is_image
from graphprune.errors import ModelError, UsageError

__all__ = ["Labels", "file_pieces", "folder_pieces", "read_labels"]

MEMORY = 4 << 30
"""Bytes of pictures that are held at once."""

Labels: TypeAlias = Array | Mapping[str, int]
"""One label a sample, or a label by the name of a file or folder."""


def read_labels(source: Any) -> Labels | str | None:
    """Labels from an array, a list of numbers, ``.npy``, ``.npz``, or a text of lines ``label`` or ``name label``.

    Text that names no file is the name of an array in an ``.npz``, and comes back as it is.

    Raises:
        ModelError: the file cannot be read.
        UsageError: it holds no labels.
    """
    if source is None:
        return None
    if not isinstance(source, str | os.PathLike):
        return as_array(source, "labels")
    path = Path(source)
    if not path.exists() and not path.suffix:
        return str(source)
    if path.suffix in (".npy", ".npz"):
        arrays = read_arrays(path)
        name = next((name for name in ("", *LABELS) if name in arrays), next(iter(arrays)))
        if len(arrays) > 1 and name not in LABELS:
            raise UsageError(f"{path}: holds {', '.join(arrays)}, and no array called labels")
        return arrays[name]
    return _text_labels(path)


def _text_labels(path: Path) -> Labels:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: labels cannot be read ({error})") from None
    delimiter = "," if "," in text else "\t" if "\t" in text else " "
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(cell.strip() for cell in row)]
    named: dict[str, int] = {}
    numbers: list[int] = []
    for line, row in enumerate(rows, 1):
        *names, label = [cell.strip() for cell in row if cell.strip()]
        try:
            number = int(label)
        except ValueError:
            if line == 1:
                continue  # a heading
            raise UsageError(f"{path}: line {line} ends with '{label}', which is no whole number") from None
        if names:
            named[delimiter.join(names)] = number
        else:
            numbers.append(number)
    if bool(named) == bool(numbers):
        raise UsageError(f"{path}: holds no labels; write lines of 'label', or of 'file label' or 'folder label'")
    return named or np.asarray(numbers)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` by name, or that of an ``.npy`` under an empty name.

    Raises:
        ModelError: the file cannot be read, is damaged, or holds pickled objects.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            arrays = {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        reason = "it holds pickled objects, which are never loaded" if "allow_pickle" in str(error) else str(error)
        raise ModelError(f"{path}: cannot be read as NumPy's .npy or .npz ({reason}); write it with np.savez") from None
    if not arrays:
        raise ModelError(f"{path}: holds no arrays; write it with np.savez(path, {'{input}'}=array)")
    return arrays


def file_pieces(
    path: Path, slots: Sequence[Slot], preprocess: Preprocess | None, labels: Labels | str | None = None
) -> list[Piece]:
    """What an ``.npz`` or ``.npy`` holds.

    Raises:
        ModelError, UsageError: it cannot be read, or does not fit the model.
    """
    arrays = read_arrays(path)
    own: Any = labels
    if isinstance(labels, str):
        if labels not in arrays:
            raise UsageError(f"{path}: holds no array '{labels}' for the labels; it holds {', '.join(arrays)}")
        own = arrays.pop(labels)
    elif isinstance(labels, Mapping):
        raise UsageError("labels by name are for folders; give one label a sample")
    return pieces_of(arrays, slots, str(path), preprocess, own)


def folder_pieces(
    folder: Path,
    slots: Sequence[Slot],
    preprocess: Preprocess | None,
    labels: Labels | str | None,
    limit: int | None,
    seed: int,
) -> tuple[list[Piece], tuple[str, ...]]:
    """The pieces of a folder of pictures or of arrays, drawn by ``seed``, and what is to be said about them.

    Pictures in folders of their own have these as labels: whole numbers where all of them are, else their order.

    Raises:
        ModelError, UsageError: it has no such files, one cannot be read, or they do not fit the model.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
    arrays = [file for file in files if file.suffix in (".npy", ".npz")]
    if bool(pictures) == bool(arrays):
        held = "both pictures and arrays" if pictures else "neither pictures nor .npy or .npz files"
        raise UsageError(f"{folder}: holds {held}; name a folder of either")
    found = pictures or arrays
    marks, notes = _file_labels(folder, found, labels)
    order = np.random.default_rng(seed).permutation(len(found))
    if pictures:
        order = order[:limit]
        pieces, said = _pictures([found[index] for index in order], slots, preprocess)
        if marks is not None:
            pieces = [
                Piece(piece.inputs, marks[index : index + 1], 1) for piece, index in zip(pieces, order, strict=True)
            ]
        return pieces, (*notes, *said)
    loaded: list[Piece] = []
    for index in order:
        mark = None if marks is None else marks[index]
        loaded += pieces_of(read_arrays(found[index]), slots, str(found[index]), preprocess, mark)
        if limit is not None and sum(piece.samples for piece in loaded) >= limit:
            break
    return loaded, notes


def _pictures(
    files: list[Path], slots: Sequence[Slot], preprocess: Preprocess | None
) -> tuple[list[Piece], tuple[str, ...]]:
    if len(slots) > 1 or not is_image(slots[0].spec):
        said = ", ".join(f"'{slot.name}'" for slot in slots)
        raise UsageError(
            f"{files[0].parent}: pictures feed a model of one image input; this one takes {said}: give .npz"
        )
    slot, chosen = slots[0], preprocess or PRESETS["unit"]
    size = image_side(slot, files, chosen)
    first = image_array(files[0], slot, size, chosen)
    if first.nbytes * len(files) > MEMORY:
        raise UsageError(
            f"{files[0].parent}: {len(files)} pictures take {first.nbytes * len(files) / 2**30:.1f} GiB of memory; "
            f"set a limit of at most {MEMORY // first.nbytes} samples"
        )
    notes: tuple[str, ...] = ()
    if preprocess is None and slot.spec.dtype.kind != "u":
        notes = ("pixels are scaled to 0..1 because no preprocessing is given; most networks need theirs (imagenet)",)
    pieces: list[Piece] = []
    for file in files:
        array = first if file == files[0] else image_array(file, slot, size, chosen)
        pieces += pieces_of({slot.name: array}, slots, str(file), None)
    return pieces, notes


def _file_labels(folder: Path, files: list[Path], labels: Labels | str | None) -> tuple[Array | None, tuple[str, ...]]:
    """A label for each file, and a note where they were told from the order of names."""
    if isinstance(labels, str):
        raise UsageError(f"{labels}: no such file of labels")
    if isinstance(labels, Mapping):
        return np.asarray([_label(file, folder, labels) for file in files]), ()
    if labels is not None:
        if len(labels) != len(files):
            raise UsageError(f"{folder}: there are {len(labels)} labels for {len(files)} files; give one each, by name")
        return labels, ()
    names = [file.parent.name for file in files]
    classes = sorted(set(names))
    if any(file.parent == folder for file in files) or len(classes) < 2:
        return None, ()
    if all(name.isdecimal() for name in classes):
        return np.asarray([int(name) for name in names]), ()
    note = f"classes are numbered 0 to {len(classes) - 1} in the order of the folders' names; if not so, give labels"
    return np.asarray([classes.index(name) for name in names]), (note,)


def _label(file: Path, folder: Path, labels: Mapping[str, int]) -> int:
    for name in _names(file, folder):
        if name in labels:
            return labels[name]
    raise UsageError(f"{file}: has no label; add a line '{file.name} LABEL' to the labels")


def _names(file: Path, folder: Path) -> Iterator[str]:
    yield file.relative_to(folder).as_posix()
    yield file.name
    yield file.stem
    yield file.parent.name

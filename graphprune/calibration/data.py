"""The inputs that a model is calibrated and measured on, from whatever the user has.

>>> import numpy as np
>>> from graphprune.sample_inputs import InputSpec
>>> spec = InputSpec("x", np.dtype("float32"), ("batch", 3))
>>> batches = load_batches(np.ones((40, 3)), [spec], batch=16)
>>> [feed["x"].shape for feed in batches.feeds], batches.samples
([(16, 3), (16, 3), (8, 3)], 40)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.calibration.files import Labels, file_pieces, folder_pieces, read_labels
from graphprune.calibration.pieces import Array, Piece, as_array, batches_of, pieces_of
from graphprune.calibration.preprocess import Preprocess, parse_preprocess
from graphprune.calibration.slots import Slot, slots_of
from graphprune.calibration.synthetic import synthetic_pieces
from graphprune.errors import ModelError, UsageError
from graphprune.frontends.program import is_torch
from graphprune.sample_inputs import Inputs
from graphprune.text import counted

__all__ = ["SYNTHETIC", "Batches", "Data", "load_batches"]

SYNTHETIC = "synthetic"
"""The source of whoever has no data."""
SYNTHETIC_SAMPLES = 64
BATCH = 16


@dataclass(frozen=True)
class Batches:
    """Feeds, one a batch: ``{input name: array}`` for ONNX, the tuple of arguments for PyTorch; and labels, if any.

    ``synthetic`` tells that the inputs were made up, ``source`` where they come from, ``counts`` how many samples each
    batch has, and ``notes`` what a report must say.
    """

    feeds: list[Any]
    targets: list[Array] | None = None
    synthetic: bool = False
    source: str = ""
    samples: int = 0
    notes: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.feeds)

    @property
    def summary(self) -> str:
        """One line about where they come from and how many there are."""
        labels = ", with labels" if self.targets is not None else ""
        size = max(self.counts, default=0)
        return f"{counted(self.samples, 'sample')} from {self.source} in batches of {size}{labels}"

    def digest(self) -> str:
        """The SHA-256, in hexadecimal, of all inputs and labels."""
        digest = hashlib.sha256()
        for value in (*_leaves(self.feeds), *(self.targets or ())):
            array = np.asarray(as_array(value, self.source)) if hasattr(value, "shape") else np.asarray(repr(value))
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def part(self, which: Sequence[int]) -> Batches:
        """The batches with these numbers."""
        counts = tuple(self.counts[number] for number in which) if self.counts else ()
        targets = None if self.targets is None else [self.targets[number] for number in which]
        feeds = [self.feeds[number] for number in which]
        return replace(self, feeds=feeds, targets=targets, samples=sum(counts), counts=counts)

    def to_dict(self) -> dict[str, Any]:
        """What a report says of them, as JSON types."""
        return {
            "source": self.source,
            "samples": self.samples,
            "batches": len(self),
            "labels": self.targets is not None,
            "synthetic": self.synthetic,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Data:
    """Where inputs come from and how they are read, for a model that is not known yet; see :func:`load_batches`."""

    source: Any
    limit: int | None = None
    batch: int = BATCH
    labels: Any = None
    preprocess: Preprocess | str | None = None

    def load(self, host: Any, seed: int = 0, dims: Mapping[str, int] | None = None) -> Batches:
        """The batches for ``host``."""
        return load_batches(
            self.source,
            host,
            limit=self.limit,
            batch=self.batch,
            seed=seed,
            labels=self.labels,
            preprocess=self.preprocess,
            dims=dims,
        )


def load_batches(
    source: Any,
    host: Any,
    *,
    limit: int | None = None,
    batch: int = BATCH,
    seed: int = 0,
    labels: Any = None,
    preprocess: Preprocess | str | None = None,
    dims: Mapping[str, int] | None = None,
) -> Batches:
    """What ``source`` holds, checked against the inputs of ``host`` and cut to its batch size.

    Samples of files and arrays come in an order that ``seed`` draws, so that any part of them stands for all; those of
    an iterable come as they are.

    Args:
        source: an ``.npz`` (arrays by input name; one called ``labels``, ``targets`` or ``y`` has the labels), an
            ``.npy``, a folder of pictures or of such files, an array, a mapping of arrays, an iterable of arrays,
            mappings or tuples (the label last), such as a ``DataLoader``, or ``"synthetic"``; a :class:`Data` brings
            its own options along, and :class:`Batches` are what they are.
        host: an ``onnx_ir.Model``, a ``TorchProgram``, or a list of ``InputSpec``.
        limit: how many samples at most.
        batch: the batch size where the model leaves it open.
        seed: of the order, and of synthetic inputs.
        labels: labels of their own: an array or a file (:func:`~graphprune.calibration.files.read_labels`).
        preprocess: how pixels become inputs (:mod:`~graphprune.calibration.preprocess`); applied to pictures (by
            default scaled to 0..1), and where given to arrays of image inputs too.
        dims: sizes of symbolic dimensions by name.

    Raises:
        ModelError: a file cannot be read.
        UsageError: the data do not fit the model, or there are none.
    """
    if isinstance(source, Batches):
        return source
    if isinstance(source, Data):
        return source.load(host, seed, dims)
    if batch < 1 or (limit is not None and limit < 1):
        raise UsageError(f"batch and limit must be at least 1, not {min(batch, limit or batch)}")
    slots = slots_of(host, dims)
    how = parse_preprocess(preprocess) if isinstance(preprocess, str) else preprocess
    synthetic = isinstance(source, str) and source == SYNTHETIC and not Path(source).exists()
    marks = read_labels(labels)
    if synthetic:
        if marks is not None:
            raise UsageError("synthetic inputs have no labels; give data, or leave the labels out")
        pieces = synthetic_pieces(slots, limit or SYNTHETIC_SAMPLES, batch, seed, how, dims or {}, _runner(host))
        notes: tuple[str, ...] = (
            "SYNTHETIC calibration inputs (made up, not data): figures on them say little about the model on its data",
        )
        name = f"{SYNTHETIC} noise"
    else:
        pieces, notes, name = _pieces(source, slots, how, marks, limit, seed)
        pieces = _limited(pieces, slots, limit)
    made, left = batches_of(pieces, slots, batch)
    if left:
        notes = (*notes, f"{counted(left, 'sample')} left out: the model takes batches of exactly {made[0].samples}")
    feeds: list[Any] = [piece.inputs for piece in made]
    if is_torch(host):
        from graphprune.calibration.torch_feeds import torch_feeds

        feeds = torch_feeds(host, feeds)
    targets = [piece.labels for piece in made if piece.labels is not None]
    if targets and len(targets) < len(made):
        raise UsageError(f"{name}: some samples have labels and others have none; give all of them labels")
    counts = tuple(piece.samples for piece in made)
    return Batches(feeds, targets or None, synthetic, name, sum(counts), notes, counts)


def _runner(host: Any) -> Callable[[Inputs], object] | None:
    """What runs an ONNX model once, made when it is first called."""
    if not isinstance(host, ir.Model):
        return None
    made: list[Any] = []

    def run(inputs: Inputs) -> object:
        from graphprune.backends.onnxruntime import session

        if not made:
            made.append(session(host))
        return made[0].run(None, inputs)

    return run


def _pieces(
    source: Any,
    slots: Sequence[Slot],
    how: Preprocess | None,
    labels: Labels | str | None,
    limit: int | None,
    seed: int,
) -> tuple[list[Piece], tuple[str, ...], str]:
    """The pieces of any source but a synthetic one, notes, and what the source is called."""
    notes: tuple[str, ...] = ()
    if isinstance(source, str | os.PathLike):
        path, name = Path(source), str(source)
        if path.is_dir():
            pieces, notes = folder_pieces(path, slots, how, labels, limit, seed)
            return pieces, notes, name
        if not path.exists():
            raise ModelError(f"{path}: no such file or folder of calibration inputs (or give 'synthetic')")
        if path.suffix.lower() not in (".npz", ".npy"):
            raise UsageError(f"{path}: calibration inputs are an .npz, an .npy or a folder of pictures or of those")
        pieces = file_pieces(path, slots, how, labels)
    elif isinstance(source, Mapping) or hasattr(source, "ndim"):
        name = "arrays"
        arrays = source if isinstance(source, Mapping) else {slots[0].name: source}
        if isinstance(labels, str):
            labels = as_array(arrays[labels], "labels") if labels in arrays else None
        pieces = pieces_of(arrays, slots, name, how, labels)
    elif isinstance(source, Iterable):
        return _items(source, slots, how, labels, limit), notes, type(source).__name__
    else:
        raise UsageError(f"a {type(source).__name__} gives no calibration inputs: give arrays, an iterable or a path")
    return _shuffled(pieces, slots, seed), notes, name


def _items(
    source: Iterable[Any], slots: Sequence[Slot], how: Preprocess | None, labels: Labels | str | None, limit: int | None
) -> list[Piece]:
    """What the items of an iterable hold, up to ``limit`` samples."""
    if labels is not None:
        raise UsageError("an iterable brings its labels along: let each item be (inputs, labels)")
    pieces: list[Piece] = []
    samples = 0
    for number, item in enumerate(source):
        where = f"item {number}"
        mark: Any = None
        if isinstance(item, Mapping):
            arrays = dict(item)
        elif isinstance(item, tuple | list) and len(item) in (len(slots), len(slots) + 1) and hasattr(item[0], "shape"):
            arrays = {slot.name: value for slot, value in zip(slots, item, strict=False)}
            mark = item[-1] if len(item) > len(slots) else None
        elif isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Mapping):
            arrays, mark = dict(item[0]), item[1]
        elif len(slots) == 1:
            arrays = {slots[0].name: item}
        else:
            names = ", ".join(slot.name for slot in slots)
            raise UsageError(f"{where}: give a mapping or a tuple of {names}, with labels last where there are any")
        found = pieces_of(arrays, slots, where, how, mark)
        pieces += found
        samples += sum(piece.samples for piece in found)
        if limit is not None and samples >= limit:
            break
    if not pieces:
        raise UsageError("the iterable of calibration inputs is empty; give at least one sample")
    return pieces


def _shuffled(pieces: list[Piece], slots: Sequence[Slot], seed: int) -> list[Piece]:
    generator = np.random.default_rng(seed)
    if len(pieces) > 1:
        return [pieces[index] for index in generator.permutation(len(pieces))]
    if all(slot.axis is None for slot in slots):
        return pieces
    return [piece.take(slots, generator.permutation(piece.samples)) for piece in pieces]


def _limited(pieces: list[Piece], slots: Sequence[Slot], limit: int | None) -> list[Piece]:
    """The first ``limit`` samples."""
    kept: list[Piece] = []
    room = limit
    for piece in pieces:
        if room is None:
            kept.append(piece)
            continue
        if room <= 0:
            break
        batched = any(slot.axis is not None for slot in slots)
        kept.append(piece.take(slots, slice(0, room)) if batched and piece.samples > room else piece)
        room -= kept[-1].samples
    return kept


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [leaf for name in value for leaf in _leaves(value[name])]
    if isinstance(value, list | tuple):
        return [leaf for each in value for leaf in _leaves(each)]
    return [value]

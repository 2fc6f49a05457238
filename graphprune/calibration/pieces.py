"""Samples on their way from where the user has them to what a model is fed with: checked, cut to batches.

A *piece* is what one file or one item of an iterable holds: for each input an array whose batch dimension counts
samples, and perhaps labels. Pieces of equal shapes are joined and cut to the batch size; others stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.calibration.preprocess import Preprocess
from graphprune.calibration.slots import Slot, channel_axis, is_image
from graphprune.errors import UsageError
from graphprune.sample_inputs import Inputs, InputSpec

__all__ = ["LABELS", "Array", "Piece", "as_array", "batches_of", "conform", "labels_of", "pieces_of"]

Array: TypeAlias = npt.NDArray[Any]

LABELS = ("labels", "label", "targets", "target", "y")
"""What arrays of labels are called, where no input has that name."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Arrays by input, and one label a sample or None."""

    inputs: Inputs
    labels: Array | None
    samples: int

    def take(self, slots: Sequence[Slot], chosen: Any) -> Piece:
        """The ``chosen`` samples (a slice or indices) of it."""
        cut = {
            slot.name: self.inputs[slot.name] if slot.axis is None else _take(self.inputs[slot.name], chosen, slot.axis)
            for slot in slots
        }
        labels = None if self.labels is None else self.labels[chosen]
        return Piece(cut, labels, len(range(self.samples)[chosen]) if isinstance(chosen, slice) else len(chosen))


def as_array(value: Any, where: str) -> Array:
    """An array of what NumPy or PyTorch has, or of numbers.

    Raises:
        UsageError: it holds anything but numbers.
    """
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        value = tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise UsageError(f"{where}: is no array of numbers ({error})") from None
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{where}: holds {array.dtype}, which is no array of numbers; give arrays of numbers")
    return array


def pieces_of(
    arrays: Mapping[str, Any], slots: Sequence[Slot], where: str, preprocess: Preprocess | None, labels: Any = None
) -> list[Piece]:
    """The pieces that arrays by name hold: one, or one for each index of a dimension that the model does not have.

    An array without the batch dimension is one sample.

    Raises:
        UsageError: names, shapes or types do not fit the model, or a value is not finite.
    """
    names = [slot.name for slot in slots]
    given = dict(arrays)
    if labels is None:
        labels = next((given.pop(name) for name in LABELS if name in given and name not in names), None)
    if len(slots) == 1 and len(given) == 1 and names[0] not in given:
        given = {names[0]: next(iter(given.values()))}
    for name in given:
        if name not in names:
            raise UsageError(f"{where}: the model has no input '{name}'; its inputs are {', '.join(names)}")
    missing = [name for name in names if name not in given]
    if missing:
        raise UsageError(f"{where}: input '{missing[0]}' is missing; give an array for each of {', '.join(names)}")
    arrays = {name: as_array(given[name], f"{where}: input '{name}'") for name in names}
    labels = None if labels is None else as_array(labels, f"{where}: labels")
    deep = [slot.name for slot in slots if arrays[slot.name].ndim == len(slot.spec.dims) + 1]
    if deep and all(name in deep for name in names):
        count = min(len(arrays[name]) for name in names)
        return [
            _piece(
                {name: array[index] for name, array in arrays.items()},
                slots,
                f"{where}, item {index}",
                preprocess,
                None if labels is None else labels[index],
            )
            for index in range(count)
        ]
    return [_piece(arrays, slots, where, preprocess, labels)]


def _piece(
    arrays: Mapping[str, Array], slots: Sequence[Slot], where: str, preprocess: Preprocess | None, labels: Array | None
) -> Piece:
    inputs: Inputs = {}
    counts: dict[str, int] = {}
    for slot in slots:
        array, axis = arrays[slot.name], slot.axis
        if axis is not None and array.ndim == len(slot.spec.dims) - 1:
            array = np.expand_dims(array, axis)
        inputs[slot.name] = conform(array, slot, f"{where}: input '{slot.name}'", preprocess)
        if axis is not None:
            counts[slot.name] = array.shape[axis]
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{count} of '{name}'" for name, count in counts.items())
        raise UsageError(f"{where}: inputs have different numbers of samples ({said}); give one row of each a sample")
    samples = next(iter(counts.values()), 1)
    if not samples:
        raise UsageError(f"{where}: holds no samples; give at least one")
    if labels is not None:
        labels = labels_of(labels, samples, where) if counts else labels[None]
    return Piece(inputs, labels, samples)


def labels_of(labels: Array, samples: int, where: str) -> Array:
    """Labels with one row a sample.

    Raises:
        UsageError: there are more or fewer.
    """
    rows = labels.reshape(1, *labels.shape) if samples == 1 and labels.shape[:1] != (1,) else labels
    if rows.shape[:1] != (samples,):
        raise UsageError(f"{where}: there are {len(np.atleast_1d(labels))} labels for {samples} samples; give one each")
    return rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows


def conform(array: Array, slot: Slot, where: str, preprocess: Preprocess | None = None) -> Array:
    """An array of the type that the input has, of a shape that it takes.

    Images are put through ``preprocess`` where it is given.

    Raises:
        UsageError: the shape is not the model's, a value is not finite, or cannot be had in the model's type.
    """
    spec = slot.spec
    _check_shape(array, slot, where)
    if preprocess is not None and is_image(spec) and spec.dtype.kind != "u":
        array = preprocess.apply(array, channel_axis(spec, preprocess.layout))
    elif array.dtype == np.uint8 and is_image(spec) and spec.dtype.kind != "u":
        raise UsageError(
            f"{where}: holds pixels (uint8) and the model takes {spec.dtype}; say how they become numbers: "
            "--preprocess imagenet, unit, symmetric or raw"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        held = "NaN" if np.isnan(array).any() else "infinity"
        raise UsageError(f"{where}: holds {held}; leave such samples out, or mend them")
    if array.dtype == spec.dtype:
        return array
    if spec.dtype.kind in "iub" and array.dtype.kind in "iubf":
        cast = array.astype(spec.dtype)
        if not np.array_equal(cast.astype(np.float64), array.astype(np.float64)):
            raise UsageError(f"{where}: holds {array.dtype} values that {spec.dtype} cannot have; give it {spec.dtype}")
        return cast
    with np.errstate(over="ignore"):
        cast = array.astype(spec.dtype)
    if not np.isfinite(cast.astype(np.float32)).all():
        raise UsageError(f"{where}: holds values too large for {spec.dtype}; scale them")
    return cast


def _check_shape(array: Array, slot: Slot, where: str) -> None:
    dims = slot.spec.dims
    fits = array.ndim == len(dims) and all(
        position == slot.axis or not isinstance(dim, int) or size == dim
        for position, (size, dim) in enumerate(zip(array.shape, dims, strict=False))
    )
    if fits:
        return
    hint = "give arrays of that shape"
    if array.ndim == len(dims) == 4:
        for order, name in (((0, 3, 1, 2), "after"), ((0, 2, 3, 1), "before")):
            moved = [array.shape[axis] for axis in order]
            if all(not isinstance(dim, int) or size == dim for size, dim in list(zip(moved, dims, strict=True))[1:]):
                hint = f"the channels come {name} height and width: array.transpose{order} puts them right"
    wanted = _shape_text(slot.spec, slot.axis)
    raise UsageError(f"{where}: has shape {_sizes(array.shape)}, and the model takes {wanted}; {hint}")


def _shape_text(spec: InputSpec, axis: int | None) -> str:
    words = ["samples" if place == axis else "any" if dim is None else str(dim) for place, dim in enumerate(spec.dims)]
    return "x".join(words) or "a scalar"


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "of a scalar"


def _take(array: Array, chosen: Any, axis: int) -> Array:
    if isinstance(chosen, slice):
        return array[(slice(None),) * axis + (chosen,)]
    taken: Array = np.take(array, chosen, axis)
    return taken


def batches_of(pieces: Iterable[Piece], slots: Sequence[Slot], batch: int) -> tuple[list[Piece], int]:
    """Pieces of ``batch`` samples, or of as many as the model insists on, and how many samples that left over.

    Raises:
        UsageError: no batch of the model's size can be filled.
    """
    fixed = next((slot.fixed for slot in slots if slot.fixed is not None), None)
    if all(slot.axis is None for slot in slots):
        return list(pieces), 0
    alike: dict[Any, list[Piece]] = {}
    for piece in pieces:
        alike.setdefault(_likeness(piece, slots), []).append(piece)
    made: list[Piece] = []
    left = 0
    size = batch if fixed is None else fixed
    for group in alike.values():
        whole = group[0] if len(group) == 1 else _joined(group, slots)
        for start in range(0, whole.samples, size):
            part = whole.take(slots, slice(start, min(start + size, whole.samples)))
            if fixed is not None and part.samples < fixed:
                left += part.samples
            else:
                made.append(part)
    if not made and left:
        raise UsageError(
            f"the model takes batches of exactly {fixed} samples, and {left} are given; give {fixed} or more"
        )
    return made, left


def _likeness(piece: Piece, slots: Sequence[Slot]) -> Any:
    """What pieces must have in common to be joined."""
    shapes = tuple(
        (slot.name, piece.inputs[slot.name].tobytes())
        if slot.axis is None
        else (slot.name, *np.delete(piece.inputs[slot.name].shape, slot.axis).tolist())
        for slot in slots
    )
    return shapes, None if piece.labels is None else piece.labels.shape[1:]


def _joined(pieces: Sequence[Piece], slots: Sequence[Slot]) -> Piece:
    inputs = {
        slot.name: pieces[0].inputs[slot.name]
        if slot.axis is None
        else np.concatenate([piece.inputs[slot.name] for piece in pieces], slot.axis)
        for slot in slots
    }
    labels = [piece.labels for piece in pieces if piece.labels is not None]
    return Piece(inputs, np.concatenate(labels) if labels else None, sum(piece.samples for piece in pieces))

"""Lossless: remove what makes no difference, whatever the input: dead, constant, unread and duplicate positions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.axes import Leaf
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_slice import slice_model
from graphprune.occupancy import indispensable
from graphprune.passes.base import Context, Decision, Pass, Report, register
from graphprune.passes.lossless_edit import ColumnSums, fold_constants_into_biases
from graphprune.passes.lossless_facts import Labels, number, rows
from graphprune.passes.lossless_reading import Reading, Sweep
from graphprune.score.positions import Positions
from graphprune.selection import Mask, Occurrence, Selection, occurrences
from graphprune.structure import Group, Structure

__all__ = ["Lossless"]


@register
@dataclass(frozen=True)
class Lossless(Pass):
    """Remove positions that are unread, constant or equal to another, without data and without changing the outputs.

    A position goes where every sum over it multiplies it by zero, or where it is one number for all inputs, which
    moves into the biases behind; of ``duplicates`` (and of constants that padding keeps out of a bias) one stays and
    takes over the columns of the others. Outputs change by rounding at most, and not even that where only zeros were
    removed. Half-precision and quantised weights are never changed, only cut. Weights of more than ``max_bytes`` are
    not looked at. Inputs are taken to be finite.
    """

    duplicates: bool = True
    constants: bool = True
    max_bytes: int = 1 << 29

    requires: ClassVar[tuple[str, ...]] = ("canonicalize",)

    def run(self, model: ir.Model, context: Context) -> Report:
        """Cut until nothing more can go: what one layer loses can be all that another was read by."""
        before = model.clone()
        counts: Counter[str] = Counter()
        first: tuple[Structure, Selection] | None = None
        unread: set[str] = set()
        while True:
            with context.clock("lossless"):
                step = _Step(model, self)
                unread |= step.sweep.unread
                if not step.found:
                    break
                counts.update(step.carry_out())
            first = first or (step.structure, step.selection)
        if first is not None:
            context.decisions.append(Decision(self.name, before, model.clone(), *first, lossless=True))
        return Report(first is not None, {name: count for name, count in counts.items() if count}, _notes(unread, self))


def _notes(unread: set[str], options: Lossless) -> tuple[str, ...]:
    if not unread:
        return ()
    return (f"lossless did not look at {len(unread)} weights of more than {options.max_bytes} bytes ({min(unread)})",)


class _Step:
    """One round: what a model's positions turn out to be, and the cut that follows."""

    def __init__(self, model: ir.Model, options: Lossless) -> None:
        self.model, self.options = model, options
        self.structure = read(model)
        self.sweep = Sweep(model, self.structure, options.max_bytes)
        self.sweep.run()
        self.positions = Positions(self.structure)
        self.idle: dict[Leaf, Mask] = {}
        self.targets: dict[Leaf, npt.NDArray[np.intp]] = {}
        self._occurrences: dict[int, list[Occurrence]] = {}
        self._judge()
        stay = self._stay()
        for leaf, idle in self.idle.items():
            idle &= ~stay[self.positions.range(leaf)]
        for leaf, target in self.targets.items():
            kept = stay[self.positions.range(leaf)]
            target[kept] = np.flatnonzero(kept)
        self.kept = Selection(self.structure.space, {leaf: ~idle for leaf, idle in self.idle.items() if idle.any()})
        self.selection = Selection(self.structure.space, self._keep())

    @property
    def found(self) -> bool:
        """Whether anything can go."""
        return bool(self.selection.keep)

    def carry_out(self) -> dict[str, int]:
        """Cut the model; returns how many positions of each kind went."""
        idle = sum(int(mask.sum()) for mask in self.idle.values())
        total = sum(int((~mask).sum()) for mask in self.selection.keep.values())
        fold_constants_into_biases(self.model, self.structure, self.sweep.readings, self.kept)
        sums = ColumnSums(self.model, self.structure, self.sweep.readings, self.kept, self.targets)
        slice_model(self.model, self.structure, self.selection)
        sums.install(self.selection)
        return {"dead, constant or unread positions": idle, "duplicate positions": total - idle, "rounds": 1}

    def _keep(self) -> dict[Leaf, Mask]:
        keep: dict[Leaf, Mask] = {}
        for group in self.structure.groups:
            mask = ~self.idle.get(group.leaf, np.zeros(group.size, np.bool_))
            target = self.targets.get(group.leaf)
            if target is not None:
                mask &= target == np.arange(group.size)
            if not mask.all():
                keep[group.leaf] = mask
        return keep

    def _stay(self) -> Mask:
        """Positions without which a tensor would be empty."""
        worth = np.ones(self.positions.total)
        for leaf, idle in self.idle.items():
            worth[self.positions.range(leaf)] = ~idle
        for leaf, target in self.targets.items():
            worth[self.positions.range(leaf)] *= target == np.arange(len(target))
        return indispensable(self.structure, self.positions, worth)

    # -- judging --------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Idle positions and duplicates of every group that only sums look at."""
        blocked = {
            leaf
            for call in self.structure.calls
            for mix in call.mixes
            if mix.kind != "sum"
            for leaf in self.structure.leaves(mix.axis)
        }
        readings: dict[Leaf, list[Reading]] = {}
        for reading in self.sweep.readings:
            for leaf in self.structure.leaves(reading.mix.axis):
                readings.setdefault(leaf, []).append(reading)
        for group in self.structure.groups:
            if group.leaf not in blocked and group.leaf in readings:
                self._judge_group(group, readings[group.leaf])

    def _judge_group(self, group: Group, readings: list[Reading]) -> None:
        idle = np.ones(group.size, np.bool_)
        keys: list[Labels] | None = [] if self.options.duplicates else None
        for reading in readings:
            own = [occurrence for occurrence in self._of(reading) if occurrence.leaf is group.leaf]
            if not own:
                return
            harmless = reading.harmless if self.options.constants else self._strictly(reading)
            for occurrence in own:
                idle[occurrence.position[~harmless[occurrence.index]]] = False
            if reading.label is None:
                keys = None
            elif keys is not None:
                keys.extend(rows(reading.label[_lines(occurrence, group.size)]) for occurrence in own)
        if idle.any():
            self.idle[group.leaf] = idle
        if keys:
            alive = np.flatnonzero(~idle)
            label = number(*keys)
            _, first, inverse = np.unique(label[alive], return_index=True, return_inverse=True)
            target = np.arange(group.size)
            target[alive] = alive[first[inverse.reshape(-1)]]
            if (target != np.arange(group.size)).any():
                self.targets[group.leaf] = target

    def _strictly(self, reading: Reading) -> Mask:
        """Harmless without help from a bias."""
        if reading.x is None or reading.unread is None:
            return reading.harmless
        zero: Mask = reading.x.known & (reading.x.value == 0)
        return reading.unread | zero

    def _of(self, reading: Reading) -> list[Occurrence]:
        operand = reading.call.operands[reading.operand]
        axes = None if operand is None else operand.axes
        axis = None if axes is None else self.structure.space.find(axes[reading.dim])
        if axis is None or not isinstance(axis.size, int) or axis.size != len(reading.harmless):
            return []
        if id(axis) not in self._occurrences:
            self._occurrences[id(axis)] = occurrences(self.structure.space, axis)
        return self._occurrences[id(axis)]


def _lines(occurrence: Occurrence, size: int) -> npt.NDArray[np.intp]:
    """Where each position of a leaf occurs, one row for each."""
    return occurrence.index[np.argsort(occurrence.position, kind="stable")].reshape(size, -1)

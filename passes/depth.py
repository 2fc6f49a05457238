"""Depth: leave out the residual blocks that matter least, so that ``y = x + f(x)`` becomes ``y = x``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import numpy.typing as npt
import onnx_ir as ir

from graphprune.blocks import ResidualBlock, choose_blocks, gains, influence, residual_blocks
from graphprune.errors import TargetError, UsageError
from graphprune.frontends.onnx_walk import bodies
from graphprune.frontends.program import Host, program_of
from graphprune.passes.base import Context, Decision, Pass, Report, register
from graphprune.passes.eliminate_dead_nodes import eliminate_dead_nodes
from graphprune.passes.tensors import Names
from graphprune.proof.run import Runner
from graphprune.proof.variants import expose
from graphprune.sample_inputs import Inputs, input_specs, inputs_that_run
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["Depth", "find_blocks", "remove_blocks", "silence_blocks"]

Criterion = Literal["magnitude", "influence"]


@register
@dataclass(frozen=True)
class Depth(Pass):
    """Leave out whole residual blocks: the halves of a transformer's layers, the blocks of a ResNet.

    ``blocks`` is how many go, ``ratio`` which share of them. ``criterion`` judges them by the gain of their weights
    (magnitude), or by how far they turn what runs through them, on ``runs`` random inputs or on those in
    ``context.data["calibration"]`` (influence). ``only`` and ``exclude`` are patterns of the names of their sums; with
    ``only`` alone, all of these go.
    """

    blocks: int | None = None
    ratio: float | None = None
    criterion: Criterion = "magnitude"
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    runs: int = 2
    seed: int = 0

    requires: ClassVar[tuple[str, ...]] = ("canonicalize",)
    any_host: ClassVar[bool] = True

    def run(self, model: Host, context: Context) -> Report:
        """Choose and remove.

        Raises:
            TargetError: the model has fewer blocks that can be left out.
            UsageError: an option makes no sense.
        """
        clock = context.clock
        with clock("analyse"):
            structure = program_of(model).read()
            blocks = self._candidates(find_blocks(model, structure))
        count = len(blocks) if self.only and self.blocks is None and self.ratio is None else self.blocks
        with clock("score"):
            scores = self._scores(model, structure, blocks, context) if len(blocks) != count else [0.0] * len(blocks)
        with clock("choose"):
            chosen = choose_blocks(blocks, scores, count, self.ratio)
        if not chosen:
            if self.ratio:
                raise TargetError(f"depth: ratio {self.ratio:g} of {len(blocks)} residual blocks is none; ask for more")
            return Report(False, {"blocks": 0})
        with clock("cut"):
            before, reference = program_of(model).clone(), program_of(model).clone()
            silence_blocks(reference, chosen)
            remove_blocks(model, chosen)
        nothing = Selection(structure.space, {})
        after = program_of(model).clone()
        context.decisions.append(Decision(self.name, before, after, structure, nothing, reference=reference))
        names = tuple(block.name for block in chosen)
        done = context.data.setdefault("done", {})
        assert isinstance(done, dict)
        done[self] = Depth(only=names)
        note = f"left out {len(names)} of {len(blocks)} residual blocks: {', '.join(names)}"
        return Report(True, {"blocks": len(names)}, (note,))

    def _candidates(self, blocks: Sequence[ResidualBlock]) -> list[ResidualBlock]:
        for pattern in (*self.only, *self.exclude):
            if not any(_matches(block.name, [pattern]) for block in blocks):
                known = ", ".join(block.name for block in blocks) or "none"
                raise UsageError(f"depth: '{pattern}' is no residual block that can be left out; there are: {known}")
        return [
            block
            for block in blocks
            if not (self.only and not _matches(block.name, self.only)) and not _matches(block.name, self.exclude)
        ]

    def _scores(
        self, model: Host, structure: Structure, blocks: Sequence[ResidualBlock], context: Context
    ) -> list[float]:
        if self.criterion == "magnitude":
            return gains(structure, blocks, program_of(model).weights())
        given = context.data.get("calibration")
        if isinstance(model, ir.Model):
            return influence(structure, blocks, self._onnx_values(model, blocks, given, context))
        from graphprune.passes.torch_depth import values

        return influence(structure, blocks, values(model, blocks, given))

    def _onnx_values(
        self, model: ir.Model, blocks: Sequence[ResidualBlock], given: Any, context: Context
    ) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        names = dict.fromkeys(name for block in blocks for name in (block.entry, block.exit))
        made = [value.name for node in model.graph for value in node.outputs if value.name in names]
        opened = expose(model, [name for name in made if name])
        runner = Runner(opened)
        outputs = [value.name or "" for value in opened.graph.outputs]
        feeds: list[Inputs] = list(given) if given is not None else []
        for run in range(0 if given is not None else self.runs):
            feeds.append(inputs_that_run(runner, input_specs(model), self.seed + run, context.dims))
        for feed in feeds:
            yield {**feed, **dict(zip(outputs, runner(feed), strict=True))}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


# -- in the host ------------------------------------------------------------------------------------------------------


def find_blocks(model: Host, structure: Structure) -> list[ResidualBlock]:
    """The residual blocks of a program that can be left out, in reading order."""
    if not isinstance(model, ir.Model):
        from graphprune.passes import torch_depth

        return torch_depth.find_blocks(model, structure)
    outside = {value.name or "" for value in model.graph.outputs}
    top: set[str] = set()
    for node in model.graph:
        top.update(value.name or "" for value in node.outputs)
        for body in bodies(node):
            outside.update(_taken(body))
    return [block for block in residual_blocks(structure, outside) if block.exit in top]


def _taken(body: ir.Graph) -> Iterator[str]:
    """Names of all values that a body and the bodies in it read."""
    yield from (value.name or "" for value in body.outputs)
    for node in body:
        yield from (value.name or "" for value in node.inputs if value is not None)
        for inner in bodies(node):
            yield from _taken(inner)


def remove_blocks(model: Host, blocks: Sequence[ResidualBlock]) -> None:
    """Let the result of each block be what enters it, and drop what nobody reads any more."""
    if not isinstance(model, ir.Model):
        from graphprune.passes import torch_depth

        torch_depth.remove_blocks(model, blocks)
        return
    sums = {node.name: node for node in model.graph}
    for block in reversed(blocks):  # what enters a block may be the result of the one before
        node = sums[block.name]
        entry = next(value for value in node.inputs if value is not None and value.name == block.entry)
        result = node.outputs[0]
        if result.is_graph_output():
            name = node.name or ""
            same = ir.Node("", "Identity", [entry], name=Names(model).fresh(f"{name}/left_out"))
            same.outputs[0].type, same.outputs[0].shape = result.type, result.shape
            model.graph.insert_after(node, same)
            result.replace_all_uses_with(same.outputs[0], replace_graph_outputs=True)
            same.outputs[0].name, result.name = result.name, None
        else:
            result.replace_all_uses_with(entry)
    eliminate_dead_nodes(model)


def silence_blocks(model: Host, blocks: Sequence[ResidualBlock]) -> None:
    """Let each branch add nothing, by subtracting it from itself: what a model without the blocks must equal."""
    if not isinstance(model, ir.Model):
        from graphprune.passes import torch_depth

        torch_depth.silence_blocks(model, blocks)
        return
    names = Names(model)
    sums = {node.name: node for node in model.graph}
    for block in blocks:
        node = sums[block.name]
        at = next(index for index, value in enumerate(node.inputs) if value is not None and value.name == block.branch)
        branch = node.inputs[at]
        assert branch is not None
        silent = ir.Node("", "Sub", [branch, branch], name=names.fresh(f"{block.name}/silent"))
        silent.outputs[0].name = names.fresh(f"{block.branch}/silent")
        silent.outputs[0].type = branch.type
        model.graph.insert_before(node, silent)
        node.replace_input_with(at, silent.outputs[0])

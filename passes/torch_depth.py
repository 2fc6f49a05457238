"""Residual blocks of a PyTorch program: finding, silencing and removing them, and what runs through them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import fx

from graphprune.blocks import ResidualBlock, residual_blocks
from graphprune.frontends.torch_calls import walk
from graphprune.frontends.torch_program import TorchProgram
from graphprune.proof.torch_graphs import copied, evaluated
from graphprune.proof.torch_inputs import examples
from graphprune.proof.torch_run import leaves_of, run
from graphprune.structure import Structure

__all__ = ["find_blocks", "remove_blocks", "silence_blocks", "values"]


def find_blocks(program: TorchProgram, structure: Structure) -> list[ResidualBlock]:
    """The blocks whose sum has the element type of what enters, and whose branch does not write into that."""
    nodes = _nodes(program)
    output = next(node for node in reversed(program.module.graph.nodes) if node.op == "output")
    outside = {_name(node) for node in output.all_input_nodes}
    found = residual_blocks(structure, outside)
    return [block for block in found if block.exit in nodes and _sound(nodes, block, structure)]


def _nodes(program: TorchProgram) -> dict[str, fx.Node]:
    return {node.name: node for node in program.module.graph.nodes}


def _name(node: fx.Node) -> str:
    """What a structure calls the tensor that a node makes."""
    if node.target is operator.getitem:
        source, index = node.args[:2]
        assert isinstance(source, fx.Node)
        return f"{source.name}.{index}"
    return str(node.name)


def _ends(nodes: Mapping[str, fx.Node], block: ResidualBlock) -> tuple[fx.Node, fx.Node, fx.Node]:
    """The nodes of what enters, of the branch's result, and of the sum."""
    total = nodes[block.exit]
    a, b = total.args[:2]
    assert isinstance(a, fx.Node)
    assert isinstance(b, fx.Node)
    return (a, b, total) if _name(a) == block.entry else (b, a, total)


def _sound(nodes: Mapping[str, fx.Node], block: ResidualBlock, structure: Structure) -> bool:
    entry, _, total = _ends(nodes, block)
    x, y = entry.meta.get("val"), total.meta.get("val")
    if not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) and x.dtype == y.dtype):
        return False
    inside = {structure.calls[number].node for number in block.calls}
    return not any(writer.name in inside for writer in _writers(entry))


def _writers(node: fx.Node) -> Iterator[fx.Node]:
    """The nodes that write into the memory of what ``node`` makes."""
    seen, stack = {node}, [node]
    while stack:
        source = stack.pop()
        for user in source.users:
            schema = getattr(user.target, "_schema", None)
            if schema is None or user in seen:
                continue
            seen.add(user)
            infos = [
                argument.alias_info
                for argument, value in zip(schema.arguments, user.args, strict=False)
                if value is source
            ]
            if any(info is not None and info.is_write for info in infos):
                yield user
            if any(result.alias_info is not None for result in schema.returns):
                stack.append(user)


def silence_blocks(program: TorchProgram, blocks: Sequence[ResidualBlock]) -> None:
    """Let each branch add nothing, by multiplying it by zero."""
    graph = program.module.graph
    nodes = _nodes(program)
    for block in blocks:
        _, branch, total = _ends(nodes, block)
        with graph.inserting_before(total):
            silent = graph.call_function(torch.ops.aten.mul.Scalar, (branch, 0))
        silent.meta = dict(branch.meta)
        total.replace_input_with(branch, silent)
    program.module.recompile()


def remove_blocks(program: TorchProgram, blocks: Sequence[ResidualBlock]) -> None:
    """Let the result of each block be what enters it, and drop nodes and weights that nobody uses any more.

    Where something writes into either, the result becomes a copy, as the sum was one.
    """
    graph = program.module.graph
    nodes = _nodes(program)
    before = _stored(program.module)
    for block in reversed(blocks):  # what enters a block may be the result of the one before
        entry, branch, total = _ends(nodes, block)
        written = [writer for end in (entry, total) for writer in _writers(end) if writer is not total]
        same = entry
        if written:
            with graph.inserting_before(total):
                same = graph.call_function(torch.ops.aten.clone.default, (entry,))
            same.meta = dict(total.meta)
        total.replace_all_uses_with(same)
        graph.erase_node(total)
        _erase_branch(graph, branch, entry)
    _drop(program.module, before - _stored(program.module))
    program.module.recompile()


def _erase_branch(graph: fx.Graph, branch: fx.Node, entry: fx.Node) -> None:
    """Erase what only the branch needed, writers and checks included, which a sweep for dead code would keep."""
    stack = [branch]
    counters: set[str] = set()
    while stack:
        node = stack.pop()
        for user in list(node.users):
            if str(getattr(user.target, "__name__", "")).startswith(("_assert", "sym_constrain")) and not user.users:
                graph.erase_node(user)
        if node.users or node is entry or node.op == "placeholder":
            continue
        sources = node.all_input_nodes
        if node.op == "get_attr":
            counters.add(str(node.target).rpartition(".")[0])
        graph.erase_node(node)
        stack.extend(source for source in sources if not source.users)
    left = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr" and not _counts(node)}
    for node in list(graph.nodes):
        if node.op == "get_attr" and _counts(node) and str(node.target).rpartition(".")[0] in counters - left:
            for user in list(node.users):
                graph.erase_node(user)
            graph.erase_node(node)


def _counts(node: fx.Node) -> bool:
    """Whether a buffer is at most counted up, as a normalisation does with its batches."""
    return all(not user.users and user.target is torch.ops.aten.add_.Tensor for user in node.users)


def _stored(module: fx.GraphModule) -> set[str]:
    return {str(node.target) for _, node, owner in walk(module) if node.op == "get_attr" and owner is module}


def _drop(module: fx.GraphModule, names: Iterable[str]) -> None:
    for name in names:
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path)
        if hasattr(owner, last):
            delattr(owner, last)


def values(
    program: TorchProgram, blocks: Sequence[ResidualBlock], given: Any = None
) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    """What enters and leaves the blocks on the example inputs, or on pairs of arguments and keyword arguments.

    Nothing is dropped at random, and no buffer is written to.
    """
    wanted = {name for block in blocks for name in (block.entry, block.exit)}
    labels = {node.name: name for node in program.module.graph.nodes if (name := _name(node)) in wanted}
    module = evaluated(copied(program.module))
    for args, kwargs in given if given is not None else [(program.args, program.kwargs)]:
        leaves = examples(program.module, leaves_of(program.module, args, kwargs), 0)
        results = run(module, leaves, expose=list(labels))[-len(labels) :]
        yield {label: value.float().cpu().numpy() for label, value in zip(labels.values(), results, strict=True)}

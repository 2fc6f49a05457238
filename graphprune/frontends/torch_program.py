"""PyTorch programs: what ``torch.export`` makes of a module, as one graph that can be read, cut, copied and run."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphprune.errors import ModelError
from graphprune.frontends.torch_calls import attribute, walk
from graphprune.frontends.torch_canonical import canonicalize
from graphprune.frontends.torch_export import distinct, export, merged_inputs
from graphprune.frontends.torch_reader import read
from graphprune.frontends.torch_slice import slice_module
from graphprune.frontends.torch_state import tensors_of
from graphprune.frontends.torch_training import hold, is_training
from graphprune.score.base import Block, Weights, blocks
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["TorchProgram", "capture", "named_values", "unwrapped"]

_WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "OptimizedModule")


@dataclass(slots=True)
class TorchProgram:
    """A graph that runs on ``args`` and ``kwargs``, and the module it came from, if there was one.

    ``module`` is canonical: what sizes it needs are spelled, so that every one of them can be rewritten.
    ``dynamic_shapes`` is what ``torch.export`` was told about the sizes of its inputs, ``training`` the mode it is in.
    """

    module: fx.GraphModule
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    source: nn.Module | None = None
    notes: tuple[str, ...] = ()
    dynamic_shapes: Any = None
    training: bool = False

    def read(self) -> Structure:
        """The axes of all tensors and what each operator does with them."""
        return read(self.module)

    def write(self, structure: Structure, selection: Selection) -> bool:
        """Remove in place what ``selection`` does not keep; tells whether anything went."""
        return slice_module(self.module, structure, selection)

    def clone(self) -> TorchProgram:
        """A copy of the graph that can be cut while this one stays.

        It shares the tensors, which cutting replaces and never writes to: whoever *runs* a copy in training mode, or
        trains it, takes :meth:`detached` first.
        """
        shared = {id(tensor): tensor for _, _, tensor in tensors_of(self.module)}
        return replace(self, module=_copied(self.module, shared))

    def detached(self) -> TorchProgram:
        """A copy that shares no tensor with this one, nor with the user's module."""
        with torch.no_grad():
            own: dict[int, Any] = {}
            for _, _, tensor in tensors_of(self.module):
                if id(tensor) not in own:
                    value = tensor.detach().clone()
                    is_parameter = isinstance(tensor, nn.Parameter)
                    own[id(tensor)] = nn.Parameter(value, tensor.requires_grad) if is_parameter else value
        return replace(self, module=_copied(self.module, own))

    def weights(self) -> Weights:
        """A reader of parameters and buffers by name."""

        def each(name: str) -> Iterator[Block]:
            tensor = attribute(self.module, name).detach()
            if tensor.is_meta:
                raise ModelError(f"parameter '{name}' is on the meta device and has no values; load the weights first")
            yield from blocks(tensor.to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype).numpy())

        return each

    def sizes(self, dims: Mapping[str, int] | None = None) -> dict[str, tuple[int | None, ...]]:
        """Sizes of all tensors as numbers: those of the example inputs where they are symbolic."""
        found: dict[str, tuple[int | None, ...]] = {}
        for label, node, _ in walk(self.module):
            value = node.meta.get("val")
            for name, each in named_values(label, value):
                found[name] = tuple(_hint(size, dims or {}) for size in each.shape)
        return found

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """All results of one run, nested ones in order."""
        return list(pytree.tree_leaves(self.module(*args, **kwargs)))


def _copied(module: fx.GraphModule, tensors: dict[int, Any]) -> fx.GraphModule:
    """A copy with these tensors, by the ids of those they stand for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its trees
        return copy.deepcopy(module, tensors)


def named_values(label: str, value: object) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a node makes, by their names in the structure."""
    if isinstance(value, torch.Tensor):
        yield label, value
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            if isinstance(each, torch.Tensor):
                yield f"{label}.{index}", each


def _hint(size: int | torch.SymInt, dims: Mapping[str, int]) -> int | None:
    if isinstance(size, int):
        return size
    if str(size) in dims:
        return dims[str(size)]
    hint = size.node.hint if size.node.has_hint() else None
    return None if hint is None else int(hint)


def unwrapped(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The module inside wrappers that distribute or compile it, and a note for each of them."""
    notes: list[str] = []
    while type(module).__name__ in _WRAPPERS:
        inner = module.module if hasattr(module, "module") else module._orig_mod
        notes.append(f"{type(module).__name__} was taken off: wrap the pruned module again")
        assert isinstance(inner, nn.Module)
        module = inner
    return module, tuple(notes)


def capture(
    model: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> TorchProgram:
    """The program of a module on example inputs, or of an exported program; neither is changed.

    A module is exported in the mode it is in: a training module keeps its dropout and batch statistics. Inputs that
    share memory are copied first, since an export would take them for one; in a program that was exported with such
    inputs they are one, which a note says.

    Raises:
        ModelError: ``torch.export`` cannot export the module, its parameters are not finite, or the inputs are empty.
    """
    source: nn.Module | None = None
    notes: tuple[str, ...] = ()
    if isinstance(model, torch.export.ExportedProgram):
        exported = model
        if args is None and model.example_inputs is not None:
            args, kwargs = model.example_inputs
        notes = merged_inputs(model)
        args, kwargs = distinct(tuple(args or ()), dict(kwargs or {}))
    else:
        source, notes = unwrapped(model)
        exported, args, kwargs = export(source, tuple(args or ()), dict(kwargs or {}), dynamic_shapes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = exported.module()
    assert isinstance(module, fx.GraphModule)
    canonicalize(module)
    training = is_training(module) if source is None else bool(source.training)
    if not training:
        hold(module)
    _check_results(module)
    _check_finite(module)
    return TorchProgram(module, args, kwargs, source, notes, dynamic_shapes, training)


def _check_results(module: fx.GraphModule) -> None:
    """Refuse a graph of whose results nothing can be seen: every proof of it would hold."""
    output = next(node for node in reversed(module.graph.nodes) if node.op == "output")
    stated = [node.meta.get("val") for node in output.all_input_nodes]
    results = [value for value in stated if isinstance(value, torch.Tensor)]
    if results and all(any(isinstance(size, int) and not size for size in value.shape) for value in results):
        raise ModelError(
            f"no result holds a number on these inputs (shape {tuple(results[0].shape)}): "
            "give example inputs with a batch of at least one"
        )


def _check_finite(module: nn.Module) -> None:
    """Refuse weights that hold NaN or infinity: no magnitude of theirs means anything.

    Buffers may be infinite, as masks are.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta or not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        value = tensor.detach()
        if bool(value.sum().isfinite()):
            continue
        trained = isinstance(tensor, nn.Parameter)
        if bool(value.isnan().any()):
            raise ModelError(f"{'parameter' if trained else 'buffer'} '{name}' holds NaN; load or train valid weights")
        if trained and bool(value.isinf().any()):
            raise ModelError(f"parameter '{name}' holds infinity; load or train valid weights")

"""Exporting a user's module with ``torch.export``: what it needs to be told apart first, and what its errors mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphprune.errors import ModelError
from graphprune.frontends.torch_state import forget, preserved, quiet, tensors_of

__all__ = ["distinct", "export", "merged_inputs"]

Inputs = tuple[tuple[Any, ...], dict[str, Any]]

_REMEDIES = (
    ("data-dependent", "write what depends on data with torch.cond or torch.where, or prune the ONNX export"),
    ("missing a required argument", "give an example for each argument of its forward"),
    ("numpy.ndarray", "give tensors: torch.from_numpy(...)"),
    ("register_dataclass", "register the class of its input: torch.export.register_dataclass(...)"),
    ("register a pytree", "register the class of its result: torch.export.register_dataclass(...)"),
)
"""What to do about an error, by words in its text."""


def _memory(tensor: torch.Tensor) -> int:
    """What tells the memory of one tensor from that of another."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse tensors have none, or more than one
        return id(tensor)


def distinct(args: tuple[Any, ...], kwargs: dict[str, Any], module: nn.Module | None = None) -> Inputs:
    """Inputs of which no two share memory with one another, or one with a tensor of ``module``.

    An export makes one input of those that do, which computes something else when they are given apart.
    """
    seen = set() if module is None else {_memory(tensor) for _, _, tensor in tensors_of(module)}
    repeated: set[int] = set()
    for position, value in enumerate(pytree.tree_leaves((args, kwargs))):
        if isinstance(value, torch.Tensor):
            if _memory(value) in seen:
                repeated.add(position)
            seen.add(_memory(value))
    if not repeated:
        return args, kwargs
    leaves, spec = pytree.tree_flatten((args, kwargs))
    for position in repeated:
        value = leaves[position]
        leaves[position] = value.detach().clone().requires_grad_(value.requires_grad)
    found: Inputs = pytree.tree_unflatten(leaves, spec)
    return found


def merged_inputs(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """A note for each input of a program that was the same tensor as another one when it was exported."""
    if program.example_inputs is None:
        return ()
    values = pytree.tree_leaves(program.example_inputs)
    names = program.graph_signature.user_inputs
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    seen: dict[int, str] = {}
    notes: list[str] = []
    for name, value in zip(names, values, strict=False):
        if not isinstance(value, torch.Tensor) or name not in nodes:
            continue
        first = seen.setdefault(_memory(value), str(name))
        if first != name and not (nodes[name].users and nodes[first].users):
            notes.append(
                f"inputs '{first}' and '{name}' were one tensor when the program was exported, which computes with "
                "one of them: export it on different tensors"
            )
    return tuple(notes)


def _on_meta(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
    """The inputs without values where the module's parameters have none either."""
    parameters = list(module.parameters())
    if not parameters or not all(parameter.is_meta for parameter in parameters):
        return args, kwargs
    found: Inputs = pytree.tree_map_only(torch.Tensor, lambda value: value.to("meta"), (args, kwargs))
    return found


def export(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> tuple[torch.export.ExportedProgram, tuple[Any, ...], dict[str, Any]]:
    """What ``torch.export`` makes of a module, which is not changed, and the inputs that it was exported on.

    What modules keep of their weights for evaluation would be taken for constants, and is forgotten before.

    Raises:
        ModelError: says in one line what cannot be exported, and what to do.
    """
    _check(module, args, kwargs)
    args, kwargs = _on_meta(module, args, kwargs)
    args, kwargs = distinct(args, kwargs, module)
    with preserved(module):
        forget(module)
        try:
            with quiet():
                program = torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
        except Exception as error:  # torch.export raises whatever the module or one of its own stages raises
            raise ModelError(
                f"torch.export cannot export {type(module).__name__} on these inputs "
                f"({type(error).__name__}: {_reason(error)}); {_remedy(str(error), args)}"
            ) from error
    return program, args, kwargs


def _reason(error: Exception) -> str:
    """The first sentence of an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].partition(". ")[0].rstrip(".") if lines else "no reason given"


def _remedy(text: str, args: tuple[Any, ...]) -> str:
    found = next((remedy for words, remedy in _REMEDIES if words in text), None)
    if found is None and len(args) == 1 and isinstance(args[0], Mapping):
        found = "a dict is taken for one argument: pass arguments by name with kwargs="
    return found or "see torch.export's documentation for what it supports"


def _check(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what no export can take, with what to do about it."""
    name = type(module).__name__
    for path, child in module.named_modules():
        if isinstance(child, torch.jit.ScriptModule):
            raise ModelError(
                f"{f'{path!r} of {name}' if path else name} is a ScriptModule, which is not supported: "
                "give the nn.Module that it was made of"
            )
    for path, parameter in module.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ModelError(f"parameter '{path}' of {name} has no shape yet: run it once, as module(*args)")
        if any(kind.__name__ == "DTensor" for kind in type(parameter).__mro__):
            raise ModelError(
                f"parameter '{path}' of {name} is distributed (FSDP2, a DTensor): gather the weights in a module "
                "that is not sharded, and prune that"
            )
    tensors = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor) and each.dim()]
    if tensors and not any(each.numel() for each in tensors):
        raise ModelError(
            f"the example inputs are empty (shape {tuple(tensors[0].shape)}): give a batch of at least one"
        )

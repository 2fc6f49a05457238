"""Inputs of PyTorch programs: what they are called and look like, and feeds as the programs take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprune.calibration.torch_steps import Arguments
from graphprune.errors import ModelError
from graphprune.frontends.torch_program import TorchProgram
from graphprune.sample_inputs import Inputs, InputSpec

__all__ = ["program_tables", "torch_feeds", "torch_specs"]

_PASSED = ("to", "_to_copy", "view", "reshape", "unsqueeze", "squeeze", "flatten")


def torch_specs(program: TorchProgram) -> list[InputSpec]:
    """The tensors among the arguments of a program, in the order in which it takes them."""
    specs = []
    for node in _placeholders(program):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            dims = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
            specs.append(InputSpec(node.name, _numpy(value.dtype), dims))
    return specs


def program_tables(program: TorchProgram) -> dict[str, int]:
    """The rows of the smallest embedding that each input looks up."""
    found: dict[str, int] = {}
    for start in _placeholders(program):
        waiting, seen = [start], {start}
        while waiting:
            node = waiting.pop()
            for user in node.users:
                name = str(user.target).split(".")[1:2]
                if name == ["embedding"] and user.args[1] is node:
                    table = user.args[0]
                    shape = table.meta["val"].shape if isinstance(table, fx.Node) and "val" in table.meta else ()
                    if shape and isinstance(shape[0], int):
                        found[start.name] = min(shape[0], found.get(start.name, shape[0]))
                elif name and name[0] in _PASSED and user not in seen:
                    seen.add(user)
                    waiting.append(user)
    return found


def torch_feeds(program: TorchProgram, feeds: list[Inputs]) -> list[Any]:
    """Feeds as the program takes them: tuples of arguments, mappings of keyword arguments, or both.

    Tensors have the type and device of the example inputs; what is not a tensor is as in the example.

    Raises:
        ModelError: the program takes something that is no tensor, and comes without an example of it.
    """
    nodes = _placeholders(program)
    examples = pytree.tree_leaves((tuple(program.args or ()), dict(program.kwargs or {})))
    if len(examples) != len(nodes):
        examples = [node.meta.get("val") for node in nodes]
    device = next(
        (value.device for value in program.module.state_dict().values() if isinstance(value, torch.Tensor)),
        torch.device("cpu"),
    )
    spec = pytree.tree_structure((tuple(program.args or ()), dict(program.kwargs or {})))
    made: list[Any] = []
    for feed in feeds:
        leaves: list[Any] = []
        for node, example in zip(nodes, examples, strict=True):
            stated = node.meta.get("val")
            if isinstance(stated, torch.Tensor):
                leaves.append(torch.from_numpy(np.ascontiguousarray(feed[node.name])).to(device, stated.dtype))
            elif isinstance(example, torch.SymInt):
                raise ModelError(f"argument '{node.name}' is a number and the program has no example of it: give one")
            else:
                leaves.append(example)
        if spec.num_leaves != len(leaves):
            made.append(tuple(leaves))
            continue
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        made.append(Arguments(args, kwargs) if args and kwargs else kwargs or args)
    return made


def _placeholders(program: TorchProgram) -> list[fx.Node]:
    return [node for node in program.module.graph.nodes if node.op == "placeholder"]


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    """The type in NumPy that holds all numbers of a type; what NumPy lacks is float32."""
    known: Mapping[torch.dtype, type] = {torch.bfloat16: np.float32}
    return np.dtype(known[dtype]) if dtype in known else torch.empty(0, dtype=dtype).numpy().dtype

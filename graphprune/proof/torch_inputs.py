"""Inputs to compare PyTorch programs on: the example inputs, and random ones like them.

Floating-point numbers are drawn anew, integers within the range that the example has (so that they stay valid places in
a table), truth values by chance. Anything else (a flag, None, a text) is as in the example.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphprune.proof.torch_run import Leaves

__all__ = ["again", "examples", "nudged"]


def examples(module: fx.GraphModule, leaves: Leaves | None, seed: int) -> Leaves:
    """The example inputs; random ones of the shapes that the graph states where there are none with values.

    Symbolic sizes are those of the example that the program was exported with; integers are zeros.
    """
    nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
    stated = [node.meta.get("val") for node in nodes] if leaves is None else leaves
    generator = torch.Generator().manual_seed(seed)
    return [_made(value, generator) if _shapeless(value) else _number(value) for value in stated]


def again(leaves: Leaves, seed: int, scale: float) -> Leaves:
    """Other inputs of the same shapes and types, floating-point numbers of standard deviation ``scale``."""
    generator = torch.Generator().manual_seed(seed)
    return [_redrawn(value, generator, scale) if isinstance(value, torch.Tensor) else value for value in leaves]


def nudged(leaves: Leaves, size: float, seed: int) -> Leaves:
    """Inputs changed by a relative ``size`` with random sign."""
    generator = torch.Generator().manual_seed(seed)
    return [_moved(value, generator, size) if isinstance(value, torch.Tensor) else value for value in leaves]


def _shapeless(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and (value.is_meta or isinstance(value, torch._subclasses.FakeTensor))


def _made(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    shape = [int(_number(size)) for size in value.shape]
    device = torch.device("cpu") if value.device.type == "meta" else value.device
    if value.dtype.is_floating_point or value.dtype.is_complex:
        return torch.randn(shape, generator=generator).to(device, value.dtype)
    return torch.zeros(shape, dtype=value.dtype, device=device)


def _number(value: Any) -> Any:
    if isinstance(value, torch.SymInt):
        return value.node.hint if value.node.has_hint() else 2
    return value


def _redrawn(value: torch.Tensor, generator: torch.Generator, scale: float) -> torch.Tensor:
    if not value.numel():
        return value
    if value.is_floating_point():
        return (scale * torch.randn(value.shape, generator=generator)).to(value)
    if value.is_complex():
        parts = scale * torch.randn((*value.shape, 2), generator=generator)
        return torch.view_as_complex(parts).to(value)
    if value.dtype is torch.bool:
        return (torch.rand(value.shape, generator=generator) < 0.5).to(value.device)
    low, high = int(value.min()), int(value.max())
    return torch.randint(low, high + 1, value.shape, generator=generator).to(value)


def _moved(value: torch.Tensor, generator: torch.Generator, size: float) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    signs = 2.0 * torch.randint(0, 2, value.shape, generator=generator) - 1
    return value * (1 + size * signs.to(value))

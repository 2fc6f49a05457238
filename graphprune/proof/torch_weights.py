"""Whether the weights of a slim PyTorch program are the kept parts of the original's, bit by bit.

Running two programs shows a wrong weight only where the inputs reach it; this comparison sees every weight once.
"""

from __future__ import annotations

import torch
from torch import nn

from graphprune.frontends.torch_slice import kept_part
from graphprune.proof.torch_graphs import attribute
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["misplaced", "unloaded"]


def misplaced(original: nn.Module, slim: nn.Module, structure: Structure, selection: Selection) -> str:
    """The name of a weight of ``slim`` that is not the kept part of the original's; empty where there is none.

    Weights are matched by name; one that nothing was cut from may be absent, if nobody reads it any more.
    """
    for name in structure.parameters:
        axes = structure.tensors.get(name)
        whole = attribute(original, name)
        if axes is None or not isinstance(whole, torch.Tensor):
            continue
        try:
            part = attribute(slim, name)
        except AttributeError:
            if any(map(selection.cuts, axes)):
                return name
            continue
        if part is not whole and not (
            isinstance(part, torch.Tensor) and _same_bits(part.detach(), kept_part(whole.detach(), axes, selection))
        ):
            return name
    return ""


def unloaded(module: nn.Module, structure: Structure) -> str:
    """The name of a weight that has no values yet; empty where all have."""
    for name in structure.parameters:
        value = attribute(module, name)
        if isinstance(value, torch.Tensor) and value.is_meta:
            return name
    return ""


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    return a.numel() == 0 or bool(torch.equal(_bits(a), _bits(b)))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)

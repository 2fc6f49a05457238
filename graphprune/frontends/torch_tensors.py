"""The tensors that a module holds, by name, and others in their places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import nn

from graphprune.frontends.torch_calls import attribute
from graphprune.frontends.torch_state import forget, tensors_of

__all__ = ["places_of", "refresh", "replace_tensors", "resolve"]


def places_of(module: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Where each tensor of a module is held, by its id: parameters, buffers, plain attributes; tied ones together."""
    found: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for child, name, tensor in tensors_of(module):
        found[id(tensor)].append((child, name))
    return found


def resolve(module: nn.Module, name: str) -> torch.Tensor | None:
    """The tensor called ``name``, None where the module has none."""
    try:
        value = attribute(module, name)
    except AttributeError:
        return None
    return value if isinstance(value, torch.Tensor) else None


def replace_tensors(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put tensors in the places of others, by name; what was tied stays tied."""
    places = places_of(module)
    for name, tensor in tensors.items():
        old = resolve(module, name)
        for owner, own in places.pop(id(old), ()):
            if own in owner._parameters:
                owner._parameters[own] = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
            elif own in owner._buffers:
                owner._buffers[own] = tensor
            else:
                owner.__dict__[own] = tensor
    refresh(module)


def refresh(module: nn.Module) -> None:
    """Let recurrent layers find their weights anew, and others forget what they made of theirs."""
    forget(module)
    for child in module.modules():
        if isinstance(child, nn.RNNBase):
            child._init_flat_weights()

"""Carrying the state of an optimizer over to the slim module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from graphprune.errors import UsageError
from graphprune.frontends.torch_slice import kept_part
from graphprune.rules.call import Axes
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["carry_optimizer"]


def carry_optimizer(
    optimizer: torch.optim.Optimizer,
    old: nn.Module,
    new: nn.Module,
    structure: Structure,
    selection: Selection,
) -> torch.optim.Optimizer:
    """A new optimizer of the same class for the parameters of ``new``, with groups, options and state of ``optimizer``.

    ``old`` is the module that it trained; parameters are matched by name. State that has a parameter's shape (moments,
    momentum) is sliced like the parameter; everything else is copied.

    Raises:
        UsageError: it holds a parameter that is not in ``old``, or state of a shape that cannot be sliced.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in old.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    targets = dict(new.named_parameters(remove_duplicate=False))
    groups: list[dict[str, Any]] = []
    states: dict[torch.Tensor, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        kept: list[torch.Tensor] = []
        for parameter in group["params"]:
            found = names.get(id(parameter))
            if found is None:
                raise UsageError("the optimizer holds a parameter that is not of the module that was pruned")
            target = next((targets[name] for name in found if name in targets), None)
            if target is None:
                continue  # the graph does not use it
            kept.append(target)
            if optimizer.state.get(parameter):
                axes = next((structure.tensors.get(name) for name in found if structure.tensors.get(name)), ())
                state = optimizer.state[parameter]
                states[target] = _carried(state, parameter, target, axes or (), selection, found[0])
        groups.append({**{key: value for key, value in group.items() if key != "params"}, "params": kept})
    made = type(optimizer)(groups, **_options(optimizer))
    for target, state in states.items():
        made.state[target] = state
    return made


def _options(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The defaults, as far as the class takes them by name."""
    import inspect

    known = inspect.signature(type(optimizer).__init__).parameters
    anything = any(each.kind is each.VAR_KEYWORD for each in known.values())
    return {name: value for name, value in optimizer.defaults.items() if anything or name in known}


def _carried(
    state: Mapping[str, Any],
    parameter: torch.Tensor,
    target: torch.Tensor,
    axes: Axes,
    selection: Selection,
    name: str,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            found[key] = value
        elif value.shape == parameter.shape and value.dim():
            found[key] = kept_part(value, axes, selection).to(target.device)
        elif value.numel() <= 1 or parameter.shape == target.shape:
            found[key] = value.detach().clone()
        else:
            raise UsageError(
                f"the optimizer's state '{key}' of parameter '{name}' has shape {tuple(value.shape)}, which does not "
                "follow the parameter's: make a new optimizer"
            )
    return found

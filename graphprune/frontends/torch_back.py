"""The way back of a pruned program: the user's own class, where it computes what the slim graph does, else that graph.

A copy of the user's module gets the slim graph's parameters, and its attributes are set to the new sizes: those of
``torch.nn``'s layers by a table, others by what the graph shows of their meaning. Nothing of this is trusted: the copy
is kept only if its own forward pass agrees with the slim graph. Where it does not, alternatives are tried, within a
bound.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx, nn

from graphprune.frontends.torch_attention import adapt_attention
from graphprune.frontends.torch_calls import walk
from graphprune.frontends.torch_likeness import difference, first_line
from graphprune.frontends.torch_optimizer import carry_optimizer
from graphprune.frontends.torch_patch import Patch
from graphprune.frontends.torch_patching import Patching
from graphprune.frontends.torch_program import TorchProgram
from graphprune.frontends.torch_pruned import PrunedModule
from graphprune.frontends.torch_scale import DEFAULT_SCALE, move_scales
from graphprune.frontends.torch_state import forget, held_by, preserved
from graphprune.frontends.torch_tensors import refresh, resolve
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["Back", "carry_optimizer", "returned"]


@dataclass(frozen=True)
class Back:
    """What a pruned program comes back as.

    ``way`` is ``"module"`` for the user's class, changed by ``patches``, and ``"graph"`` for the slim graph; then
    ``reason`` says in one line why the class could not be kept. ``program`` is the slim program with the module's
    parameters, where those had to become others than the slim program's (see :mod:`~graphprune.frontends.torch_scale`).
    """

    module: nn.Module
    way: Literal["module", "graph"]
    reason: str = ""
    patches: tuple[Patch, ...] = ()
    program: TorchProgram | None = None


_SCALES = ("left out", "computed", "any")
"""Which scales of attention are tried as those that the user's code computes anew, one after another."""


class _Refused(Exception):
    """The user's class cannot be kept, for the reason given."""


def returned(
    original: TorchProgram,
    slim: TorchProgram,
    structure: Structure,
    selection: Selection | None,
    *,
    seed: int = 0,
    way: Literal["auto", "module", "graph"] = "auto",
) -> Back:
    """The slim program as a module that trains; neither program nor the user's module is changed.

    ``structure`` is that of ``original``, and ``selection`` what ``slim`` keeps of it: None where more was changed than
    a selection can say, which only the graph can express. What comes back is in the mode of ``slim``.
    """
    own = slim.detached()  # comparing writes to running statistics, and what comes back is trained
    reason = "the graph was asked for"
    if way != "graph":
        try:
            return _class(original, own, structure, selection, seed)
        except _Refused as refused:
            reason = str(refused)
    source = original.source
    saved = (original.module if source is None else source).state_dict()
    names = {*saved, *(name for name, _ in slim.module.named_parameters(remove_duplicate=False))}
    return Back(PrunedModule.of(own.module, names, slim.training), "graph", reason)


def _class(
    original: TorchProgram, slim: TorchProgram, structure: Structure, selection: Selection | None, seed: int
) -> Back:
    source = original.source
    if source is None:
        raise _Refused("an exported program has no class to go back to")
    if selection is None:
        left = dict(slim.module.named_parameters(remove_duplicate=False))
        names = (name for name, _ in original.module.named_parameters(remove_duplicate=False))
        gone = any(name not in left for name in names)
        raise _Refused("residual blocks were left out" if gone else "more was changed than the removal of positions")
    if isinstance(source, fx.GraphModule):
        raise _Refused("the module is a graph itself")
    if any(parameter.is_meta for parameter in source.parameters()):
        raise _Refused("its parameters are on the meta device, where nothing can be compared")
    problem = ""
    for scales in _SCALES:
        wanted = _rescaled(source, original, slim, scales)
        if scales != "left out" and wanted is slim:
            continue
        module = _slim_copy(source, _slim_tensors(source, wanted.module, structure))
        if slim.training != source.training:
            module.train(slim.training)
        adapt_attention(module)
        patching = Patching(module, original, wanted, structure, selection, seed)
        found = patching.settle()
        if not found:
            return Back(module, "module", "", patching.patches(source), None if wanted is slim else wanted)
        problem = problem or found
    raise _Refused(problem)


def _slim_copy(source: nn.Module, tensors: dict[int, Any]) -> nn.Module:
    """A copy of the user's module with these tensors, without what it keeps of its own."""
    with preserved(source):
        forget(source)
        for value in held_by(source):  # results that a module keeps, which Python cannot copy
            if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                tensors.setdefault(id(value), value.detach().clone())
        try:
            module = copy.deepcopy(source, tensors)
        except Exception as error:  # copying runs whatever the user's objects define
            raise _Refused(f"{type(source).__name__} cannot be copied ({first_line(error)})") from error
    refresh(module)
    return module


def _rescaled(source: nn.Module, original: TorchProgram, slim: TorchProgram, scales: str) -> TorchProgram:
    """The slim program with the scales of attention that the user's code will compute; itself where those are the same.

    ``scales``: which numbers are taken for scales that Python computes from a width: those that a call left out, those
    in the graph that no attribute holds too, or all that could be.
    """
    spelled = scales != "left out"
    if not spelled and not any(node.meta.get(DEFAULT_SCALE) for _, node, _ in walk(slim.module)):
        return slim
    scaled = slim.detached()
    keep = [path for path, child in source.named_modules() if isinstance(child, nn.MultiheadAttention)]
    held = {
        path: [value for value in vars(child).values() if isinstance(value, float)]
        for path, child in source.named_modules()
        if scales == "computed"
    }
    if not move_scales(scaled.module, keep, original.module if spelled else None, held):
        return slim
    for owner in {id(owner): owner for _, _, owner in walk(scaled.module)}.values():
        owner.recompile()
    same = not difference(scaled.module, slim.module, slim.args, slim.kwargs, noise=False)
    return scaled if same else slim


def _slim_tensors(source: nn.Module, slim: nn.Module, structure: Structure) -> dict[int, Any]:
    """What a copy of the user's module gets in the place of its parameters and buffers, by their ids."""
    found: dict[int, Any] = {}
    for name in structure.parameters:
        old, new = resolve(source, name), resolve(slim, name)
        if old is None or new is None or old.dtype != new.dtype or id(old) in found:
            continue
        value = new.detach().clone()
        found[id(old)] = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
    return found

"""Slim modules out of folders: as the graph alone, or as the class they were cut from."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from graphprune.errors import GraphpruneError, ModelError, UsageError
from graphprune.frontends.torch_attention import adapt_attention
from graphprune.frontends.torch_likeness import first_line
from graphprune.frontends.torch_patch import Patch, apply_patches
from graphprune.frontends.torch_tensors import places_of, replace_tensors, resolve
from graphprune.frontends.torch_text import from_document
from graphprune.plan import Plan
from graphprune.storage_files import CONSTANTS, FORMAT, GRAPH, KIND, MANIFEST, PLAN, WEIGHTS, read_json, read_tensors

__all__ = ["load"]


def load(
    folder: str | os.PathLike[str],
    model: nn.Module | Callable[[], nn.Module] | None = None,
    *,
    map_location: str | torch.device = "cpu",
) -> nn.Module:
    """The pruned module in ``folder``, in the mode in which it was stored.

    Without ``model`` that is the slim graph, which needs no other code. ``model`` is the unpruned module, or a function
    that makes it: a copy of it is cut as the plan says and gets the stored weights, so that its own class comes back.

    Raises:
        ModelError: no such folder, a damaged one, one that was stored from another model, or ``model`` fails.
        UsageError: the stored module did not keep its class, so that no ``model`` can take the weights; ``model`` is
            none; there is no such device.
    """
    source = Path(folder)
    manifest = read_json(source / MANIFEST)
    if manifest.get("kind") != KIND:
        raise ModelError(f"{source}: not a folder that graphprune stored a module in")
    if manifest.get("format") != FORMAT:
        raise ModelError(f"{source}: format {manifest.get('format')} is not known to this version of graphprune")
    device = _device(map_location)
    unpruned = None if model is None else _unpruned(source, manifest, model)
    try:
        state = read_tensors(source / WEIGHTS, device)
        for name, other in dict(manifest["ties"]).items():
            state[str(name)] = state[str(other)]
        if unpruned is not None:
            return _into(source, manifest, unpruned, state, device)
        return _graph(source, state, device).train(bool(manifest["training"]))
    except GraphpruneError as error:
        raise type(error)(f"{source}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{source}: damaged ({type(error).__name__}: {error})") from None


def _device(given: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        UsageError: there is none.
    """
    try:
        device = torch.device(given)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise UsageError(f"map_location={given!r} cannot be used ({first_line(error)})") from None
    return device


def _unpruned(source: Path, manifest: Mapping[str, Any], model: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    """A copy of the unpruned module, or a new one."""
    if manifest.get("way") != "module":
        raise UsageError(f"{source}: the pruned module did not keep its class: load it without a model")
    if isinstance(model, nn.Module):
        module = copy.deepcopy(model)
    elif callable(model):
        try:
            module = model()
        except Exception as error:  # whatever the user's code raises
            raise ModelError(f"{source}: the factory failed ({first_line(error)})") from error
    else:
        raise UsageError(f"{source}: a model is a module or a function that makes one, not a {type(model).__name__}")
    if not isinstance(module, nn.Module):
        raise UsageError(f"{source}: the factory makes a {type(module).__name__}, which is no module")
    kind = f"{type(module).__module__}:{type(module).__qualname__}"
    if kind.rpartition(":")[2] != str(manifest.get("class")).rpartition(":")[2]:
        raise ModelError(f"{source}: it was stored from a {manifest.get('class')}, and the model is a {kind}")
    return module


def _graph(source: Path, state: Mapping[str, torch.Tensor], device: torch.device) -> nn.Module:
    document = read_json(source / GRAPH)
    trained = dict(document["parameters"])
    tensors: dict[str, torch.Tensor] = {**read_tensors(source / CONSTANTS, device), **state}
    made: dict[int, nn.Parameter] = {}
    for name, trains in trained.items():
        if name in tensors:
            value = tensors[name]
            made.setdefault(id(value), nn.Parameter(value, requires_grad=bool(trains)))
            tensors[name] = made[id(value)]
    return from_document(document, tensors, set(state), device)


def _into(
    source: Path,
    manifest: Mapping[str, Any],
    module: nn.Module,
    state: Mapping[str, torch.Tensor],
    device: torch.device,
) -> nn.Module:
    if not (source / PLAN).is_file():
        raise ModelError(f"{PLAN} is missing, which says how the model was cut")
    trained = dict(read_json(source / GRAPH)["parameters"])
    try:
        plan = Plan.load(source / PLAN)
    except UsageError as error:
        raise ModelError(f"damaged ({error})") from None
    cut(module, plan)
    adapt_attention(module)
    apply_patches(module, [_patch(entry) for entry in manifest["patches"]])
    module = module.to(device)
    _convert(module, state, trained)
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise ModelError(f"the stored weights do not fit the model: {lines[0]}") from None
    return module.train(bool(manifest["training"]))


def _convert(module: nn.Module, state: Mapping[str, torch.Tensor], trained: Mapping[str, bool]) -> None:
    """Give tensors the types that they are stored in, and parameters their ``requires_grad``."""
    found: dict[str, torch.Tensor] = {}
    done: dict[int, torch.Tensor] = {}
    for name, value in state.items():
        tensor = resolve(module, name)
        if tensor is None:
            continue
        if id(tensor) not in done:
            other = tensor.detach().to(value.dtype)
            trains = trained.get(name, tensor.requires_grad) and other.is_floating_point() | other.is_complex()
            done[id(tensor)] = nn.Parameter(other, trains) if isinstance(tensor, nn.Parameter) else other
        found[name] = done[id(tensor)]
    replace_tensors(module, found)


def cut(module: nn.Module, plan: Plan) -> None:
    """Slice parameters and buffers in place as a plan says; names that the module lacks are the graph's own.

    Raises:
        ModelError: a tensor has another size than the plan was made for.
    """
    found: dict[str, torch.Tensor] = {}
    done: dict[int, torch.Tensor] = {}
    held = places_of(module)
    for name, dims in plan.cuts.items():
        tensor = resolve(module, name)
        if tensor is None or id(tensor) not in held:
            continue
        if id(tensor) not in done:
            value = tensor.detach()
            for dim, entry in dims.items():
                if not dim < value.dim() or value.shape[dim] != entry.size:
                    raise ModelError(
                        f"'{name}' has shape {tuple(tensor.shape)} where the plan was made for {entry.size} in "
                        f"dimension {dim}: give the unpruned model"
                    )
                index = torch.from_numpy(np.asarray(entry.keep, dtype=np.int64)).to(value.device)
                value = value.index_select(dim, index)
            done[id(tensor)] = nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value
        found[name] = done[id(tensor)]
    replace_tensors(module, found)


def _patch(entry: Mapping[str, Any]) -> Patch:
    attribute = tuple(part if isinstance(part, int) else str(part) for part in entry["attribute"])
    return Patch(str(entry["module"]), attribute, int(entry["before"]), int(entry["after"]))

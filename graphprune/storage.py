"""Slim PyTorch modules as folders that outlive the session, and as ONNX files; never a pickle.

::

    manifest.json            what is stored, by which versions, the inputs, tied parameters, changed attributes
    model.safetensors        the state dict
    graph.json               the slim graph: the module without the code of its class
    constants.safetensors    what the graph reads besides the state dict
    plan.json                what was removed from the unpruned model
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from graphprune.errors import GraphpruneError, ModelError, UsageError
from graphprune.frontends.torch_attention import adapt_attention
from graphprune.frontends.torch_onnx import to_onnx
from graphprune.frontends.torch_patch import Patch, apply_patches
from graphprune.frontends.torch_program import TorchProgram
from graphprune.frontends.torch_tensors import places_of, replace_tensors, resolve
from graphprune.frontends.torch_text import from_document, tensors_of, to_document
from graphprune.plan import Plan
from graphprune.version import versions

__all__ = ["Storable", "load", "save", "to_onnx"]

FORMAT = 1
KIND = "graphprune module"

MANIFEST, WEIGHTS, GRAPH, CONSTANTS, PLAN = (
    "manifest.json",
    "model.safetensors",
    "graph.json",
    "constants.safetensors",
    "plan.json",
)


class Storable(Protocol):
    """What can be stored: a result of pruning a module.

    ``model`` is the slim program, ``module`` what it came back as by ``way``, with ``patches`` to its attributes.
    """

    @property
    def module(self) -> nn.Module: ...
    @property
    def way(self) -> str: ...
    @property
    def plan(self) -> Plan | None: ...
    @property
    def model(self) -> Any: ...
    @property
    def patches(self) -> tuple[Patch, ...]: ...


# -- writing --------------------------------------------------------------------------------------------------------


def save(result: Storable, folder: str | os.PathLike[str]) -> Path:
    """Write a pruned module to ``folder``, whole or not at all, and return the folder.

    The weights are those that ``result.module`` has now, so it may have been trained since.

    Raises:
        ModelError: it cannot be written, or holds something that cannot be stored.
        UsageError: ``folder`` exists and holds something else.
    """
    target = Path(folder)
    if target.exists() and not _is_ours(target):
        raise UsageError(f"{target}: exists and is not a folder of graphprune; choose another name, or remove it")
    draft = target.with_name(f".{target.name}-{secrets.token_hex(6)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        _write(result, draft)
        _rename(draft, target)
    except OSError as error:
        raise ModelError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _is_ours(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return (folder / MANIFEST).is_file() or not any(folder.iterdir())


def _rename(draft: Path, target: Path) -> None:
    """Let a finished folder take the place of an older one, if there is one."""
    aside = target.with_name(f".{target.name}-{secrets.token_hex(6)}")
    if target.exists():
        os.replace(target, aside)
    try:
        os.replace(draft, target)
    except OSError:
        if aside.exists():
            os.replace(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _write(result: Storable, folder: Path) -> None:
    from graphprune.frontends.torch_pruned import PrunedModule

    module, program = result.module, result.model
    graph = module if isinstance(module, PrunedModule) else program.module
    training = module.training if graph is module else _exported_training(program)
    document = to_document(graph, training=training)
    state = module.state_dict()
    constants = {name: value for name, value in tensors_of(graph).items() if name not in state}
    ties = _write_tensors(state, folder / WEIGHTS)
    _write_tensors(constants, folder / CONSTANTS)
    document["parameters"] = {
        name: parameter.requires_grad for name, parameter in module.named_parameters(remove_duplicate=False)
    }
    kind = type(program.source if program.source is not None else module)
    manifest = {
        "kind": KIND,
        "format": FORMAT,
        "way": result.way,
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "training": module.training,
        "versions": {**versions(), "torch": torch.__version__},
        "inputs": [
            {"name": entry["name"], "shape": entry.get("shape"), "dtype": entry.get("dtype")}
            for entry in document["nodes"]
            if entry["op"] == "placeholder"
        ],
        "outputs": _output_names(document),
        "ties": ties,
        "patches": [
            {"module": p.module, "attribute": list(p.attribute), "before": p.before, "after": p.after}
            for p in getattr(result, "patches", ())
        ],
    }
    if result.plan is not None:
        (folder / PLAN).write_text(result.plan.to_json(), encoding="utf-8")
    (folder / GRAPH).write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _exported_training(program: TorchProgram) -> bool:
    from graphprune.frontends.torch_training import is_training

    return is_training(program.module) if program.source is None else program.source.training


def _output_names(document: Mapping[str, Any]) -> list[str]:
    """Names of the results by their places in what a call returns: ``logits``, ``0``, ``1.hidden``."""
    spec = (document.get("signature") or {}).get("outputs")
    found: list[str] = []

    def visit(each: Any, path: str) -> None:
        if each is None:
            found.append(path.removeprefix("."))
            return
        for index, part in enumerate(each["parts"]):
            key = each["keys"][index] if "keys" in each else index
            visit(part, f"{path}.{key}")

    visit(spec, "")
    return found


def _write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, str]:
    """Write tensors, each memory once; returns which names stand for which others."""
    from safetensors.torch import save_file

    ties: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    memories: set[int] = set()
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ModelError(f"the state '{name}' is a {type(tensor).__name__}; only tensors can be stored")
        if tensor.is_meta:
            raise ModelError(f"'{name}' is on the meta device and has no values; load the weights before saving")
        value = tensor.detach()
        storage = value.untyped_storage().data_ptr()
        key = (storage, value.storage_offset(), value.shape, value.stride(), value.dtype)
        if value.numel() and key in first:
            ties[name] = first[key]
            continue
        first[key] = name
        value = value.to("cpu").contiguous()
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        found[name] = value.clone() if storage in memories or not whole else value
        memories.add(storage)
    path.touch()  # its permissions follow the umask; the library's own do not
    mode = path.stat().st_mode
    try:
        save_file(found, path)
        path.chmod(mode)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ModelError(f"the weights cannot be stored ({str(error).splitlines()[0]})") from error
    return ties


# -- reading --------------------------------------------------------------------------------------------------------


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
        ModelError: no such folder, a damaged one, or one that was stored from another model.
        UsageError: the stored module did not keep its class, so that no ``model`` can take the weights.
    """
    source = Path(folder)
    manifest = _json(source / MANIFEST)
    if manifest.get("kind") != KIND:
        raise ModelError(f"{source}: not a folder that graphprune stored a module in")
    if manifest.get("format") != FORMAT:
        raise ModelError(f"{source}: format {manifest.get('format')} is not known to this version of graphprune")
    device = torch.device(map_location)
    try:
        state = _read_tensors(source / WEIGHTS, device)
        for name, other in dict(manifest["ties"]).items():
            state[str(name)] = state[str(other)]
        if model is not None:
            return _into(source, manifest, model, state, device)
        return _graph(source, state, device).train(bool(manifest["training"]))
    except GraphpruneError as error:
        raise type(error)(f"{source}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{source}: damaged ({type(error).__name__}: {error})") from None


def _graph(source: Path, state: Mapping[str, torch.Tensor], device: torch.device) -> nn.Module:
    document = _json(source / GRAPH)
    trained = dict(document["parameters"])
    tensors: dict[str, torch.Tensor] = {**_read_tensors(source / CONSTANTS, device), **state}
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
    model: nn.Module | Callable[[], nn.Module],
    state: Mapping[str, torch.Tensor],
    device: torch.device,
) -> nn.Module:
    if manifest["way"] != "module":
        raise UsageError("the pruned module did not keep its class: load it without a model")
    module = copy.deepcopy(model) if isinstance(model, nn.Module) else model()
    kind = f"{type(module).__module__}:{type(module).__qualname__}"
    if kind.rpartition(":")[2] != str(manifest["class"]).rpartition(":")[2]:
        raise ModelError(f"it was stored from a {manifest['class']}, and the model is a {kind}")
    cut(module, Plan.load(source / PLAN))
    adapt_attention(module)
    apply_patches(module, [_patch(entry) for entry in manifest["patches"]])
    module = module.to(device)
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise ModelError(f"the stored weights do not fit the model: {lines[0]}") from None
    return module.train(bool(manifest["training"]))


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


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ModelError(f"{path}: not a JSON object")
    return document


def _read_tensors(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ModelError("reading stored modules needs safetensors: pip install 'graphprune[torch]'") from None
    try:
        return dict(load_file(path, device=str(device)))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path.name} cannot be read ({str(error).splitlines()[0]})") from None

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
from graphprune.frontends.torch_likeness import first_line
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
FILES = (MANIFEST, WEIGHTS, GRAPH, CONSTANTS, PLAN)


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

    A folder that holds an older module gets the new one; nothing else is ever removed.

    Raises:
        ModelError: it cannot be written, or holds something that cannot be stored.
        UsageError: ``folder`` exists and holds something else.
    """
    target = Path(folder).absolute()
    there = target.exists()
    if there and (foreign := _foreign(target)):
        raise UsageError(f"{folder}: {foreign}; choose another name, or a folder of its own")
    name = f".{target.name}-{secrets.token_hex(6)}"
    draft = target / name if there else target.with_name(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        _write(result, draft)
        if there:
            _replace(draft, target)
        else:
            os.replace(draft, target)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Path(folder)


def _foreign(folder: Path) -> str:
    """What in the way of a module is not ours to remove; nothing where a folder is empty, or holds an older module."""
    if not folder.is_dir():
        return "exists and is not a folder of graphprune"
    entries = sorted(folder.iterdir())
    if not entries:
        return ""
    try:
        document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        return "exists and is not a folder of graphprune"
    other = next((each.name for each in entries if each.name not in FILES or not each.is_file()), None)
    return "" if other is None else f"holds '{other}' besides the module that would be replaced"


def _replace(draft: Path, target: Path) -> None:
    """Let what was written take the place of an older module; the folder itself stays, which may be a link or a mount.

    The manifest goes first and comes last: without one, a folder is not taken for a module.
    """
    for name in FILES:
        (target / name).unlink(missing_ok=True)
    for each in sorted(draft.iterdir(), key=lambda each: each.name == MANIFEST):
        os.replace(each, target / each.name)


def _write(result: Storable, folder: Path) -> None:
    from graphprune.frontends.torch_pruned import PrunedModule

    module, program = result.module, result.model
    graph = module if isinstance(module, PrunedModule) else program.module
    training = module.training if graph is module else program.training
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
    save_file = _safetensors().save_file
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
        ModelError: no such folder, a damaged one, one that was stored from another model, or ``model`` fails.
        UsageError: the stored module did not keep its class, so that no ``model`` can take the weights; ``model`` is
            none; there is no such device.
    """
    source = Path(folder)
    manifest = _json(source / MANIFEST)
    if manifest.get("kind") != KIND:
        raise ModelError(f"{source}: not a folder that graphprune stored a module in")
    if manifest.get("format") != FORMAT:
        raise ModelError(f"{source}: format {manifest.get('format')} is not known to this version of graphprune")
    device = _device(map_location)
    unpruned = None if model is None else _unpruned(source, manifest, model)
    try:
        state = _read_tensors(source / WEIGHTS, device)
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
            raise ModelError(f"{source}: the factory failed ({type(error).__name__}: {first_line(error)})") from error
    else:
        raise UsageError(f"{source}: a model is a module or a function that makes one, not a {type(model).__name__}")
    if not isinstance(module, nn.Module):
        raise UsageError(f"{source}: the factory makes a {type(module).__name__}, which is no module")
    kind = f"{type(module).__module__}:{type(module).__qualname__}"
    if kind.rpartition(":")[2] != str(manifest.get("class")).rpartition(":")[2]:
        raise ModelError(f"{source}: it was stored from a {manifest.get('class')}, and the model is a {kind}")
    return module


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
    module: nn.Module,
    state: Mapping[str, torch.Tensor],
    device: torch.device,
) -> nn.Module:
    if not (source / PLAN).is_file():
        raise ModelError(f"{PLAN} is missing, which says how the model was cut")
    trained = dict(_json(source / GRAPH)["parameters"])
    cut(module, Plan.load(source / PLAN))
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
    load_file, error_of = _safetensors().load_file, _safetensors().SafetensorError
    try:
        return dict(load_file(path, device=str(device)))
    except (OSError, error_of) as error:
        raise ModelError(f"{path.name} cannot be read ({str(error).splitlines()[0]})") from None


def _safetensors() -> Any:
    """The library of weights.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import safetensors.torch
    except ImportError:
        raise ModelError("stored modules need safetensors: pip install 'graphprune[torch]'") from None
    return safetensors.torch

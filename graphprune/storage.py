"""Slim PyTorch modules as folders that outlive the session, and as ONNX files; never a pickle.

::

    manifest.json            what is stored, by which versions, the inputs, tied parameters, changed attributes
    model.safetensors        the state dict
    graph.json               the slim graph: the module without the code of its class
    constants.safetensors    what the graph reads besides the state dict
    plan.json                what was removed from the unpruned model
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from graphprune.frontends.atomic_folder import folder_draft
from graphprune.frontends.torch_onnx import to_onnx
from graphprune.frontends.torch_patch import Patch
from graphprune.frontends.torch_text import tensors_of, to_document
from graphprune.plan import Plan
from graphprune.storage_files import CONSTANTS, FILES, FORMAT, GRAPH, KIND, MANIFEST, PLAN, WEIGHTS, write_tensors
from graphprune.storage_reading import load
from graphprune.version import versions

__all__ = ["Storable", "load", "save", "to_onnx"]


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


def save(result: Storable, folder: str | os.PathLike[str]) -> Path:
    """Write a pruned module to ``folder``, whole or not at all, and return the folder.

    The weights are those that ``result.module`` has now, so it may have been trained since. A folder that holds an
    older module, and nothing but it, gets the new one.

    Raises:
        ModelError: it cannot be written, or holds something that cannot be stored.
        UsageError: ``folder`` exists and holds something else.
    """
    with folder_draft(folder, foreign=_foreign, ours=lambda target: FILES, manifest=MANIFEST) as draft:
        _write(result, draft)
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


def _write(result: Storable, folder: Path) -> None:
    from graphprune.frontends.torch_pruned import PrunedModule

    module, program = result.module, result.model
    graph = module if isinstance(module, PrunedModule) else program.module
    training = module.training if graph is module else program.training
    document = to_document(graph, training=training)
    state = module.state_dict()
    constants = {name: value for name, value in tensors_of(graph).items() if name not in state}
    ties = write_tensors(state, folder / WEIGHTS)
    write_tensors(constants, folder / CONSTANTS)
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

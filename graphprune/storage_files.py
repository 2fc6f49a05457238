"""The files of a stored module, and how each is read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from graphprune.errors import ModelError
from graphprune.text import first_line

__all__ = [
    "CONSTANTS",
    "FILES",
    "FORMAT",
    "GRAPH",
    "KIND",
    "MANIFEST",
    "PLAN",
    "WEIGHTS",
    "read_json",
    "read_tensors",
    "write_tensors",
]

FORMAT = 1
KIND = "graphprune module"

MANIFEST, WEIGHTS, GRAPH, CONSTANTS, PLAN = FILES = (
    "manifest.json",
    "model.safetensors",
    "graph.json",
    "constants.safetensors",
    "plan.json",
)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        ModelError: it cannot be read, or holds anything else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ModelError(f"{path}: not a JSON object")
    return document


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, str]:
    """Write tensors, each memory once; returns which names stand for which others.

    Raises:
        ModelError: one is no tensor, has no values, or is of a type that cannot be stored.
    """
    files = _safetensors()
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
        files.torch.save_file(found, path)
        path.chmod(mode)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ModelError(f"the weights cannot be stored ({first_line(error)})") from error
    return ties


def read_tensors(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """The tensors in a file, by name.

    Raises:
        ModelError: it cannot be read, or holds anything else.
    """
    files = _safetensors()
    try:
        if device.type == "meta":  # of which the library knows nothing
            return {name: value.to(device) for name, value in files.torch.load_file(path).items()}
        return dict(files.torch.load_file(path, device=str(device)))
    except (OSError, files.SafetensorError) as error:
        raise ModelError(f"{path.name} cannot be read ({first_line(error)})") from None


def _safetensors() -> Any:
    """The library of weights.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import safetensors.torch
    except ImportError:
        raise ModelError("stored modules need safetensors: pip install 'graphprune[torch]'") from None
    return safetensors

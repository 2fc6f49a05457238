"""Torch-Pruning on the same networks: the same budget, counted as we count it, found by bisection on its ratio."""

from __future__ import annotations

import copy
import io
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from accuracy_methods import Method
from accuracy_modules import ResNet, module
from torch import nn

__all__ = ["pruned", "to_onnx"]

STEPS = 12
"""Halvings of the ratio: finer than one channel of any of these networks."""


def pruned(network: str, method: Method, keep: float, feeds: list[Mapping[str, Any]], labels: Any, seed: int) -> Any:
    """Return the slim module whose multiply-accumulates come nearest to ``keep`` of the original, its ratio, seconds.

    Seconds are those of the last pruning, without the search for the ratio.
    """
    dense = module(network)
    example = torch.from_numpy(np.asarray(feeds[0]["input"][:1]))
    wanted = keep * macs(dense, example)
    gradients = method.rival is not None and method.rival[0] == "TaylorImportance"
    if gradients:
        backward(dense, feeds, labels)
    found: list[tuple[float, float, nn.Module, float]] = []
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        ratio = (low + high) / 2
        torch.manual_seed(seed)
        start = time.perf_counter()
        slim = cut(dense, method, ratio, example)
        seconds = time.perf_counter() - start
        reached = macs(slim, example)
        found.append((abs(reached - wanted), ratio, slim, seconds))
        low, high = (ratio, high) if reached > wanted else (low, ratio)
    _, ratio, slim, seconds = min(found, key=lambda item: item[0])
    return slim, ratio, seconds


def cut(dense: nn.Module, method: Method, ratio: float, example: torch.Tensor) -> nn.Module:
    """Prune a copy of a module."""
    import torch_pruning as tp

    assert method.rival is not None
    name, arguments = method.rival
    slim = copy.deepcopy(dense)
    for own, other in zip(slim.parameters(), dense.parameters(), strict=True):
        own.grad = None if other.grad is None else other.grad.clone()
    ignored: list[nn.Module] = [list(slim.modules())[-1]]
    if method.inner and isinstance(slim, ResNet):
        ignored += [layer for path, layer in slim.named_modules() if path == "conv1" or path.endswith(".conv2")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            slim,
            example,
            importance=getattr(tp.importance, name)(**arguments),
            global_pruning=method.wide,
            pruning_ratio=ratio,
            ignored_layers=ignored,
        )
        pruner.step()
    return slim


def backward(dense: nn.Module, feeds: list[Mapping[str, Any]], labels: Any) -> None:
    """Leave the gradients of the loss on the calibration images in a module."""
    start = 0
    for feed in feeds:
        images = torch.from_numpy(np.asarray(feed["input"]))
        wanted = torch.from_numpy(np.asarray(labels[start : start + len(images)]))
        start += len(images)
        nn.functional.cross_entropy(dense(images), wanted, reduction="sum").backward()


def macs(network: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers, for one sample."""
    total = 0

    def note(layer: nn.Module, _: Any, result: torch.Tensor) -> None:
        nonlocal total
        total += int(layer.weight.numel()) * int(result[0, 0].numel() if result.ndim == 4 else 1)

    hooks = [
        layer.register_forward_hook(note) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return total


def to_onnx(network: nn.Module, example: torch.Tensor) -> bytes:
    """Export a module with a free number of images, so that it is evaluated and counted as ours are."""
    stream = io.BytesIO()
    export: Callable[..., Any] = torch.onnx.export
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["input"], "output_names": ["output"]}
        free = {"input": {0: "N"}, "output": {0: "N"}}
        export(network.eval(), (example,), stream, dynamo=False, opset_version=17, dynamic_axes=free, **names)
    return stream.getvalue()

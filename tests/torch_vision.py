"""Makes torchvision importable beside a CPU-only torch, whose wheel on the package index lacks compiled operators.

Lightning and transformers import torchvision where it is installed, so tests that use them need it too.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import torch

_BOX = "Tensor dets, Tensor scores, float iou_threshold"
_ALIGN = "Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, int sampling_ratio"
_MISSING = {"nms": _BOX, "qnms": _BOX, "roi_align": f"{_ALIGN}, bool aligned"}


@cache
def declare_operators() -> None:
    """Declare the operators that torchvision needs to be imported; nothing happens where they are there."""
    if importlib.util.find_spec("torchvision") is None:
        return
    for name, signature in _MISSING.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", f"({signature}) -> Tensor")

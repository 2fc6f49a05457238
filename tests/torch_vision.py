"""torchvision's operators by their schemas, for tests; nothing is declared where they are there.

The wheel on the package index lacks them beside a CPU-only torch, and is not imported without some of them. Lightning
and transformers import torchvision where it is installed, so tests that use these need them too.
"""

from __future__ import annotations

from functools import cache

import torch

_BOXES = "Tensor dets, Tensor scores, float iou_threshold"
_REGIONS = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_PAIRS = (
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, "
    "SymInt groups, SymInt offset_groups, bool use_mask"
)
_SCHEMAS = {
    "nms": f"({_BOXES}) -> Tensor",
    "qnms": f"({_BOXES}) -> Tensor",
    "roi_align": f"({_REGIONS}, int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool": f"({_REGIONS}) -> (Tensor, Tensor)",
    "ps_roi_align": f"({_REGIONS}, int sampling_ratio) -> (Tensor, Tensor)",
    "ps_roi_pool": f"({_REGIONS}) -> (Tensor, Tensor)",
    "deform_conv2d": f"(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_PAIRS}) -> Tensor",
}


@cache
def declare_operators() -> None:
    """Declare the operators that are missing."""
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema)

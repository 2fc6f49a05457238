"""torchvision's operators in plain PyTorch, where a row needs them to run."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch_vision import declare_operators

declare_operators()


def roi_align(x: Any, rois: Any, scale: float, height: int, width: int, samples: int, aligned: bool) -> Any:
    """The mean of ``samples`` by ``samples`` bilinear samples of each bin."""
    boxes = rois[:, 1:] * scale - 0.5 * aligned
    found = []
    for image, (left, top, right, bottom) in zip(rois[:, 0].long(), boxes, strict=True):
        rows = top + (bottom - top) * (torch.arange(height * samples) + 0.5) / (height * samples)
        columns = left + (right - left) * (torch.arange(width * samples) + 0.5) / (width * samples)
        points = _sampled(x[image], rows[:, None].expand(-1, len(columns)), columns.expand(len(rows), -1))
        found.append(functional.avg_pool2d(points, samples))
    return torch.stack(found)


def roi_pool(x: Any, rois: Any, scale: float, height: int, width: int) -> tuple[Any, Any]:
    """The maximum of each bin of a region that lies on whole positions, and its place in the region."""
    boxes = (rois[:, 1:] * scale).round().long()
    found = [
        functional.adaptive_max_pool2d(
            x[image, :, top : bottom + 1, left : right + 1], (height, width), return_indices=True
        )
        for image, (left, top, right, bottom) in zip(rois[:, 0].long(), boxes.tolist(), strict=True)
    ]
    values, places = zip(*found, strict=True)
    return torch.stack(values), torch.stack(places)


def deform_conv2d(x: Any, weight: Any, offset: Any, mask: Any, bias: Any, *numbers: int) -> Any:
    """A convolution whose window reads at offsets of its own (stride 1, no padding, no dilation)."""
    groups, offset_groups, use_mask = numbers[-3:]
    outer, inner, high, wide = weight.shape
    rows, columns = offset.shape[2:]
    each = x.shape[1] // offset_groups
    patches = x.new_zeros(x.shape[0], x.shape[1], high * wide, rows, columns)
    for image in range(x.shape[0]):
        for group in range(offset_groups):
            own = slice(group * each, (group + 1) * each)
            for place in range(high * wide):
                first = 2 * (group * high * wide + place)
                down = torch.arange(rows)[:, None] + place // wide + offset[image, first]
                along = torch.arange(columns) + place % wide + offset[image, first + 1]
                values = _sampled(x[image, own], down, along)
                patches[image, own, place] = values * (mask[image, first // 2] if use_mask else 1)
    patches = patches.reshape(x.shape[0], groups, inner * high * wide, rows, columns)
    return (
        torch.einsum("ngkhw,gok->ngohw", patches, weight.reshape(groups, outer // groups, -1)).flatten(1, 2)
        + bias[:, None, None]
    )


def _sampled(image: Any, rows: Any, columns: Any) -> Any:
    """Bilinear samples of an image at places counted in positions, zero outside."""
    height, width = image.shape[1:]
    grid = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], -1)
    return functional.grid_sample(image[None], grid[None], align_corners=True)[0]

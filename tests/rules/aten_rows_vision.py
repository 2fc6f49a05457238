"""Samples of torchvision's operators."""

from __future__ import annotations

import torch

from rules.aten_registry import row
from rules.torchvision_operators import deform_conv2d, roi_align, roi_pool

BOXES = torch.tensor([[0.0, 0, 0, 3, 4], [1, 1, 1, 4, 5], [1, 0, 2, 3, 6]])

row("torchvision.roi_align", (2, 3, 5, 7), BOXES, 1.0, 2, 3, 2, False, reference=roi_align)
row("torchvision.roi_pool", (2, 3, 5, 7), BOXES, 1.0, 2, 2, reference=roi_pool)


def _deformed(groups: int, offset_groups: int, masked: bool) -> None:
    mask = (2, 4 * offset_groups, 3, 4) if masked else (2, 1)
    offset = (2, 8 * offset_groups, 3, 4)
    pairs = [1, 1, 0, 0, 1, 1]
    row(
        "torchvision.deform_conv2d",
        *((2, 6, 4, 5), (8, 6 // groups, 2, 2), offset, mask, (8,)),
        *(*pairs, groups, offset_groups, masked),
        reference=deform_conv2d,
    )


_deformed(1, 1, True)
_deformed(2, 1, False)
_deformed(2, 3, True)

"""Images and detectors in ATen and torchvision: sampling, patches, regions.

Space is read at computed places, so it is pinned; channels pass through, each by itself.
"""

from __future__ import annotations

from math import prod

from graphprune.rules.call import Axes, Call
from graphprune.rules.table import Rule, bind
from graphprune.rules.vision import deformable_convolution


def patches(call: Call) -> list[Axes | None]:
    """``im2col``: columns are channels times the positions of a window; an image may lack its batch."""
    batch = "n " if len(call.axes(0)) == 4 else ""
    rule = Rule(f"{batch}c h! w! -> {batch}(c k!) l", sizes={"k": prod(call.attribute("kernel_size"))})
    return rule(call)


def from_patches(call: Call) -> list[Axes | None]:
    """``col2im``: windows are added up to an image."""
    batch = "n " if len(call.axes(0)) == 3 else ""
    rule = Rule(f"{batch}(c k!) l! -> {batch}c h w", sizes={"k": prod(call.attribute("kernel_size"))})
    return rule(call)


bind("aten.im2col", patches, "self")
bind("aten.col2im", from_patches, "self")
bind("aten.grid_sampler aten.grid_sampler_2d aten.grid_sampler_3d", Rule("n c *s!, n *t! k! -> n c *t"), "input grid")
bind("aten.affine_grid_generator", Rule("n! i! j! -> n *t d"), "theta")
bind("torchvision.roi_align", Rule("n! c h! w!, r! k! -> r c y x"), "input rois")
bind("torchvision.roi_pool", Rule("n! c h! w!, r! k! -> r c y x, r c y x"), "input rois")
bind(
    "torchvision.deform_conv2d",
    deformable_convolution,
    "input weight offset bias mask",
    group="groups",
    offset_group="offset_groups",
)

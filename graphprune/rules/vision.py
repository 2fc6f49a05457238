"""Operators of images and detectors: sampling, regions, patches.

Space is read at computed places, so it is pinned; channels pass through, each by itself.
"""

from __future__ import annotations

from math import prod

from graphprune.axes import ONE
from graphprune.rules.call import Axes, Call, Declined
from graphprune.rules.table import Rule, bind

bind("onnx.GridSample com.microsoft.GridSample", Rule("n c *s!, n *t! 2! -> n c *t"), "X")
bind("onnx.AffineGrid", Rule("n! i! j!, - -> n *t d!"), "theta size")
bind("onnx.RoiAlign", Rule("n! c h! w!, r! 4!, r -> r c y x"), "X rois batch_indices")
bind("onnx.MaxRoiPool", Rule("n! c h! w!, r! 5! -> r c y x"), "X rois")
bind("com.microsoft.CropAndResize", Rule("n! c h! w!, r! 4!, r, - -> r c y x"), "X rois batch_indices crop_size")
bind("com.microsoft.MaxpoolWithMask", Rule("n c *s, - -> n c *t"), "X M")
bind("onnx.Crop", Rule("n c *s! -> n c *t"), "input")
bind("onnx.ImageScaler", Rule("n c! *s -> n c *s"), "input")
bind("onnx.Det", Rule("*n i! j! -> *n"), "X")
bind("com.microsoft.Inverse", Rule("*n i! j! -> *n i j"), "X")


def columns_to_image(call: Call) -> list[Axes | None]:
    """Columns are channels times the positions of a block; the blocks are added up to an image."""
    space = call.axes(1)[0].size
    if not isinstance(space, int):
        raise Declined("an image of unknown rank")
    image = " ".join(f"t{dim}" for dim in range(space))
    return Rule(f"n (c k!) l!, -, - -> n c {image}", sizes={"k": prod(call.integers(2))})(call)


def center_crop_pad(call: Call) -> list[Axes | None]:
    """Crops or pads the dimensions ``axes`` (all by default) around their middle."""
    x, known = call.axes(0), call.result()
    dims = {dim % len(x) for dim in call.attribute("axes", range(len(x)))}
    call.pin([x[dim] for dim in dims], "cropped or padded around its middle")
    made = (known[dim] if known else None for dim in range(len(x)))
    return [
        tuple(call.fixed(size, "a cropped axis") if dim in dims else x[dim] for dim, size in enumerate(made)),
    ]


def deformable_convolution(call: Call) -> list[Axes | None]:
    """A grouped convolution at offsets of its own; with several groups of offsets the input channels are pinned."""
    inner = "(g i)" if call.attribute("offset_group", 1) == 1 else "(g! i!)"
    rule = Rule(
        f"n {inner.replace('!', '')} *s!, (g o) i *k!, n d! *t!, (g o)?, n e! *t!? -> n (g o) *t",
        sizes={"g": "group"},
        sites={"group": "g"},
        macs=("n g i o *k *t",),
    )
    if "!" in inner:
        call.pin(call.axes(0)[1], "groups of offsets span input channels")
    return rule(call)


def unfold(call: Call) -> list[Axes | None]:
    """Windows along one dimension become a new last dimension."""
    x, known = call.axes(0), call.result()
    at = call.attribute("dim", -1) % len(x)
    call.pin(x[at], "cut into windows")
    count = call.fixed(known[at] if known else None, "windows")
    return [(*x[:at], count, *x[at + 1 :], call.fixed(int(call.attribute("size")), "a window"))]


def relative_position_bias(call: Call) -> list[Axes | None]:
    """A table of buckets and heads is read at distances."""
    buckets, heads = call.axes(0)
    call.pin(buckets, "looked up by distance")
    known = call.result()
    lengths = known[2:] if known else (None, None)
    return [(ONE, heads, *(call.fixed(size, "a sequence") for size in lengths))]


def remove_padding(call: Call) -> list[Axes | None]:
    """Tokens of all sequences one after the other."""
    batch, sequence, channel = call.axes(0)
    call.pin([batch, sequence], "tokens that are packed")
    return [(call.fixed((call.result() or (None,))[0], "packed tokens"), channel), *call.unknown_results("offsets")[1:]]


def restore_padding(call: Call) -> list[Axes | None]:
    """Packed tokens back in their places."""
    tokens, channel = call.axes(0)
    call.pin([tokens, *call.axes(1)], "tokens that are packed")
    known = call.result()
    if known is None:
        raise Declined("a result of unknown shape")
    return [(*(call.fixed(size, "tokens") for size in known[:2]), channel)]


bind("onnx.Col2Im", columns_to_image, "input")
bind("onnx.CenterCropPad", center_crop_pad, "input_data")
bind("onnx.DeformConv", deformable_convolution, "X W offset B mask")
bind("com.microsoft.UnfoldTensor", unfold, "input")
bind("com.microsoft.RelativePositionBias", relative_position_bias, "bias_table")
bind("com.microsoft.RemovePadding", remove_padding, "input")
bind("com.microsoft.RestorePadding", restore_padding, "input token_offset")

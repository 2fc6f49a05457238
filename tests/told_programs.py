"""Small programs with weights that are told, on both hosts, and the evidence that criteria on inputs judge by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from onnx_models import parse

from graphprune.calibration import Calibration
from graphprune.frontends.onnx_shapes import infer_shapes
from graphprune.frontends.program import program_of
from graphprune.passes import canonicalize
from graphprune.score import Criterion, Evidence, Scores

__all__ = [
    "HOSTS",
    "Array",
    "attention",
    "convolutions",
    "evidence_of",
    "flattened",
    "onnx_program",
    "perceptron",
    "scores",
]

Array = npt.NDArray[np.float32]
HOSTS = ["onnx", pytest.param("torch", marks=pytest.mark.torch)]


def evidence_of(host: Any, batches: Sequence[Array]) -> Evidence:
    """What criteria judge by where a program of one input is run on ``batches``."""
    feeds = [{"x": batch} if isinstance(host, ir.Model) else (batch,) for batch in batches]
    program = program_of(host)
    return Evidence(program.read(), program.weights(), {"calibration": Calibration(host, feeds)})


def scores(criterion: Criterion, evidence: Evidence) -> Scores:
    """What a criterion says, checked to be one number for each position of each group."""
    found = criterion.score(evidence)
    assert list(found) == [group.leaf for group in evidence.structure.groups]
    assert all(np.isfinite(values).all() and len(values) == leaf.size for leaf, values in found.items())
    return found


def onnx_program(text: str, **weights: Array) -> ir.Model:
    """The canonical model of a graph in ONNX's text form."""
    model = parse(text, **weights)
    canonicalize(model)
    infer_shapes(model)
    return model


def _torch(module: Any, x: Array, weights: dict[str, Array]) -> Any:
    import torch

    from graphprune.frontends.torch_program import capture

    with torch.no_grad():
        for name, value in weights.items():
            module.get_parameter(name).copy_(torch.from_numpy(value))
    return capture(module.eval(), (torch.from_numpy(x),))


def perceptron(host: str, first: Array, second: Array, batches: Sequence[Array], relu: bool = True) -> Evidence:
    """``relu(x @ first) @ second``: weights are ``(inputs, outputs)``."""
    if host == "onnx":
        act = "Relu" if relu else "Tanh"
        kind = "float16" if first.dtype == np.float16 else "float"
        text = f"g ({kind}[n, {first.shape[0]}] x) => ({kind}[n, {second.shape[1]}] y) {{"
        model = onnx_program(text + f" h = MatMul(x, a) r = {act}(h) y = MatMul(r, b) }}", a=first, b=second)
        return evidence_of(model, batches)
    from torch import nn

    module = nn.Sequential(
        nn.Linear(*first.shape, bias=False), nn.ReLU() if relu else nn.Tanh(), nn.Linear(*second.shape, bias=False)
    )
    return evidence_of(_torch(module, batches[0], {"0.weight": first.T, "2.weight": second.T}), batches)


def convolutions(host: str, first: Array, second: Array, batches: Sequence[Array], depthwise: Array) -> Evidence:
    """``conv(conv(conv(x, first), depthwise), second)``, the outer ones of 1x1, ``depthwise`` of 3x3 with padding."""
    n, channels, height, width = batches[0].shape
    if host == "onnx":
        text = f"""g (float[{n}, {channels}, {height}, {width}] x) => (float[a, b, c, d] y) {{
            h = Conv<kernel_shape=[1, 1]>(x, a)
            k = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1], group={len(depthwise)}>(h, d)
            y = Conv<kernel_shape=[1, 1]>(k, b)
        }}"""
        return evidence_of(onnx_program(text, a=first, d=depthwise, b=second), batches)
    from torch import nn

    count = len(depthwise)
    module = nn.Sequential(
        nn.Conv2d(channels, count, 1, bias=False),
        nn.Conv2d(count, count, 3, padding=1, groups=count, bias=False),
        nn.Conv2d(count, len(second), 1, bias=False),
    )
    weights = {"0.weight": first, "1.weight": depthwise, "2.weight": second}
    return evidence_of(_torch(module, batches[0], weights), batches)


def flattened(host: str, first: Array, second: Array, batches: Sequence[Array]) -> Evidence:
    """``flatten(relu(conv(x, first))) @ second``, ``first`` of 1x1."""
    n, channels, height, width = batches[0].shape
    if host == "onnx":
        text = f"""g (float[{n}, {channels}, {height}, {width}] x) => (float[{n}, {second.shape[1]}] y) {{
            h = Conv<kernel_shape=[1, 1]>(x, a)
            r = Relu(h)
            f = Flatten(r)
            y = MatMul(f, b)
        }}"""
        return evidence_of(onnx_program(text, a=first, b=second), batches)
    from torch import nn

    module = nn.Sequential(
        nn.Conv2d(channels, len(first), 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(*second.shape, bias=False)
    )
    return evidence_of(_torch(module, batches[0], {"0.weight": first, "3.weight": second.T}), batches)


def attention(host: str, weights: dict[str, Array], heads: int, batches: Sequence[Array]) -> Evidence:
    """Self-attention with projections ``q``, ``k``, ``v`` and ``o``, each ``(inputs, outputs)``, of ``x``."""
    n, tokens, width = batches[0].shape
    size = weights["q"].shape[1] // heads
    if host == "onnx":
        text = f"""g (float[{n}, {tokens}, {width}] x) => (float[{n}, {tokens}, {width}] y)
            <int64[4] split = {{0, 0, {heads}, {size}}}, int64[3] merge = {{0, 0, {heads * size}}}> {{
            q1 = MatMul(x, q) q2 = Reshape(q1, split) q3 = Transpose<perm=[0, 2, 1, 3]>(q2)
            k1 = MatMul(x, k) k2 = Reshape(k1, split) k3 = Transpose<perm=[0, 2, 3, 1]>(k2)
            v1 = MatMul(x, v) v2 = Reshape(v1, split) v3 = Transpose<perm=[0, 2, 1, 3]>(v2)
            s = MatMul(q3, k3) p = Softmax(s) c1 = MatMul(p, v3)
            c2 = Transpose<perm=[0, 2, 1, 3]>(c1) c3 = Reshape(c2, merge) y = MatMul(c3, o)
        }}"""
        return evidence_of(onnx_program(text, **weights), batches)
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in weights.items():
                setattr(self, name, nn.Linear(*value.shape, bias=False))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (
                each(x).view(n, tokens, heads, size).transpose(1, 2)
                for each in (self.q, self.k, self.v)  # type: ignore[operator]
            )
            mixed = (q @ k.transpose(2, 3)).softmax(-1) @ v
            return self.o(mixed.transpose(1, 2).reshape(n, tokens, heads * size))  # type: ignore[operator]

    return evidence_of(
        _torch(Attention(), batches[0], {f"{name}.weight": value.T for name, value in weights.items()}), batches
    )

"""What the tests of TVM share: when they run, and small models."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import parse

from graphprune.backends.tvm.package import REMEDY, installed

needs_tvm = pytest.mark.skipif(not installed(), reason=f"needs TVM: {REMEDY}")


def convolution(channels: int = 8) -> ir.Model:
    """A convolution with its activation, on one image."""
    text = f"""g (float[n, 4, 8, 8] x) => (float[n, {channels}, 8, 8] y) {{
        a = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(x, w)
        y = Relu(a)
    }}"""
    weight = np.random.default_rng(0).standard_normal((channels, 4, 3, 3)).astype(np.float32)
    return parse(text, w=weight)

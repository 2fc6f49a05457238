"""A residual around shuffled channels relates an axis to a permutation of itself."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from random_graphs import random_inputs

from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_slice import slice_model
from graphprune.models.reference.builder import GraphBuilder
from graphprune.models.reference.dense import shuffle
from graphprune.passes import canonicalize
from graphprune.proof import verify
from graphprune.selection import Selection


def shuffled_residual(channels: int, groups: tuple[int, ...]) -> onnx.ModelProto:
    b = GraphBuilder()
    x = b.conv(b.input("image", (2, 3, 4, 4)), channels, 1)
    y = x
    for count in groups:
        y = shuffle(b, y, count)
    b.output(b.conv(b.add(x, y), 3, 1), "sum")
    return b.model()


@pytest.mark.parametrize("channels", [6, 8, 12, 16])
def test_each_group_can_be_cut(channels: int) -> None:
    divisors = [size for size in range(2, channels) if channels % size == 0]
    for groups in [*product(divisors, repeat=1), *product(divisors, repeat=2)]:
        proto = shuffled_residual(channels, groups)
        model = ir.from_proto(proto)
        canonicalize(model)
        structure = read(model)
        for group in structure.groups:
            if group.size == 1:
                continue
            selection = Selection(structure.space, {group.leaf: np.arange(group.size) == 0})
            slim = model.clone()
            assert slice_model(slim, structure, selection)
            found = verify(model, slim, structure, selection, inputs=random_inputs(proto))
            assert found.max_error <= found.tolerance, (groups, group.name, found.reason)

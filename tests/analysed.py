"""Models as the analysis sees them."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from graphprune.cost import CostModel
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_shapes import infer_shapes
from graphprune.frontends.onnx_sizes import concrete_sizes
from graphprune.frontends.onnx_weights import weights_of
from graphprune.passes import canonicalize
from graphprune.score import Evidence, Scores, criterion
from graphprune.structure import Structure

__all__ = ["Analysed", "analyse"]


class Analysed:
    """A canonical model, its structure and its costs."""

    def __init__(self, model: ir.Model, dims: dict[str, int] | None = None) -> None:
        self.model = model
        self.structure: Structure = read(model)
        self.cost = CostModel(self.structure, concrete_sizes(model, dims))

    def scores(self, name: str = "l1", seed: int = 0) -> Scores:
        """Scores by the criterion called ``name``."""
        return criterion(name, seed).score(Evidence(self.structure, weights_of(self.model)))


def analyse(proto: onnx.ModelProto, dims: dict[str, int] | None = None) -> Analysed:
    """``proto`` made canonical and read."""
    model = ir.from_proto(proto)
    canonicalize(model)
    infer_shapes(model)
    return Analysed(model, dims)

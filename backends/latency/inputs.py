"""Inputs of typical sizes, those that costs and tables are for too."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import onnx_ir as ir

from graphprune.frontends.onnx_sizes import concrete_sizes
from graphprune.sample_inputs import Inputs, input_specs, random_inputs

__all__ = ["typical_inputs"]


def typical_inputs(model: ir.Model, dims: Mapping[str, int] | None = None, seed: int = 0) -> Inputs:
    """Random inputs with the extents at which multiply-accumulates are counted: one sample, images of 224 pixels.

    ``dims`` sets symbolic dimensions, as :func:`~graphprune.frontends.onnx_sizes.concrete_sizes` takes them.
    """
    sizes = concrete_sizes(model, dims)
    specs = []
    for spec in input_specs(model):
        known = sizes.get(spec.name, ())
        found = tuple(
            size if isinstance(size, int) or place >= len(known) or known[place] is None else known[place]
            for place, size in enumerate(spec.dims)
        )
        specs.append(dataclasses.replace(spec, dims=found))
    return random_inputs(specs, seed)

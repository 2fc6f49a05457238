"""Bring an ONNX graph into the one form that the analysis reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.frontends.onnx_shapes import infer_shapes
from graphprune.passes.attention_scale import write_attention_scales
from graphprune.passes.base import Context, Pass, Report, register
from graphprune.passes.clones import clone_shared_constants
from graphprune.passes.computed_numbers import fix_computed_numbers
from graphprune.passes.eliminate_dead_nodes import eliminate_dead_nodes
from graphprune.passes.fold import fold_constants
from graphprune.passes.input_sizes import read_sizes_off_inputs
from graphprune.passes.lift import (
    inline_functions,
    lift_constants,
    lift_subgraph_initializers,
    raise_ir_version,
    take_weights_out_of_inputs,
)
from graphprune.passes.names import unique_names
from graphprune.passes.noops import name_cast_types, remove_noops
from graphprune.passes.sequences import resolve_sequences
from graphprune.passes.shape_facts import fix_static_shapes
from graphprune.passes.split_sizes import write_split_sizes
from graphprune.passes.squeezed_dims import write_squeezed_dims
from graphprune.passes.strided_gathers import spell_strided_gathers

__all__ = ["Canonicalize", "canonicalize"]

_ROUNDS = 16
"""Folding reveals shapes and shapes reveal constants; each round goes at least one link further down such a chain."""


@register
@dataclass(frozen=True)
class Canonicalize(Pass):
    """Make constants initializers, names unique, static shapes constants, and shared small constants separate.

    The graph computes the same outputs from the same inputs, except that weights listed as graph inputs (as exporters
    did before IR version 4) become constants. Symbolic dimensions stay symbolic, and every value has a shape wherever
    it can be known.
    """

    def run(self, model: ir.Model, context: Context) -> Report:
        """Run each step in order, the ones that feed each other until nothing is left to do."""
        counts: Counter[str] = Counter()
        counts["inlined functions"] = inline_functions(model)
        weights = take_weights_out_of_inputs(model)
        counts["raised IR version"] = raise_ir_version(model)
        counts["weights taken out of the inputs"] = len(weights)
        counts["names"] = unique_names(model)
        counts["lifted constants"] = lift_constants(model)
        counts["lifted subgraph initializers"] = lift_subgraph_initializers(model)
        counts["shapes"] = int(infer_shapes(model))
        _simplify(model, counts)
        counts["numbers computed from sizes"] = fix_computed_numbers(model)
        if counts["numbers computed from sizes"]:
            _simplify(model, counts)
        counts["sizes read off inputs"] = read_sizes_off_inputs(model)
        if counts["sizes read off inputs"]:
            counts.update(eliminate_dead_nodes(model))
        counts["written attention scales"] = write_attention_scales(model)
        counts["written split sizes"] = write_split_sizes(model)
        counts["written squeezed dimensions"] = write_squeezed_dims(model)
        counts["cloned constants"] = clone_shared_constants(model)
        done = {name: count for name, count in counts.items() if count}
        notes = (
            (f"{len(weights)} weights were graph inputs with a default and are constants now ({weights[0]}, ...)",)
            if weights
            else ()
        )
        return Report(bool(done), done, notes)


def canonicalize(model: ir.Model) -> Report:
    """Canonicalise ``model`` in place; see :class:`Canonicalize`."""
    return Canonicalize()(model)


def _simplify(model: ir.Model, counts: Counter[str]) -> None:
    """Fold, fix, by-pass and sweep until a round changes nothing."""
    for _ in range(_ROUNDS):
        round_counts = Counter(
            {
                "named cast types": name_cast_types(model),
                "fixed static shapes": fix_static_shapes(model),
                "folded constants": fold_constants(model),
                "resolved sequences": resolve_sequences(model),
                "spelled strided lookups": spell_strided_gathers(model),
                "removed no-ops": remove_noops(model),
            }
        )
        round_counts.update(eliminate_dead_nodes(model))
        counts.update(round_counts)
        if not any(round_counts.values()):
            return
        infer_shapes(model)
    raise ModelError("the graph does not come to rest under canonicalisation: it is not a valid ONNX graph")

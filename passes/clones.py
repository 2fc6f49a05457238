"""Give each use of a small shared constant its own initializer, and undo that where nothing came of it.

Exporters merge equal constants, which couples layers that have nothing to do with each other: cutting one would have
to cut all. A matrix that is shared is tied on purpose and stays shared.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.frontends.onnx_reader import CLONE_OF
from graphprune.passes.tensors import Names, is_constant, rename

__all__ = ["clone_shared_constants", "merge_clones"]

_SMALL = 4096
"""Elements up to which a shared tensor of higher rank, read by element-wise operators only, is no tied weight."""

_INDEX_TYPES = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})

_ELEMENTWISE = frozenset({
    "Add", "And", "Clip", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod",
    "Mul", "Or", "PRelu", "Pow", "Sub", "Where",
})  # fmt: skip


def clone_shared_constants(model: ir.Model) -> int:
    """Give every further use of a shared constant an initializer ``<name>__use1``...; returns how many were made.

    Concerned are initializers of rank 0 or 1, integer index tensors, and small ones that only element-wise operators
    read. Clones share the tensor object of their original, which keeps its name and its first use.
    """
    names = Names(model)
    count = 0
    for value in list(model.graph.initializers.values()):
        uses = [(user, index) for user, index in value.uses()]
        if not is_constant(value) or not _separable(value, uses):
            continue
        origin = value.metadata_props.get(CLONE_OF) or value.name
        assert origin is not None
        for user, index in uses if value.is_graph_output() else uses[1:]:
            clone = ir.Value(
                name=names.fresh(f"{origin}__use1", _numbered),
                shape=value.shape,
                type=value.type,
                const_value=value.const_value,
                metadata_props={**value.metadata_props, CLONE_OF: origin},
            )
            model.graph.register_initializer(clone)
            user.replace_input_with(index, clone)
            count += 1
    return count


def merge_clones(model: ir.Model) -> int:
    """Merge clones that still hold the same tensor as their original, or as each other; returns how many are gone.

    Of clones whose original is gone or was changed otherwise, the first of each kind stays, under the original's
    name if that is free.
    """
    families: dict[str, list[ir.Value]] = {}
    for value in model.graph.initializers.values():
        origin = value.metadata_props.get(CLONE_OF)
        if origin is not None:
            families.setdefault(origin, []).append(value)
    count = 0
    for origin, clones in families.items():
        original = model.graph.initializers.get(origin)
        kinds = [original] if original is not None else []
        for clone in clones:
            del clone.metadata_props[CLONE_OF]
            same = next((kind for kind in kinds if _equal(kind, clone)), None)
            if same is None or clone.is_graph_output() or clone.is_graph_input():
                kinds.append(clone)
                continue
            clone.replace_all_uses_with(same)
            assert clone.name is not None
            del model.graph.initializers[clone.name]
            count += 1
        if original is None and not kinds[0].is_graph_output() and origin not in Names(model).taken:
            rename(kinds[0], origin)
    return count


def _numbered(name: str, count: int) -> str:
    return f"{name.removesuffix('1')}{count + 1}"


def _separable(value: ir.Value, uses: list[tuple[ir.Node, int]]) -> bool:
    """Return whether the uses of ``value`` have no reason to stay alike."""
    if len(uses) + value.is_graph_output() < 2:
        return False
    tensor = value.const_value
    assert tensor is not None
    if len(tensor.shape) <= 1 or tensor.dtype in _INDEX_TYPES:
        return True
    return tensor.size <= _SMALL and all(user.domain == "" and user.op_type in _ELEMENTWISE for user, _ in uses)


def _equal(a: ir.Value, b: ir.Value) -> bool:
    """Return whether two initializers hold the same bytes; big tensors in files are equal only if they are one."""
    first, second = a.const_value, b.const_value
    if first is second or first is None or second is None:
        return first is second
    if first.dtype != second.dtype or list(first.shape) != list(second.shape):
        return False
    if isinstance(first, ir.ExternalTensor) and isinstance(second, ir.ExternalTensor):
        same = (first.path, first.offset, first.length) == (second.path, second.offset, second.length)
        if same or max(first.nbytes, second.nbytes) > _SMALL * 64:
            return same
    if isinstance(first, ir.StringTensor) or isinstance(second, ir.StringTensor):
        return bool(np.array_equal(first.numpy(), second.numpy()))
    return first.tobytes() == second.tobytes()

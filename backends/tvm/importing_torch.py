"""PyTorch programs as TVM's Relax modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from graphprune.backends.base import TensorSpec
from graphprune.backends.quiet import quiet
from graphprune.backends.tvm.importing import ELSEWHERE, Imported, leave_blocks, local_values, refusal
from graphprune.backends.tvm.package import library
from graphprune.errors import ModelError, UsageError
from graphprune.frontends.torch_fingerprint import fingerprint
from graphprune.frontends.torch_program import TorchProgram, capture
from graphprune.sample_inputs import Inputs

__all__ = ["from_torch"]


def from_torch(program: Any, name: str) -> Imported:
    """The module of an exported program, or of one that graphprune captured.

    Raises:
        ModelError: TVM's front end does not support an operator, or the program takes or gives what is no tensor.
        UsageError: it is a module, of which nothing says what goes in.
    """
    if isinstance(program, torch.nn.Module):
        raise UsageError(f"{name}: export it first, as torch.export.export(module, example_inputs)")
    captured = program if isinstance(program, TorchProgram) else capture(program)
    with quiet():
        exported: Any = _exported(captured) if isinstance(program, TorchProgram) else program
    library()
    from tvm.relax.frontend.torch import from_exported_program

    try:
        with quiet():
            module = from_exported_program(exported, unwrap_unit_return_tuple=True)
    except Exception as error:  # the front end raises whatever it comes upon
        leave_blocks(error)
        raise ModelError(_unsupported(name, error) or refusal(name, error)) from error
    signature = exported.graph_signature
    inputs = _specs(exported, signature.user_inputs, name)
    with quiet():
        runnable = exported.module()

    def reference(feed: Inputs) -> list[np.ndarray[Any, Any]]:
        with torch.no_grad():
            found = runnable(*(torch.from_numpy(feed[spec.name]) for spec in inputs))
        return [each.numpy() for each in pytree.tree_leaves(found)]

    facts = {"name": name, "fingerprint": fingerprint(captured.module)}
    return Imported(module, inputs, _specs(exported, signature.user_outputs, name), facts, reference)


def _exported(program: TorchProgram) -> torch.export.ExportedProgram:
    return torch.export.export(
        program.module,
        program.args,
        dict(program.kwargs),
        dynamic_shapes=program.dynamic_shapes,
        strict=False,
    )


def _specs(exported: Any, names: Sequence[Any], name: str) -> tuple[TensorSpec, ...]:
    """The tensors of those names; symbolic sizes keep the symbols that the export gave them."""
    nodes = {node.name: node for node in exported.graph.nodes}
    found = []
    for each in names:
        value = nodes[each].meta.get("val") if each in nodes else None
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"{name}: '{each}' is no tensor, and TVM's programs take and give nothing else")
        dims = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
        found.append(TensorSpec(str(each), str(value.dtype).removeprefix("torch."), dims))
    return tuple(found)


def _unsupported(name: str, error: Exception) -> str:
    """One line that names the first operator that the front end has no entry for, if that was the reason."""
    for values in local_values(error.__traceback__):
        if "missing_func_types" not in values:
            continue
        missing = set(values["missing_func_types"])
        for node in values.get("nodes", ()):
            kind = getattr(node.target, "__name__", "")
            if node.op == "call_function" and kind in missing:
                others = sorted(missing - {kind})
                more = f", nor {', '.join(others)}" if others else ""
                return f"{name}: TVM does not support the operator {kind} (node '{node.name}'){more}; {ELSEWHERE}"
    return ""

"""Tensors of a PyTorch program whose contents do not depend on its inputs: index tables, permutations, masks.

They are evaluated only where a rule asks, and only as long as they are made of integers: what is computed from
parameters is never a constant, since training changes those.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import fx

__all__ = ["Constants"]

MAX_ELEMENTS = 1 << 22

_SEEDED = ("rand", "bernoulli", "dropout", "multinomial", "normal", "empty")
"""Operators that make other values at each run."""


class Constants:
    """The tensors that are constant as far as they are ``known``, and how the others are made."""

    def __init__(self) -> None:
        self.known: dict[str, torch.Tensor | None] = {}
        self._made: dict[str, tuple[str, fx.Node]] = {}

    def note(self, label: str, prefix: str, node: fx.Node) -> None:
        """Remember how a tensor is made."""
        self._made[label] = (prefix, node)

    def array(self, label: str) -> npt.NDArray[Any] | None:
        """The contents of a tensor; None where they are not constant, or not integers."""
        value = self._value(label)
        if value is None or value.is_floating_point() or value.is_complex():
            return None
        array: npt.NDArray[Any] = value.detach().cpu().numpy()
        return array

    def _value(self, label: str) -> torch.Tensor | None:
        """Evaluate what ``label`` needs, without recursion: such chains may be long."""
        pending = [label]
        while pending:
            current = pending[-1]
            if current in self.known:
                pending.pop()
                continue
            if current not in self._made:
                self.known[current] = None
                continue
            prefix, node = self._made[current]
            missing = [name for each in node.all_input_nodes if (name := prefix + each.name) not in self.known]
            if missing:
                pending.extend(missing)
            else:
                self.known[current] = self._evaluate(prefix, node)
        found = self.known[label]
        unreadable = found is None or found.is_meta or isinstance(found, torch._subclasses.FakeTensor)
        return None if unreadable else found

    def _evaluate(self, prefix: str, node: fx.Node) -> torch.Tensor | None:
        target, stated = node.target, node.meta.get("val")
        if not isinstance(target, torch._ops.OpOverload) or not isinstance(stated, torch.Tensor):
            return None
        if target._schema.is_mutable or any(word in target._schema.name for word in _SEEDED):
            return None
        operands = {each: self.known[prefix + each.name] for each in node.all_input_nodes}
        if any(value is None or value.is_meta for value in operands.values()):
            return None
        if not all(isinstance(size, int) and size <= MAX_ELEMENTS for size in stated.shape):
            return None
        args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda each: operands[each])
        try:
            with torch.no_grad():
                value = target(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return None
        return value if isinstance(value, torch.Tensor) and value.numel() <= MAX_ELEMENTS else None

"""Read attributes of ONNX nodes; one that is absent, a reference or of another type counts as not given."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["held", "integer", "integers", "tensor"]


def integer(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute of ``node``."""
    attribute = _given(node, name, ir.AttributeType.INT)
    return default if attribute is None else attribute.as_int()


def integers(node: ir.Node, name: str) -> list[int] | None:
    """Return a list attribute of ``node``."""
    attribute = _given(node, name, ir.AttributeType.INTS)
    return None if attribute is None else list(attribute.as_ints())


def tensor(node: ir.Node, name: str) -> ir.TensorProtocol | None:
    """Return a tensor attribute of ``node``."""
    attribute = _given(node, name, ir.AttributeType.TENSOR)
    return None if attribute is None else held(attribute)


def held(attribute: ir.Attr) -> ir.TensorProtocol:
    """Return the tensor in an attribute known to hold one; ``as_tensor`` asks again, at length."""
    found: ir.TensorProtocol = attribute.value
    return found


def _given(node: ir.Node, name: str, kind: ir.AttributeType) -> ir.Attr | None:
    attribute = node.attributes.get(name)
    return None if attribute is None or attribute.is_ref() or attribute.type != kind else attribute

"""Functions of one number that networks apply to each position alike, by the names of their operators on both hosts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.rules.call import Call

__all__ = ["NORMS", "Bounds", "Function", "bounds_of", "function_of", "named"]

Values: TypeAlias = npt.NDArray[np.float64]
Function: TypeAlias = Callable[[Values], Values]
Bounds: TypeAlias = tuple[float, float]

NORMS = ("batchnormalization", "batchnorm", "nativebatchnormlegitnotraining", "batchnormnoupdate")
"""Batch normalisations, as :func:`named` calls them."""


def named(call: Call) -> str:
    """The name of an operator without its domain, overload and underscores: ``onnx.LeakyRelu`` is ``leakyrelu``."""
    parts = call.op.split(".")
    name = parts[1] if parts[0] == "aten" else parts[-1]
    return name.replace("_", "").lower()


def function_of(call: Call) -> Function | None:
    """What an operator does to each number, None where it is no function of one number that is known here."""
    make = _TABLE.get(named(call))
    return None if make is None else make(call)


def bounds_of(call: Call) -> Bounds | None:
    """Between which numbers an operator leaves each as it is, if it moves all others to the nearer bound."""
    make = _BOUNDS.get(named(call))
    return None if make is None else make(call)


def _clip_bounds(call: Call) -> Bounds | None:
    """Those of an ONNX Clip: attributes up to opset 10, operands since; None where they are computed."""
    found = []
    for number, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        operand = call.operand(number)
        value = operand.read() if operand is not None else call.attribute(name, default)
        if value is None:
            return None
        found.append(float(np.asarray(value).reshape(())))
    return found[0], found[1]


def _sigmoid(x: Values) -> Values:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))))


def _normal(x: Values) -> Values:
    return np.asarray(0.5 * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))))


def _clip(call: Call) -> Function:
    low, high = _bound(call, ("min_val", "min"), 1, -np.inf), _bound(call, ("max_val", "max"), 2, np.inf)
    return lambda x: np.clip(x, low, high)


def _bound(call: Call, names: tuple[str, ...], operand: int, default: float) -> float:
    given = next((call.attributes[name] for name in names if call.attributes.get(name) is not None), None)
    if given is None:
        constant = call.operand(operand)
        stored = None if constant is None else constant.read()
        given = default if stored is None or np.size(stored) != 1 else np.asarray(stored, np.float64).item()
    return float(given)


def _slope(call: Call) -> float:
    return float(call.attribute("alpha", call.attribute("negative_slope", 0.01)))


def _leaky(call: Call) -> Function:
    slope = _slope(call)
    return lambda x: np.where(x > 0, x, slope * x)


def _constant(function: Function) -> Callable[[Call], Function]:
    return lambda _: function


_TABLE: dict[str, Callable[[Call], Function]] = {
    "relu": _constant(lambda x: np.maximum(x, 0)),
    "relu6": _constant(lambda x: np.clip(x, 0, 6)),
    "leakyrelu": _leaky,
    "clip": _clip,
    "clamp": _clip,
    "hardtanh": _clip,
    "sigmoid": _constant(_sigmoid),
    "tanh": _constant(np.tanh),
    "silu": _constant(lambda x: x * _sigmoid(x)),
    "swish": _constant(lambda x: x * _sigmoid(x)),
    "gelu": _constant(lambda x: x * _normal(x)),
    "quickgelu": _constant(lambda x: x * _sigmoid(1.702 * x)),
    "fastgelu": _constant(lambda x: x * _normal(x)),
    "hardswish": _constant(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "hardsigmoid": _constant(lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    "erf": _constant(lambda x: 2 * _normal(x * math.sqrt(2)) - 1),
    "elu": _constant(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    "mish": _constant(lambda x: x * np.tanh(np.log1p(np.exp(np.minimum(x, 30))))),
    "softplus": _constant(lambda x: np.log1p(np.exp(np.minimum(x, 30)))),
    "abs": _constant(np.abs),
    "square": _constant(np.square),
    "neg": _constant(np.negative),
}

_BOUNDS: dict[str, Callable[[Call], Bounds | None]] = {
    "relu": lambda _: (0.0, math.inf),
    "relu6": lambda _: (0.0, 6.0),
    "clip": _clip_bounds,
    "hardtanh": lambda call: (float(call.attribute("min_val", -1.0)), float(call.attribute("max_val", 1.0))),
}

"""ATen's operators that treat every position by itself (see :mod:`graphprune.rules.pointwise`).

All tensors among the arguments share their axes by broadcasting; numbers have none. Overloads follow one row.
"""

from __future__ import annotations

from graphprune.rules.call import Axes, Call
from graphprune.rules.pointwise import UNARY, cast_like, first_only, pointwise
from graphprune.rules.table import Rule, bind


def _aten(names: str) -> str:
    return " ".join(f"aten.{name}" for name in names.split())


bind(
    _aten(
        "abs absolute acos acosh angle arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh bitwise_not "
        "ceil celu cos cosh deg2rad digamma elu erf erfc erfinv exp exp2 expm1 fix floor frac gelu hardshrink "
        "hardsigmoid hardswish hardtanh i0 isfinite isinf isnan isneginf isposinf isreal leaky_relu lgamma log log10 "
        "log1p log2 log_sigmoid logical_not logit mish nan_to_num neg negative polygamma positive rad2deg reciprocal "
        "relu relu6 round rrelu rsqrt selu sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink "
        "special_entr special_erf special_erfc special_erfinv special_exp2 special_expit special_expm1 "
        "special_gammaln special_i0 special_log1p special_logit special_ndtr special_round special_sinc sqrt square "
        "tan tanh threshold trunc"
    ),
    UNARY,
    "self",
)
bind(
    _aten(
        "_cast_Float _conj _conj_physical _neg_view _to_copy alias alias_copy clone conj conj_physical contiguous "
        "detach detach_copy imag lift lift_fresh lift_fresh_copy real resolve_conj resolve_neg to"
    ),
    UNARY,
    "self",
)
bind("aten.to.other aten.type_as", cast_like, "self other")
bind(
    _aten(
        "empty_like full_like ones_like rand_like randint_like randn_like zero zeros_like "
        "cauchy exponential geometric log_normal normal random uniform"
    ),
    UNARY,
    "self",
)
bind(_aten("alpha_dropout dropout feature_alpha_dropout feature_dropout"), UNARY)  # in place it is named otherwise
bind("aten.native_dropout", pointwise, "input")
bind("aten.fill", first_only, "self value")
bind("aten.clamp aten.clip", pointwise, "self min max")
bind("aten.clamp_min", pointwise, "self min")
bind("aten.clamp_max", pointwise, "self max")
bind(
    _aten(
        "__and__ __lshift__ __or__ __rshift__ __xor__ add arctan2 atan2 bitwise_and bitwise_left_shift bitwise_or "
        "bitwise_right_shift bitwise_xor copysign div divide eq float_power floor_divide fmax fmin fmod gcd ge greater "
        "greater_equal gt hypot isclose lcm ldexp le less less_equal logaddexp logaddexp2 logical_and logical_or "
        "logical_xor lt max.other maximum min.other minimum mul multiply ne nextafter not_equal pow remainder rsub "
        "special_xlogy sub subtract true_divide xlogy"
    ),
    pointwise,
)
bind("aten.frexp", pointwise, "self")
bind("aten.igamma aten.igammac", pointwise, "self other")
bind("aten.isin", Rule("*n, - -> *n"), "elements test_elements")
bind("aten.heaviside", pointwise, "self values")
bind("aten.where.self aten.where.Scalar aten.where.ScalarOther aten.where.ScalarSelf", pointwise)
bind("aten.masked_fill", pointwise, "self mask value")
bind("aten.lerp", pointwise, "self end weight")
bind("aten.addcdiv aten.addcmul", pointwise, "self tensor1 tensor2")
bind("aten.bernoulli", pointwise, "self p")
bind("aten.normal.Tensor_Tensor aten.normal.Tensor_float aten.normal.float_Tensor", pointwise)
bind("aten.copy", pointwise, "self src")
bind("aten.complex", pointwise, "real imag")
bind("aten.polar", pointwise, "abs angle")
bind("aten.view_as_real", Rule("*n -> *n 2"), "self")
bind("aten.view_as_complex", Rule("*n 2 -> *n"), "self")


def _slopes(call: Call) -> str:
    """A slope for each channel, or one for all."""
    return "n c *s, c~ -> n c *s" if len(call.axes(0)) > 1 else "*n, c!~ -> *n"


bind("aten.prelu", Rule(_slopes), "self weight")
bind("aten._prelu_kernel", pointwise, "self weight")


def halves(call: Call) -> list[Axes | None]:
    """A value and its gate are the two halves of a dimension."""
    x = call.axes(0)
    at = int(call.attribute("dim", -1)) % len(x)
    names = [f"x{dim}" for dim in range(len(x))]
    left = [f"(2 {name})" if dim == at else name for dim, name in enumerate(names)]
    return Rule(f"{' '.join(left)} -> {' '.join(names)}")(call)


bind("aten.glu", halves, "self")


def per_channel(call: Call) -> list[Axes | None]:
    """A scale and a zero point for each position along ``axis``."""
    x = call.axes(0)
    at = int(call.attribute("axis")) % len(x)
    for number in range(1, len(call.operands)):
        operand = call.operand(number)
        if operand is not None and operand.axes:
            call.unify(x[at], call.axes(number)[0])
    return [x] * max(len(call.result_sizes), 1)


bind("aten.fake_quantize_per_tensor_affine aten.fake_quantize_per_tensor_affine_cachemask", first_only)
bind("aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams", first_only)
_LIBRARY = "quantized_decomposed"
bind(f"{_LIBRARY}.quantize_per_tensor {_LIBRARY}.dequantize_per_tensor", first_only)
bind(f"{_LIBRARY}.quantize_per_channel {_LIBRARY}.dequantize_per_channel", per_channel, "input scales zero_points")
bind("aten.fake_quantize_per_channel_affine", per_channel, "self scale zero_point")
bind("aten.fake_quantize_per_channel_affine_cachemask", per_channel, "self scale zero_point")

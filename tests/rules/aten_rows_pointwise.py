"""Samples of operators that treat every position by itself."""

from __future__ import annotations

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators

from rules.aten_registry import const, data, of, positive, row, rows

_x = (2, 3, 4)

rows(
    "abs absolute angle arctan arcsinh asinh atan ceil celu cos cosh deg2rad elu erf erfc exp exp2 expm1 fix floor "
    "frac gelu hardshrink hardsigmoid hardswish hardtanh i0 isfinite isinf isnan isneginf isposinf isreal leaky_relu "
    "log_sigmoid logical_not mish nan_to_num neg negative positive rad2deg reciprocal relu relu6 round rrelu selu sgn "
    "sigmoid sign signbit silu sin sinc sinh softplus softshrink special_erf special_erfc "
    "special_erfinv special_expit special_exp2 "
    "special_expm1 special_i0 special_ndtr special_sinc square tan tanh trunc "
    "acos arccos arcsin arctanh asin atanh erfinv special_round",
    _x,
)
rows(
    "acosh arccosh digamma lgamma log log10 log1p log2 logit rsqrt special_entr special_gammaln "
    "special_log1p special_logit sqrt",
    positive(2, 3, 4),
)
row("bitwise_not", of("int64", 2, 3))
row("threshold", _x, 0.1, 20.0)
row("polygamma", 2, positive(2, 3))
row("leaky_relu_", _x, 0.2)

rows(
    "_cast_Float _conj_physical _neg_view _to_copy alias alias_copy clone conj conj_physical contiguous detach "
    "detach_copy lift lift_fresh lift_fresh_copy resolve_conj resolve_neg",
    _x,
)
rows("real imag conj _conj angle resolve_conj", of("complex64", 2, 3))
row("to", _x, torch.float64)
row("to.other", _x, of("float64", 5))
row("type_as", _x, of("float64", 5))
row("_to_copy", _x, dtype=torch.int32)
rows("ones_like zeros_like zero", _x)
row("full_like", _x, 3)
rows("empty_like rand_like randn_like", _x, follows=True)
row("randint_like", _x, 9, follows=True)
rows("cauchy exponential log_normal_ normal_ random uniform_", _x, follows=True)
row("geometric", _x, 0.5, follows=True)
rows("alpha_dropout dropout feature_alpha_dropout feature_dropout native_dropout", _x, 0.5, False)
rows("dropout feature_dropout native_dropout", _x, 0.5, True, follows=True)
row("fill", _x, 2)
row("fill", _x, ())
row("clamp", _x, -0.5, 0.5)
row("clamp", _x, (3, 1), (4,))
row("clip", _x, max=0.5)
row("clamp_min", _x, 0.1)
row("clamp_max", _x, (4,))

rows(
    "add arctan2 atan2 copysign div divide eq fmax fmin fmod ge greater greater_equal gt hypot isclose ldexp le less "
    "less_equal logaddexp logaddexp2 logical_and logical_or logical_xor lt max maximum min minimum mul multiply ne "
    "nextafter not_equal remainder rsub sub subtract true_divide",
    _x,
    (3, 4),
)
row("add", _x, (2, 1, 4), alpha=2)
row("add", _x, (2, 1, 1))
row("add", (1, 1), (1, 4))
row("add_", _x, (3, 1))
row("mul", _x, 2.0)
row("mul", _x, ())
row("mul", _x, const([1.0]))
row("div", _x, (4,), rounding_mode="floor")
row("floor_divide", _x, 0.3)
rows("pow float_power special_xlogy xlogy", positive(2, 3), positive(3))
row("pow", (2, 3), 2)
row("pow", 2.0, (2, 3))
rows(
    "__and__ __lshift__ __or__ __rshift__ __xor__ bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift "
    "bitwise_xor gcd lcm",
    of("int64", 2, 3).abs(),
    of("int64", 3, seed=1).abs(),
)
row("frexp", _x)
rows("igamma igammac", positive(2, 3), positive(3))
row("isin", of("int64", 2, 3), data([1, 2, 3, 4]))
row("heaviside", _x, (4,))
row("where", data([True, False, True]), (2, 3), (2, 1))
row("where", of("bool", 2, 3), (3,), 0.5)
row("where", of("bool", 2, 3), 0.5, (3,))
row("where", of("bool", 2, 3), 0.5, 2.0)
row("masked_fill", _x, of("bool", 3, 4), 7.0)
row("masked_fill", _x, of("bool", 2, 1, 1), ())
row("lerp", _x, (4,), 0.3)
row("lerp", _x, (3, 4), (3, 1))
rows("addcdiv addcmul", _x, (4,), (3, 1), value=0.5)
row("bernoulli", positive(2, 3), follows=True)
row("bernoulli", (2, 3), 0.5, follows=True)
row("normal", (2, 3), positive(2, 3), follows=True)
row("normal", (2, 3), 0.5, follows=True)
row("normal", 0.0, positive(2, 3), follows=True)
row("copy", _x, (3, 4))
rows("complex polar", _x, (2, 3, 4))
row("view_as_real", of("complex64", 2, 3))
row("view_as_complex", (2, 3, 2))
row("prelu", (2, 3, 4, 5), (3,))
row("prelu", (2, 3, 4), (1,))
row("prelu", (2, 3), ())
row("prelu", (3,), (1,))
row("_prelu_kernel", (2, 3, 4), (3, 1))
row("glu", (2, 6))
row("glu", (2, 6, 3), 1)
rows("fake_quantize_per_tensor_affine fake_quantize_per_tensor_affine_cachemask", _x, 0.1, 1, 0, 5)
row("fake_quantize_per_tensor_affine", _x, positive(1), data([1], torch.int32), 0, 5)
row(
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    _x,
    positive(1),
    data([1], torch.int32),
    data([1]),
    0,
    5,
)
rows(
    "fake_quantize_per_channel_affine fake_quantize_per_channel_affine_cachemask",
    _x,
    positive(3),
    data([1, 2, 3], torch.int32),
    1,
    0,
    5,
)

_rows, _whole = "quantized_decomposed.quantize_per_", "quantized_decomposed.dequantize_per_"
row(f"{_rows}tensor", _x, 0.1, 1, 0, 5, torch.uint8)
row(f"{_rows}tensor", _x, positive(1), data([1]), 0, 5, torch.uint8)
row(f"{_rows}channel", _x, positive(3), data([1, 2, 3]), 1, 0, 5, torch.uint8)
row(f"{_whole}tensor", of("uint8", 2, 3), 0.1, 1, 0, 255, torch.uint8)
row(f"{_whole}channel", of("uint8", 2, 3), positive(3), data([1, 2, 3]), 1, 0, 255, torch.uint8)
row(f"{_whole}channel", of("uint8", 2, 3), positive(3), None, 1, 0, 255, torch.uint8)

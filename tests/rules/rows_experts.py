"""Samples of mixtures of experts."""

from __future__ import annotations

import numpy as np

from rules.references import mixture
from rules.registry import of, positive, row

_M = "com.microsoft."
_N, _C, _E, _F = 3, 4, 5, 6
for k in (1, 2):
    row(f"{_M}MoE", (_N, _C), (_N, _E), (_E, _F, _C), (_E, _F), (_E, _C, _F), (_E, _C), k=k, activation_type="relu")
row(
    f"{_M}MoE", (2, _N, _C), (2 * _N, _E), (_E, 2 * _F, _C), (_E, 2 * _F), (_E, _C, _F), (_E, _C),
    k=1, activation_type="swiglu", swiglu_fusion=1,
)  # fmt: skip
row(
    f"{_M}MoE", (_N, _C), (_N, _E), (_E, 2 * _F, _C), None, (_E, _C, _F),
    k=1, activation_type="swiglu", swiglu_fusion=2, reference=mixture,
)  # fmt: skip
row(
    f"{_M}MoE",
    (_N, _C),
    (_N, _E),
    (_E, _F, _C),
    None,
    (_E, _C, _F),
    None,
    (_E, _F, _C),
    k=1,
    activation_type="silu",
    reference=mixture,
)

_c, _f = 32, 48
for block in (0, 16):
    scales = (np.float32(positive(_E, n, *([k // block] if block else [])) / 50) for n, k in ((_f, _c), (_c, _f)))
    first, second = scales
    row(
        f"{_M}QMoE", (_N, _c), (_N, _E), of(np.uint8, _E, _f, _c // 2) * 12, first, (_E, _f),
        of(np.uint8, _E, _c, _f // 2) * 12, second, (_E, _c), k=1, activation_type="relu", expert_weight_bits=4,
        **({"block_size": block} if block else {}), tolerance=1e-3,
    )  # fmt: skip

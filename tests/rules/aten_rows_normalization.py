"""Samples of normalisation and softmax."""

from __future__ import annotations

from typing import Any

import torch

from rules.aten_registry import positive, row, rows

_x, _stored = (4, 3, 5), (3,)
_native = torch.ops.aten.native_batch_norm


def _cudnn(x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float) -> Any:
    return (*_native(x, weight, bias, mean, var, training, momentum, eps), torch.zeros(0, dtype=torch.uint8))


row("batch_norm", _x, (3,), (3,), (3,), positive(3), False, 0.1, 1e-5, True)
row("batch_norm", _x, None, None, (3,), positive(3), False, 0.1, 1e-5, True)
row("batch_norm", (4, 3), (3,), (3,), (3,), positive(3), True, 0.1, 1e-5, True)
row("batch_norm", _x, (3,), (3,), None, None, True, 0.1, 1e-5, True)
for _training in (False, True):
    rows(
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional",
        (4, 3, 5),
        (3,),
        (3,),
        (3,),
        positive(3),
        _training,
        0.1,
        1e-5,
    )
row("_batch_norm_impl_index", _x, (3,), (3,), (3,), positive(3), False, 0.1, 1e-5, True)
row("_native_batch_norm_legit", _x, (3,), (3,), True, 0.1, 1e-5)
rows("_native_batch_norm_legit_no_training", _x, (3,), (3,), (3,), positive(3), 0.1, 1e-5)
rows("_batch_norm_with_update", _x, (3,), (3,), (3,), positive(3), 0.1, 1e-5)
rows("_batch_norm_with_update_functional", _x, (3,), (3,), (3,), positive(3), 0.1, 1e-5)
rows("_batch_norm_no_update", _x, (3,), (3,), (3,), positive(3), 0.1, 1e-5)
rows("cudnn_batch_norm miopen_batch_norm", _x, (3,), (3,), (3,), positive(3), True, 0.1, 1e-5, reference=_cudnn)
row("instance_norm", _x, (3,), (3,), None, None, True, 0.1, 1e-5, True)
row("instance_norm", _x, None, None, (3,), positive(3), False, 0.1, 1e-5, True)

row("layer_norm", (2, 3, 4), [4], (4,), (4,))
row("layer_norm", (2, 3, 4), [3, 4], (3, 4))
row("layer_norm", (2, 3, 4), [4])
rows("native_layer_norm", (2, 3, 4), [4], (4,), (4,), 1e-5)
rows("native_layer_norm", (2, 3, 4), [3, 4], None, None, 1e-5)
row("rms_norm", (2, 3, 4), [4], (4,))
row("rms_norm", (2, 3, 4), [3, 4], None, 1e-5)
row("_fused_rms_norm", (2, 3, 4), [4], (4,), 1e-5)
row("group_norm", (2, 6, 5), 2, (6,), (6,))
row("group_norm", (2, 6), 3)
row("native_group_norm", (2, 6, 5), (6,), (6,), 2, 6, 5, 2, 1e-5)
row("native_group_norm", (2, 6, 5), None, None, 2, 6, 5, 3, 1e-5)

row("_weight_norm", (4, 3, 5), (4, 1, 1))
row("_weight_norm", (4, 3, 5), (1, 3, 1), 1)
row("_weight_norm_interface", (4, 3), (1, 3), 1)
row("_weight_norm_interface", (4, 3), (4, 1))
row("norm_except_dim", (4, 3, 5))
row("norm_except_dim", (4, 3, 5), 2, 2)
row("norm_except_dim", (4, 3), 2, -1)
row("renorm", (4, 3, 5), 2, 1, 0.5)
rows("softmax log_softmax special_softmax special_log_softmax _safe_softmax", (2, 3, 4), -1)
rows("softmax _safe_softmax", (2, 3, 4), 1)
rows("_softmax _log_softmax", (2, 3, 4), 1, False)

"""The operators that transformers adds to PyTorch; where it is not installed, in plain PyTorch."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import torch


def grouped_mm(input: torch.Tensor, weight: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
    """Runs of rows that end at ``offs``, each times a matrix of its own."""
    result = input.new_zeros(len(input), weight.shape[-1])
    start = 0
    for number, end in enumerate(offs.tolist()):
        result[start:end] = input[start:end] @ weight[number]
        start = end
    return result


if find_spec("transformers") is not None:
    import_module("transformers.integrations.moe")
else:
    torch.library.custom_op("transformers::grouped_mm_fallback", grouped_mm, mutates_args=())

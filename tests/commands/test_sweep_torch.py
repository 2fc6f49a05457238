"""Sweeps of PyTorch modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch import nn  # noqa: E402

import graphprune  # noqa: E402
from graphprune.errors import UsageError  # noqa: E402
from graphprune.sweep import sweep  # noqa: E402

pytestmark = pytest.mark.torch


def test_a_module_is_pruned_to_folders_and_goes_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 5)).eval()
    data = [(np.full(8, index, np.float32), index % 5) for index in range(12)]
    examples = (torch.zeros(4, 8),)
    found = sweep(module, examples, output=tmp_path, ratio=[0.5, 0.75], evaluation=data, metric="accuracy", plot=False)
    assert [point.file for point in found.points] == ["slim-ratio-0.5", "slim-ratio-0.75"]
    slim = graphprune.load(tmp_path / "slim-ratio-0.5")
    assert slim(torch.zeros(4, 8)).shape == (4, 5)
    assert found.data["samples"] == 12
    again = sweep(module, examples, output=tmp_path, ratio=[0.5], evaluation=data, metric="accuracy", plot=False)
    assert again.made == 0
    with torch.no_grad():
        module[0].weight[0, 0] += 1
    with pytest.raises(UsageError, match="has points of another model"):
        sweep(module, examples, output=tmp_path, ratio=[0.5], evaluation=data, metric="accuracy", plot=False)

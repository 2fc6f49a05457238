from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from torch import nn  # noqa: E402

from graphprune.frontends.torch_program import capture  # noqa: E402


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_dropout_in_place_couples_as_any(kind: type[nn.Module], training: bool) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), kind(0.2, inplace=True), nn.Linear(8, 3))
    structure = capture(module.train(training), (torch.randn(2, 4),)).read()
    assert not structure.undeclared
    (group,) = structure.groups
    assert {"0.weight:0", "3.weight:1"} <= set(map(str, group.slices))

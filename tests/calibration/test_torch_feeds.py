"""Feeds of PyTorch programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_models import program  # noqa: E402

from graphprune.calibration.data import load_batches  # noqa: E402
from graphprune.calibration.observe import Calibration  # noqa: E402
from graphprune.calibration.torch_feeds import torch_specs  # noqa: E402
from graphprune.errors import UsageError  # noqa: E402

pytestmark = pytest.mark.torch


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.line = nn.Embedding(50, 8), nn.Linear(8, 5)

    def forward(self, tokens: Any, scale: Any = None, twice: bool = False) -> Any:
        made = self.line(self.table(tokens))
        made = made if scale is None else made * scale
        return made * 2 if twice else made


TOKENS = torch.zeros(4, 6, dtype=torch.long)


def test_specs_name_the_arguments() -> None:
    own = program(Words(), TOKENS, scale=torch.ones(4, 6, 1))
    assert [(spec.name, spec.dtype.name, spec.dims) for spec in torch_specs(own)] == [
        ("tokens", "int64", (4, 6)),
        ("scale", "float32", (4, 6, 1)),
    ]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((TOKENS,), {}),
        ((TOKENS, torch.ones(4, 6, 1)), {"twice": True}),
        ((TOKENS,), {"scale": torch.ones(4, 6, 1)}),
        ((), {"tokens": TOKENS, "scale": torch.ones(4, 6, 1)}),
    ],
)
def test_feeds_are_what_the_program_takes(args: Any, kwargs: Any) -> None:
    own = program(Words().eval(), *args, **kwargs)
    names = [spec.name for spec in torch_specs(own)]
    given = {"tokens": np.arange(48).reshape(8, 6), "scale": np.full((8, 6, 1), 3.0)}
    batches = load_batches({name: given[name] for name in names}, own)
    assert batches.samples == 8
    results = [outputs[0] for outputs in Calibration(own, batches.feeds).outputs()]
    assert own.source is not None
    for feed, result in zip(batches.feeds, results, strict=True):
        tokens = next(value for value in torch.utils._pytree.tree_leaves(feed) if value.dtype == torch.long)
        factor = (3 if "scale" in names else 1) * (2 if "twice" in kwargs else 1)
        with torch.no_grad():
            assert np.allclose(result, factor * own.source(tokens).numpy(), atol=1e-5)


def test_loaders_and_synthetic_tokens() -> None:
    image = program(nn.Conv2d(3, 4, 3), torch.zeros(2, 3, 8, 8))
    data = [(torch.full((3, 8, 8), float(index)), index) for index in range(9)]
    batches = load_batches(torch.utils.data.DataLoader(data, batch_size=4), image)
    assert batches.targets is not None
    assert (len(batches), batches.samples, [list(own) for own in batches.targets][-1]) == (4, 8, [6, 7])
    assert batches.feeds[3][0][1, 0, 0, 0] == 7
    tokens = load_batches("synthetic", program(Words(), TOKENS), limit=400)
    drawn = torch.cat([feed[0] for feed in tokens.feeds])
    assert (int(drawn.min()), int(drawn.max())) == (0, 49)
    with pytest.raises(UsageError, match="has shape 4x5, and the model takes samplesx6"):
        load_batches(np.zeros((4, 5), np.int64), program(Words(), TOKENS))


def test_half_precision_and_open_batches() -> None:
    half = program(nn.Linear(3, 2).bfloat16(), torch.zeros(2, 3, dtype=torch.bfloat16))
    assert load_batches(np.ones((2, 3)), half).feeds[0][0].dtype == torch.bfloat16
    from graphprune.frontends.torch_program import capture

    batch = torch.export.Dim("batch", min=1)
    opened = capture(nn.Linear(3, 2), (torch.zeros(2, 3),), dynamic_shapes=({0: batch},))
    batches = load_batches(np.ones((5, 3)), opened, batch=3)
    assert [tuple(feed[0].shape) for feed in batches.feeds] == [(3, 3), (2, 3)]
    assert [len(outputs[0]) for outputs in Calibration(opened, batches.feeds).outputs()] == [3, 2]

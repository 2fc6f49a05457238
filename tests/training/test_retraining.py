"""A pruned network is a network: it trains, switches modes, is saved and exported, whichever way it came back."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import graphprune  # noqa: E402
from graphprune.training import group_lasso, groups_of  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.parametrize("kind", ["resnet", "transformer"]),
    pytest.mark.parametrize("way", ["module", "graph"]),
]

BATCH, CLASSES, TOKENS = 16, 4, 6


class Block(nn.Module):
    """A basic residual block, with its 1x1 shortcut where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.shortcut(x) + self.bn2(self.conv2(y)))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2))
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(functional.relu(self.norm(self.stem(x))))
        return self.head(self.dropout(functional.adaptive_avg_pool2d(x, 1).flatten(1)))


class Layer(nn.Module):
    """A pre-norm layer: attention of separate projections, and two linear layers."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.scale = self.head_dim**-0.5
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        y = self.norm1(x)
        q, k, v = (
            project(y).view(n, t, self.num_heads, self.head_dim).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        y = functional.scaled_dot_product_attention(q, k, v, scale=self.scale).transpose(1, 2)
        x = x + self.dropout(self.o(y.reshape(n, t, self.num_heads * self.head_dim)))
        return x + self.dropout(self.down(functional.gelu(self.up(self.norm2(x)))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.position = nn.Parameter(torch.randn(1, TOKENS, 16))
        self.layers = nn.Sequential(Layer(16, 4, 32), Layer(16, 4, 32))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.layers(self.embed(tokens) + self.position)).mean(1))


@cache
def pruned(kind: str, way: str) -> tuple[nn.Module, dict[str, torch.Tensor], Any]:
    """The dense network, what its state was, and the result of pruning it, which no test may change."""
    torch.manual_seed(0)
    dense = (ResNet() if kind == "resnet" else Transformer()).eval()
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    result = graphprune.prune(dense, (batch(kind)[0],), ratio=0.5, way=way)
    assert result.way == way
    assert result.verified
    return dense, before, result


def batch(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    if kind == "resnet":
        return torch.randn(BATCH, 3, 8, 8, generator=generator), labels
    return torch.randint(20, (BATCH, TOKENS), generator=generator), labels


def slim(kind: str, way: str) -> nn.Module:
    """A pruned network of one's own."""
    return copy.deepcopy(pruned(kind, way)[2].module)


def train(model: nn.Module, kind: str, steps: int = 40) -> list[float]:
    """Losses while the module learns one batch by heart."""
    torch.manual_seed(2)
    inputs, labels = batch(kind)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(steps):
        loss = functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_loss_falls_and_the_dense_network_stays(kind: str, way: str) -> None:
    dense, before, result = pruned(kind, way)
    assert result.params.after < 0.7 * result.params.before
    model = slim(kind, way)
    assert sum(p.numel() for p in model.parameters()) == result.params.after
    start = {name: value.clone() for name, value in model.named_parameters()}
    losses = train(model, kind)
    assert losses[-1] < 0.5 * losses[0]
    assert all(not torch.equal(value, start[name]) for name, value in model.named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def test_what_came_back_shares_nothing_with_the_dense_network(kind: str, way: str) -> None:
    """Neither its tensors that were cut nor those that were not."""
    dense, _, result = pruned(kind, way)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*result.module.parameters(), *result.module.buffers())}
    theirs = {tensor.untyped_storage().data_ptr() for tensor in (*dense.parameters(), *dense.buffers())}
    assert own.isdisjoint(theirs - {0})


def test_modes(kind: str, way: str) -> None:
    """Training moves BatchNorm's statistics and drops out; evaluation does neither."""
    model, (inputs, _) = slim(kind, way), batch(kind)
    statistics = {name: value for name, value in model.named_buffers() if "running" in name}
    assert bool(statistics) == (kind == "resnet")
    with torch.no_grad():
        before = {name: value.clone() for name, value in statistics.items()}
        model.eval()
        still = model(inputs)
        assert torch.equal(model(inputs), still)
        assert all(torch.equal(value, before[name]) for name, value in model.named_buffers() if name in before)
        model.train()
        torch.manual_seed(3)
        first, second = model(inputs), model(inputs)
        assert not torch.equal(first, second)
        moved = [not torch.equal(value, before[name]) for name, value in model.named_buffers() if name in before]
        assert all(moved)
        assert len(moved) == len(before)
        model.eval()
        assert torch.equal(model(inputs), model(inputs))
        assert torch.equal(model(inputs), still) == (kind == "transformer")


def test_a_network_in_training_mode_stays_in_it(kind: str, way: str) -> None:
    """It was exported with its dropout and batch statistics; they can still be switched off."""
    torch.manual_seed(0)
    dense = (ResNet() if kind == "resnet" else Transformer()).train()
    result = graphprune.prune(dense, (batch(kind)[0],), ratio=0.5, way=way)
    assert (result.way, result.verified) == (way, True)
    assert dense.training
    assert result.module.training
    losses = train(result.module, kind)
    assert losses[-1] < 0.5 * losses[0]
    inputs, model = batch(kind)[0], result.module.eval()
    with torch.no_grad():
        assert torch.equal(model(inputs), model(inputs))


def test_what_is_left_can_be_regularized_again(kind: str, way: str) -> None:
    model, (inputs, _) = slim(kind, way), batch(kind)
    groups = groups_of(model, (inputs,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    first = group_lasso(groups, model, 1.0)
    first.backward()
    optimizer.step()
    assert 0 < group_lasso(groups, model, 1.0).item() < first.item()


def test_state_dict_round_trip(kind: str, way: str) -> None:
    dense, _, _ = pruned(kind, way)
    trained, other, (inputs, _) = slim(kind, way), slim(kind, way).eval(), batch(kind)
    assert set(trained.state_dict()) == set(dense.state_dict())
    train(trained, kind, 3)
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        expected = trained.eval()(inputs)
        assert not torch.allclose(other(inputs), expected)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other(inputs), expected)


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_export_equals_the_module(kind: str, way: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    result = replace(pruned(kind, way)[2], module=slim(kind, way))
    inputs, _ = batch(kind)
    train(result.module, kind, 3)
    path = result.to_onnx(tmp_path / "slim.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    (found,) = session.run(None, {given.name: inputs.numpy()})
    with torch.no_grad():
        expected = result.module.eval()(inputs).numpy()
    assert np.abs(expected).max() > 0.1
    # Sums of some hundred float32 products, in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

"""Parts of transformers on tokens, and heads of other networks on vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from random_modules.choice import SIGNAL, TOKENS, VECTOR, Choice, Shape, block

__all__ = ["norm"]


class RMSNorm(nn.Module):
    """The norm as Llama writes it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.float32 if x.dtype != torch.float64 else x.dtype)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5)
        return self.weight * y.to(x.dtype)


def norm(t: Choice, width: int) -> nn.Module:
    """Some norm over channels that come last, or none."""
    kind = t.pick(["layer", "layer", "rms", "own", "none", "plain"])
    if kind == "layer":
        return nn.LayerNorm(width, bias=t.chance(0.7))
    if kind == "rms":
        return nn.RMSNorm(width, eps=t.pick([None, 1e-5]))
    if kind == "own":
        return RMSNorm(width)
    return nn.LayerNorm(width, elementwise_affine=False) if kind == "plain" else nn.Identity()


@block(TOKENS, VECTOR, weight=2)
class MLP(nn.Module):
    """Two layers, in a residual at times."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = shape[-1]
        hidden = t.width()
        self.residual = t.chance(0.6)
        self.norm, self.act = norm(t, width), t.act()
        self.fc1, self.fc2 = nn.Linear(width, hidden, bias=t.chance(0.7)), nn.Linear(hidden, width, bias=t.chance(0.7))
        self.drop = nn.Dropout(t.pick([0.0, 0.1]))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.drop(self.act(self.fc1(self.norm(x)))))
        return x + y if self.residual else y


@block(TOKENS, VECTOR, weight=2)
class Gated(nn.Module):
    """A gated network: separate layers, one for both, or glu."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape[-1], t.pick([4, 6, 8])
        self.form = t.pick(["separate", "chunk", "glu", "split", "stack"])
        self.hidden = hidden
        if self.form == "separate":
            self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        else:
            self.both = nn.Linear(width, 2 * hidden)
        self.down, self.norm = nn.Linear(hidden, width), norm(t, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        if self.form == "separate":
            y = F.silu(self.gate(y)) * self.up(y)
        elif self.form == "glu":
            y = F.glu(self.both(y), -1)
        elif self.form == "chunk":
            gate, up = self.both(y).chunk(2, -1)
            y = F.gelu(gate) * up
        elif self.form == "split":
            gate, up = self.both(y).split((self.hidden, self.hidden), -1)
            y = gate.sigmoid() * up
        else:
            gate, up = self.both(y).unflatten(-1, (2, -1)).unbind(-2)
            y = F.relu(gate) * up
        z: Tensor = x + self.down(y)
        return z


@block(TOKENS)
class Mixer(nn.Module):
    """Tokens are mixed by a layer over their places."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        self.norm = norm(t, shape[-1])
        self.mix = nn.Sequential(nn.Linear(shape[1], 5), nn.GELU(), nn.Linear(5, shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.mix(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return y


@block(TOKENS, weight=0.7)
class Einsum(nn.Module):
    """Products by equations."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, heads, inner = shape[-1], t.pick([2, 3]), t.pick([3, 4])
        self.a = nn.Parameter(torch.randn(width, heads, inner) / math.sqrt(width))
        self.b = nn.Parameter(torch.randn(heads, inner, width) / math.sqrt(heads * inner))
        self.act = t.act()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(torch.einsum("ntc,chd->nthd", x, self.a))
        return torch.einsum("nthd,hdc->ntc", y, self.b)


@block(VECTOR, weight=0.7)
class Bilinear(nn.Module):
    """Products of two branches: a bilinear layer, an outer product, addmm, a batch of matrices."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = shape[-1]
        self.form = t.pick(["bilinear", "outer", "addmm", "experts", "norm"])
        self.one, self.two = nn.Linear(width, 4), nn.Linear(width, 3)
        if self.form == "bilinear":
            self.last: nn.Module = nn.Bilinear(4, 3, t.width())
        elif self.form == "norm":
            self.last = nn.BatchNorm1d(4)
        else:
            self.last = nn.Linear(12, t.width())
        if self.form in ("addmm", "experts"):
            self.weight = nn.Parameter(torch.randn(4, 12))
        if self.form == "addmm":
            self.bias = nn.Parameter(torch.randn(12))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.one(x), self.two(x)
        if self.form == "bilinear":
            y: Tensor = self.last(a, b)
        elif self.form == "norm":
            y = torch.cat((self.last(a), b), -1)
        elif self.form == "outer":
            y = self.last((a.unsqueeze(2) * b.unsqueeze(1)).flatten(1))
        elif self.form == "addmm":
            y = self.last(torch.addmm(self.bias, a, self.weight, beta=0.5))
        else:
            stacked = torch.stack((a, a * 2, a.relu()))
            matrices = self.weight.view(4, 3, 4).transpose(0, 1)
            y = self.last(torch.bmm(stacked, matrices).permute(1, 0, 2).reshape(-1, 12))
        return y


@block(TOKENS, weight=1.2)
class Recurrent(nn.Module):
    """An LSTM or GRU: layers, directions."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        made = t.pick([nn.LSTM, nn.GRU, nn.RNN])
        hidden, both = t.pick([4, 5, 6]), t.chance(0.3)
        self.first_ = t.chance(0.7)
        self.rnn = made(shape[-1], hidden, t.pick([1, 1, 2]), batch_first=self.first_, bidirectional=both)
        self.last = t.chance(0.3)

    def forward(self, x: Tensor) -> Tensor:
        if self.first_:
            y, state = self.rnn(x)
        else:
            y, state = self.rnn(x.transpose(0, 1))
            y = y.transpose(0, 1)
        if self.last:
            hidden = state[0] if isinstance(state, tuple) else state
            y = torch.cat((y, hidden[-1].unsqueeze(1).expand(-1, y.shape[1], -1)), -1)
        z: Tensor = y
        return z


class Causal(nn.Module):
    """A causal convolution over time."""

    kind = TOKENS

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = shape[-1] if self.kind == TOKENS else shape[1]
        self.conv = nn.Conv1d(width, width, 3, padding=2, groups=t.pick([1, width]))

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2) if self.kind == TOKENS else x
        y = F.silu(self.conv(y)[..., : y.shape[-1]])
        return y.transpose(1, 2) if self.kind == TOKENS else y


for _kind in (TOKENS, SIGNAL):
    block(_kind, weight=0.7)(type("Causal", (Causal,), {"kind": _kind}))


@block(TOKENS)
class Tables(nn.Module):
    """Learned positions and a class token, with a slice of them away again."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        length, width = shape[1:]
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.form = t.pick(["table", "embedding", "both"])
        if self.form != "embedding":
            self.table = nn.Parameter(torch.randn(1, length + 1, width))
        if self.form != "table":
            self.embed = nn.Embedding(length + 3, width)
        self.register_buffer("places", torch.arange(length + 1))
        self.layer = nn.Linear(width, t.width())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1)
        if self.form != "embedding":
            x = x + self.table[:, : x.shape[1]]
        if self.form != "table":
            x = x + self.embed(self.places[: x.shape[1]])
        y: Tensor = self.layer(x[:, 1:])
        return y

"""More of what sequences go through: cross-attention, biases, mixtures of experts, cells, decoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from random_modules.blocks_tokens import norm
from random_modules.choice import TOKENS, VECTOR, Choice, Shape, block

__all__: list[str] = []


@block(TOKENS, weight=2)
class Variant(nn.Module):
    """Attention with a variation: of its heads, its logits, or of what it attends to."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, length = shape[-1], shape[1]
        self.heads, self.dim = t.pick([(2, 4), (3, 2), (2, 3), (4, 2)])
        inner = self.heads * self.dim
        self.form = t.pick(
            [
                "queries",
                "bias",
                "alibi",
                "table",
                "talking",
                "gate",
                "linear",
                "temperature",
                "folded",
                "first",
                "einsum",
            ]
        )
        self.q, self.k, self.v, self.o = *(nn.Linear(width, inner) for _ in range(3)), nn.Linear(inner, width)
        if self.form == "queries":
            self.queries = nn.Parameter(torch.randn(length, width))
        if self.form == "bias":
            self.bias = nn.Parameter(torch.randn(self.heads, length, length))
        if self.form == "alibi":
            self.register_buffer("slopes", 0.5 ** torch.arange(1.0, self.heads + 1), persistent=t.chance(0.5))
        if self.form == "table":
            self.table = nn.Embedding(2 * length - 1, self.heads)
            self.register_buffer("index", torch.arange(length)[:, None] - torch.arange(length) + length - 1)
        if self.form == "talking":
            self.before, self.after = (
                nn.Linear(self.heads, self.heads, bias=False),
                nn.Conv2d(self.heads, self.heads, 1),
            )
        if self.form == "gate":
            self.gate = nn.Linear(width, self.heads)
        if self.form == "temperature":
            self.temperature = nn.Parameter(torch.rand(self.heads, 1, 1) + 0.5)
        self.norm = norm(t, width)

    def split(self, x: Tensor) -> Tensor:
        """Heads before tokens."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        y = self.norm(x)
        source = self.queries.expand(n, -1, -1) if self.form == "queries" else y
        q, k, v = self.q(source), self.k(y), self.v(y)
        if self.form == "einsum":
            q, k, v = (each.view(n, length, self.heads, self.dim) for each in (q, k, v))
            weights = torch.einsum("nqhd,nkhd->nhqk", q, k).softmax(-1)
            return x + self.o(torch.einsum("nhqk,nkhd->nqhd", weights, v).flatten(2))
        if self.form in ("folded", "first"):
            if self.form == "first":
                q, k, v = (each.transpose(0, 1).contiguous() for each in (q, k, v))
                q, k, v = (each.view(length, n * self.heads, self.dim).transpose(0, 1) for each in (q, k, v))
            else:
                q, k, v = (self.split(each).reshape(n * self.heads, length, self.dim) for each in (q, k, v))
            z = torch.bmm(torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0).softmax(-1), v)
            if self.form == "first":
                return x + self.o(z.transpose(0, 1).reshape(length, n, -1).transpose(0, 1))
            return x + self.o(z.view(n, self.heads, length, self.dim).transpose(1, 2).reshape(n, length, -1))
        q, k, v = (self.split(each) for each in (q, k, v))
        if self.form == "linear":
            z = q.softmax(-1) @ (k.softmax(-2).transpose(-2, -1) @ v)
        elif self.form in ("bias", "alibi", "table"):
            if self.form == "bias":
                bias = self.bias
            elif self.form == "alibi":
                places = torch.arange(length, dtype=x.dtype)
                bias = -(places[:, None] - places).abs() * self.slopes[:, None, None]
            else:
                bias = self.table(self.index).permute(2, 0, 1)
            z = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(x.dtype).unsqueeze(0).expand(n, -1, -1, -1))
        else:
            logits = q @ k.mT * 0.5
            if self.form == "temperature":
                logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature
            if self.form == "talking":
                logits = self.before(logits.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            weights = logits.softmax(-1)
            z = (self.after(weights) if self.form == "talking" else weights) @ v
            if self.form == "gate":
                z = z * self.gate(y).sigmoid().transpose(1, 2).unsqueeze(-1)
        out: Tensor = x + self.o(z.transpose(1, 2).flatten(2))
        return out


@block(TOKENS, VECTOR)
class Experts(nn.Module):
    """A mixture of experts: soft, or of the best ones, as layers in a list or stacked."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, count, hidden = shape[-1], 3, t.pick([4, 5])
        self.form = t.pick(["soft", "top", "stacked"])
        self.router = nn.Linear(width, count, bias=False)
        if self.form == "stacked":
            self.up = nn.Parameter(torch.randn(count, width, hidden) * 0.4)
            self.down = nn.Parameter(torch.randn(count, hidden, width) * 0.4)
        else:
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) for _ in range(count)
            )

    def forward(self, x: Tensor) -> Tensor:
        weights = self.router(x).softmax(-1)
        if self.form == "top":
            best, where = weights.topk(2, dim=-1)
            weights = torch.zeros_like(weights).scatter(-1, where, best)
        if self.form == "stacked":
            y = F.silu(torch.einsum("...c,ech->...eh", x, self.up))
            return x + torch.einsum("...eh,ehc,...e->...c", y, self.down, weights)
        found = torch.stack([expert(x) for expert in self.experts], -2)
        return x + (found * weights.unsqueeze(-1)).sum(-2)


@block(TOKENS)
class Cells(nn.Module):
    """A recurrence in Python: cells, or a gated sum along the tokens."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape[-1], t.pick([4, 5, 6])
        self.form = t.pick(["gru", "lstm", "rnn", "scan"])
        self.hidden = hidden
        made = {"gru": nn.GRUCell, "lstm": nn.LSTMCell, "rnn": nn.RNNCell}
        self.cell = nn.Linear(width, 2 * hidden) if self.form == "scan" else made[self.form](width, hidden)
        self.last = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        state = x.new_zeros(x.shape[0], self.hidden)
        memory = state
        for each in x.unbind(1):
            if self.form == "scan":
                gate, value = self.cell(each).chunk(2, -1)
                state = state * gate.sigmoid() + value
            elif self.form == "lstm":
                state, memory = self.cell(each, (state, memory))
            else:
                state = self.cell(each, state)
            found.append(self.last(state))
        return x + torch.stack(found, 1)


@block(TOKENS, weight=0.8)
class Memory(nn.Module):
    """A decoder layer, recurrent layers with projections, an initial state, or attention to a padded memory."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, length = shape[-1], shape[1]
        heads = t.pick([each for each in (1, 2, 3, 4) if width % each == 0])
        self.form = t.pick(["decoder", "project", "initial", "padded", "other"])
        if self.form == "decoder":
            self.layer: nn.Module = nn.TransformerDecoderLayer(width, heads, 10, 0.1, batch_first=True)
        elif self.form == "project":
            self.layer = nn.LSTM(width, 6, proj_size=4, batch_first=True, bidirectional=t.chance(0.3))
        elif self.form == "initial":
            self.layer, self.start = nn.GRU(width, 5, batch_first=True), nn.Linear(width, 5)
        elif self.form == "padded":
            self.layer = nn.MultiheadAttention(width, heads, batch_first=True)
            self.register_buffer("mask", torch.tensor([number == length - 1 for number in range(length)]))
        else:
            self.reduce = nn.Linear(width, 5)
            self.layer = nn.MultiheadAttention(width, heads, kdim=5, vdim=5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "decoder":
            y: Tensor = self.layer(x, x.tanh())
        elif self.form == "project":
            y = self.layer(x)[0]
        elif self.form == "initial":
            y = self.layer(x, self.start(x.mean(1)).unsqueeze(0))[0]
        elif self.form == "padded":
            y = self.layer(x, x, x, key_padding_mask=self.mask.expand(x.shape[0], -1), need_weights=False)[0]
        else:
            memory = self.reduce(x)
            y = self.layer(x, memory, memory)[0]
        return y

"""Parts of particular networks, whose channels are coupled in ways of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from random_modules.blocks_conv import conv
from random_modules.choice import MAP, TOKENS, VECTOR, Choice, Shape, block

__all__: list[str] = []


@block(TOKENS)
class Latent(nn.Module):
    """Attention whose keys and values come from one narrow code, with rotary channels beside it (DeepSeek)."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width = shape[-1]
        self.heads, self.plain, self.turned, self.value, self.code = 3, 4, 2, t.pick([3, 4]), t.pick([4, 5])
        self.q = nn.Linear(width, self.heads * (self.plain + self.turned))
        self.down, self.norm = nn.Linear(width, self.code + self.turned), nn.RMSNorm(self.code, eps=1e-5)
        self.up = nn.Linear(self.code, self.heads * (self.plain + self.value))
        self.o = nn.Linear(self.heads * self.value, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q = self.q(x).view(n, length, self.heads, -1).transpose(1, 2)
        q, q_turned = q.split([self.plain, self.turned], -1)
        code, k_turned = self.down(x).split([self.code, self.turned], -1)
        both = self.up(self.norm(code)).view(n, length, self.heads, -1).transpose(1, 2)
        k, v = both.split([self.plain, self.value], -1)
        q_turned, k_turned = (self.turn(each) for each in (q_turned, k_turned.unsqueeze(1)))
        q, k = torch.cat((q, q_turned), -1), torch.cat((k, k_turned.expand(-1, self.heads, -1, -1)), -1)
        y = F.scaled_dot_product_attention(q, k, v, scale=0.4)
        z: Tensor = x + self.o(y.transpose(1, 2).reshape(n, length, -1))
        return z

    @staticmethod
    def turn(x: Tensor) -> Tensor:
        """Rotate the two channels by the place."""
        angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None]
        a, b = x.chunk(2, -1)
        return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1)


@block(TOKENS)
class StateSpace(nn.Module):
    """A selective state space (Mamba), its recurrence in Python."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, self.inner, self.rank, self.state = shape[-1], t.pick([6, 8]), 2, 3
        self.enter, self.leave = nn.Linear(width, 2 * self.inner), nn.Linear(self.inner, width)
        self.conv = nn.Conv1d(self.inner, self.inner, 3, padding=2, groups=self.inner)
        self.choose, self.step = nn.Linear(self.inner, self.rank + 2 * self.state), nn.Linear(self.rank, self.inner)
        self.decay = nn.Parameter(torch.randn(self.inner, self.state))
        self.skip = nn.Parameter(torch.randn(self.inner))

    def forward(self, x: Tensor) -> Tensor:
        y, gate = self.enter(x).chunk(2, -1)
        y = F.silu(self.conv(y.mT)[..., : x.shape[1]].mT)
        step, b, c = self.choose(y).split([self.rank, self.state, self.state], -1)
        step = F.softplus(self.step(step))
        kept = (step[..., None] * -self.decay.exp()).exp()
        new = step[..., None] * b[:, :, None] * y[..., None]
        state, found = new[:, 0] * 0, []
        for place in range(x.shape[1]):
            state = kept[:, place] * state + new[:, place]
            found.append((state * c[:, place, None]).sum(-1))
        z: Tensor = self.leave((torch.stack(found, 1) + y * self.skip) * F.silu(gate))
        return z


@block(TOKENS)
class Pairwise(nn.Module):
    """Attention with a difference of two maps, with fewer keys, or by a sum of two scores (graph attention)."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        width, length = shape[-1], shape[1]
        self.form = t.pick(["difference", "fewer", "graph", "shared"])
        if self.form == "graph":
            self.v = nn.Linear(width, 2 * 4)
            self.left, self.right = (nn.Parameter(torch.randn(2, 4)) for _ in range(2))
        else:
            keys = {"difference": 12, "fewer": 6, "shared": 3}[self.form]
            self.q, self.k = nn.Linear(width, 6 if self.form == "fewer" else 12), nn.Linear(width, keys)
            self.v = nn.Linear(width, {"difference": 8, "fewer": 7, "shared": 3}[self.form])
        if self.form == "fewer":
            self.reduce = nn.Parameter(torch.randn(3, length))
        self.o = nn.Linear({"difference": 8, "fewer": 7, "graph": 8, "shared": 12}[self.form], width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        v = self.v(x)
        if self.form == "graph":
            v = v.unflatten(-1, (2, 4))
            scores = (v * self.left).sum(-1).mT[..., None] + (v * self.right).sum(-1).mT[:, :, None]
            y = F.leaky_relu(scores).softmax(-1) @ v.transpose(1, 2)
            return x + self.o(y.transpose(1, 2).flatten(2))
        q, k = self.q(x), self.k(x)
        if self.form == "fewer":
            return x + self.o((q @ (self.reduce @ k).mT).softmax(-1) @ (self.reduce @ v))
        if self.form == "shared":
            weights = torch.einsum("nqhd,nkd->nhqk", q.view(n, length, 4, 3), k).softmax(-1)
            return x + self.o(torch.einsum("nhqk,nkd->nqhd", weights, v).flatten(2))
        q, k = (each.view(n, length, 4, 3).transpose(1, 2) for each in (q, k))
        maps = (q @ k.mT).softmax(-1).view(n, 2, 2, length, length)
        y = (maps[:, :, 0] - 0.5 * maps[:, :, 1]) @ v.view(n, length, 2, 4).transpose(1, 2)
        return x + self.o(y.transpose(1, 2).flatten(2))


@block(MAP)
class Scales(nn.Module):
    """Parts that are added one after the other (Res2Net), or cheap copies that are cut off (GhostNet)."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        self.form, width = t.pick(["parts", "ghost", "twofold"]), t.pick([3, 4])
        self.first = conv(shape, 3 * width if self.form == "parts" else width)
        self.layers = nn.ModuleList(conv(shape, width, 3, inner=width) for _ in range(2))
        self.norm = nn.GroupNorm(2, 2 * width)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.form == "ghost":
            return torch.cat((y, self.layers[0](y)), 1)[:, : 2 * self.width - 1]
        if self.form == "twofold":
            return F.relu(self.norm(torch.cat((y, -self.layers[1](y)), 1)))
        first, *rest = y.split(self.width, 1)
        found = [first]
        for part, layer in zip(rest, self.layers, strict=True):
            found.append(layer(part + found[-1]))
        return torch.cat(found, 1)


@block(MAP)
class Modulated(nn.Module):
    """Convolutions whose weights are mixed or scaled for each sample (CondConv, StyleGAN), and attention over space."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        self.form, self.width, self.out = t.pick(["mixed", "scaled", "attend"]), t.pick([4, 5]), t.pick([4, 6])
        self.first, self.batch = conv(shape, self.width), shape[0]
        if self.form == "attend":
            self.q, self.k, self.v = (conv(shape, size, inner=self.width) for size in (5, 5, 4))
            self.last = conv(shape, self.width, inner=4)
        else:
            count = 3 if self.form == "mixed" else self.width
            self.style = nn.Linear(shape[1], count)
            outer = (3, self.out) if self.form == "mixed" else (self.out,)
            self.weight = nn.Parameter(torch.randn(*outer, self.width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = self.first(x)
        if self.form == "attend":
            q, k, v = (layer(y).flatten(2) for layer in (self.q, self.k, self.v))
            return y + self.last((v @ (q.mT @ k).softmax(-1).mT).view(n, -1, h, w))
        style = self.style(x.mean((2, 3))).sigmoid()
        if self.form == "mixed":
            weight = (style @ self.weight.flatten(1)).view(-1, self.width, 1, 1)
        else:
            own = self.weight[None] * style[:, None, :, None, None]
            weight = (own * torch.rsqrt(own.square().sum((2, 3, 4), keepdim=True) + 1e-6)).flatten(0, 1)
        return F.conv2d(y.reshape(1, -1, h, w), weight, groups=self.batch).view(self.batch, -1, h, w)


@block(VECTOR)
class Compare(nn.Module):
    """Distances and similarities to prototypes, capsules, crosses of features."""

    def __init__(self, t: Choice, shape: Shape) -> None:
        super().__init__()
        self.form = t.pick(["distance", "cosine", "metric", "capsules", "cross", "code"])
        self.first = nn.Linear(shape[-1], 12)
        if self.form == "capsules":
            self.weight = nn.Parameter(torch.randn(3, 2, 4, 5))
        elif self.form == "code":
            self.codes = nn.Embedding(5, 12)
        else:
            self.weight = nn.Parameter(torch.randn(*(() if self.form == "cross" else (5,)), 12))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.form == "distance":
            return -(y[:, None] - self.weight).square().sum(-1)
        if self.form == "cosine":
            return F.cosine_similarity(y[:, None], self.weight[None], dim=-1)
        if self.form == "metric":
            return torch.cdist(y.float(), self.weight.float()).to(y.dtype)
        if self.form == "cross":
            return y * (y @ self.weight)[:, None] + y
        if self.form == "code":
            table = self.codes.weight
            distance = table.square().sum(-1) - 2 * y @ table.t()
            return y + (self.codes(distance.argmin(-1)) - y).detach() * 0.5
        z = torch.einsum("nic,ijcd->njd", y.view(-1, 3, 4), self.weight)
        return (z * z.norm(dim=-1, keepdim=True)).flatten(1)

"""Small networks whose attributes spell their sizes, and what comes back of them after a cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torch_models import random_selection

from graphprune.frontends.torch_back import Back, returned
from graphprune.frontends.torch_program import TorchProgram, capture
from graphprune.plan import Plan
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["NETWORKS", "Returned", "give_back"]


class Block(nn.Module):
    """A residual block that begins switched off, as many do."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.channels, self.options = channels, {"widths": [channels, channels]}
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv1(x)).relu_().flatten(2)
        return x + self.conv2(y.reshape(y.shape[0], self.channels, *x.shape[2:]))


class Residual(nn.Module):
    """A convolutional network with batch statistics, dropout and a table that no state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3)
        self.blocks = nn.Sequential(Block(12), Block(12))
        self.features = 12 * 16
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(self.features, 5)
        self.register_buffer("offset", torch.full((5,), 0.5), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x)).reshape(-1, self.features)
        return self.head(self.dropout(x)) + self.offset


class SelfAttention(nn.Module):
    """Attention with the attributes that people write."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.scale, self.all_head_size = self.head_dim**-0.5, width
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, self.all_head_size))


class DefaultScale(SelfAttention):
    """The same, with the scale left to PyTorch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, self.all_head_size))


class ComputedScale(SelfAttention):
    """The same, with the scale computed when it is needed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        scores = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.head_dim), -1)
        return self.proj((scores @ v).transpose(1, 2).reshape(batch, tokens, self.all_head_size))


class Transposed(nn.Module):
    """A linear layer whose weight is stored the other way round."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs) / 4), nn.Parameter(torch.randn(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).view(*x.shape[:-1], self.outputs)


class ScaleOfValues(SelfAttention):
    """The same, with the scale computed from the values, and such a layer for the projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.qkv = Transposed(width, 3 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        scores = torch.softmax(q @ k.transpose(-1, -2) / float(v.shape[-1] ** 0.5), -1)
        return self.proj((scores @ v).transpose(1, 2).reshape(batch, tokens, self.all_head_size))


class HeldScale(SelfAttention):
    """The same, with the scale in an attribute."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        scores = torch.softmax(q @ k.transpose(-1, -2) * self.scale, -1)
        return self.proj((scores @ v).transpose(1, 2).reshape(batch, tokens, self.all_head_size))


class Turned(SelfAttention):
    """Queries and keys that something is added to and multiplied by after they were projected."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        angles = torch.arange(tokens, dtype=x.dtype)[:, None]
        q, k = (each * angles.cos() - each.flip(-2) * angles.sin() for each in (q, k))
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, self.all_head_size))


class StreamWidth(SelfAttention):
    """Attention that takes for granted that the heads together are as wide as the stream."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        shape = batch, tokens, 3, self.num_heads, width // self.num_heads
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, width))


class Layer(nn.Module):
    """A layer of a transformer, normalised first."""

    def __init__(self, attention: type[SelfAttention], width: int, heads: int, scale: float) -> None:
        super().__init__()
        self.attention, self.norm1, self.norm2 = attention(width, heads), nn.LayerNorm(width), nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.gamma * self.attention(self.norm1(x))
        return x + self.gamma * self.outer(functional.gelu(self.inner(self.norm2(x))))


class Language(nn.Module):
    """A transformer with tied embeddings and a configuration that its layers share."""

    def __init__(self, attention: type[SelfAttention] = SelfAttention, scale: float = 1.0) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=24, num_heads=4, vocab_size=19)
        self.embed = nn.Embedding(19, 24)
        self.layers = nn.ModuleList(Layer(attention, 24, 4, scale) for _ in range(2))
        self.head = nn.Linear(24, 19, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.head(x)}


class TwoScales(Language):
    """A transformer one of whose layers computes its scale, while the other holds it."""

    def __init__(self) -> None:
        super().__init__(ComputedScale)
        self.layers[1].attention = HeldScale(24, 4)


class Encoder(nn.Module):
    """PyTorch's own transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(7, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.inputs(x)))


class Tagger(nn.Module):
    """A recurrent network."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.lstm = nn.Linear(5, 12), nn.LSTM(12, 10, num_layers=2, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.inputs(x))[0])


class Grouped(nn.Module):
    """Group normalisation and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16)
        self.depthwise, self.head = nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shuffle(self.head(self.depthwise(self.norm(self.stem(x)).relu())))


def _image() -> torch.Tensor:
    return torch.randn(4, 3, 6, 6)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "residual": (Residual, _image),
    "language": (Language, lambda: torch.randint(19, (2, 7))),
    "small layer scale": (lambda: Language(scale=1e-6), lambda: torch.randint(19, (2, 7))),
    "default scale": (lambda: Language(DefaultScale), lambda: torch.randint(19, (2, 7))),
    "computed scale": (lambda: Language(ComputedScale), lambda: torch.randint(19, (2, 7))),
    "scale of values": (lambda: Language(ScaleOfValues), lambda: torch.randint(19, (2, 7))),
    "two scales": (TwoScales, lambda: torch.randint(19, (2, 7))),
    "turned": (lambda: Language(Turned), lambda: torch.randint(19, (2, 7))),
    "encoder": (Encoder, lambda: torch.randn(2, 6, 7)),
    "tagger": (Tagger, lambda: torch.randn(2, 6, 5)),
    "grouped": (Grouped, _image),
    "stream width": (lambda: Language(StreamWidth), lambda: torch.randint(19, (2, 7))),
}


@dataclass(frozen=True)
class Returned:
    """What came back of a network, and what it came from; in the form of a result that can be stored."""

    source: nn.Module
    inputs: torch.Tensor
    slim: TorchProgram
    structure: Structure
    selection: Selection
    back: Back

    @property
    def module(self) -> Any:
        """The pruned module."""
        return self.back.module

    @property
    def way(self) -> str:
        """How it came back."""
        return self.back.way

    @property
    def plan(self) -> Plan:
        """What was removed."""
        return Plan.of(self.structure, self.selection)

    @property
    def model(self) -> TorchProgram:
        """The slim program."""
        return self.slim if self.back.program is None else self.back.program

    @property
    def patches(self) -> Any:
        """What was changed in the attributes."""
        return self.back.patches


def give_back(
    name: str, *, way: Literal["auto", "module", "graph"] = "auto", training: bool = False, seed: int = 0
) -> Returned:
    """Cut half of a network away at random, and take it back."""
    torch.manual_seed(seed)
    make, example = NETWORKS[name]
    source, inputs = make().train(training), example()
    program = capture(source, (inputs,))
    structure = program.read()
    selection = random_selection(structure, seed)
    slim = program.clone()
    assert slim.write(structure, selection)
    return Returned(source, inputs, slim, structure, selection, returned(program, slim, structure, selection, way=way))

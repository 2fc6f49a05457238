"""The PyTorch networks that analyses are compared on, and their export to ONNX.

Run as a program it builds the groups of one network with Torch-Pruning and prints the seconds that took.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["NETWORKS", "LlamaConfig", "Network", "export"]


@dataclass(frozen=True, slots=True)
class Network:
    """How to build a network, and an input for it."""

    build: Callable[[], nn.Module]
    example: Callable[[], torch.Tensor]
    dynamic: Mapping[int, str]


@cache
def vision() -> ModuleType:
    """Import torchvision's models, declaring the operators that its wheel lacks beside a CPU-only torch."""
    box = "Tensor dets, Tensor scores, float iou_threshold"
    align = "Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, int sampling_ratio"
    for name, signature in (("nms", box), ("qnms", box), ("roi_align", f"{align}, bool aligned")):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", f"({signature}) -> Tensor")
    from torchvision import models

    return models


def pretrained_shape(name: str) -> Network:
    """Return a torchvision classifier with random weights."""
    return Network(lambda: getattr(vision(), name)(weights=None), lambda: torch.randn(1, 3, 224, 224), {0: "batch"})


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The extents of a Llama-like decoder."""

    layers: int = 32
    hidden: int = 512
    heads: int = 8
    groups: int = 2
    inner: int = 1376
    vocabulary: int = 32000


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.heads, self.groups, self.width = config.heads, config.groups, config.hidden // config.heads
        self.q = nn.Linear(config.hidden, self.heads * self.width, bias=False)
        self.k = nn.Linear(config.hidden, self.groups * self.width, bias=False)
        self.v = nn.Linear(config.hidden, self.groups * self.width, bias=False)
        self.o = nn.Linear(self.heads * self.width, config.hidden, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Attend to the tokens before each token."""
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, self.heads, self.width).transpose(1, 2)
        k = self.k(x).view(batch, length, self.groups, self.width).transpose(1, 2)
        v = self.v(x).view(batch, length, self.groups, self.width).transpose(1, 2)
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        k, v = (t.repeat_interleave(self.heads // self.groups, 1) for t in (k, v))
        weights = (q @ k.transpose(2, 3) / self.width**0.5 + mask).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).reshape(batch, length, self.heads * self.width))


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply rotary positions over the halves of the last dimension."""
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    return x * cos + torch.cat([-high, low], -1) * sin


class Layer(nn.Module):
    """Attention and a gated feed-forward layer, each after a normalisation and beside a residual."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.before_attention, self.before_feed = RMSNorm(config.hidden), RMSNorm(config.hidden)
        self.attention = Attention(config)
        self.gate = nn.Linear(config.hidden, config.inner, bias=False)
        self.up = nn.Linear(config.hidden, config.inner, bias=False)
        self.down = nn.Linear(config.inner, config.hidden, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Add what attention and feed-forward layer find."""
        x = x + self.attention(self.before_attention(x), cos, sin, mask)
        y = self.before_feed(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """A decoder like Llama (Touvron et al. 2023)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocabulary, config.hidden)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden)
        self.head = nn.Linear(config.hidden, config.vocabulary, bias=False)
        width = config.hidden // config.heads
        self.register_buffer("rates", 10000.0 ** (-torch.arange(0, width, 2) / width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits for each token."""
        length = ids.shape[1]
        angles = torch.outer(torch.arange(length, device=ids.device).float(), self.rates)  # type: ignore[arg-type]
        angles = torch.cat([angles, angles], -1)
        mask = torch.full((length, length), -1e4).triu(1)
        cos, sin = angles.cos(), angles.sin()
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


NETWORKS: Mapping[str, Network] = {
    "DenseNet-121": pretrained_shape("densenet121"),
    "DenseNet-201": pretrained_shape("densenet201"),
    "Swin-T": pretrained_shape("swin_t"),
    "ShuffleNetV2 x1.0": pretrained_shape("shufflenet_v2_x1_0"),
    "Llama-like, 32 layers": Network(
        lambda: Llama(LlamaConfig()), lambda: torch.randint(0, 1000, (1, 16)), {0: "batch", 1: "length"}
    ),
}
"""The networks by name."""


def export(name: str, path: Path) -> None:
    """Write the network ``name``, with random weights, to ``path`` as ONNX."""
    network = NETWORKS[name]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.build().eval(),
            (network.example(),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": dict(network.dynamic)},
        )


def build_groups(name: str) -> None:
    """Build the groups of network ``name`` with Torch-Pruning; print a line before that and one after."""
    import torch_pruning

    network = NETWORKS[name]
    torch.manual_seed(0)
    model, example = network.build().eval(), network.example()
    print(json.dumps({"ready": True}), flush=True)
    start, worked = time.perf_counter(), time.process_time()
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)
    groups = len(list(graph.get_all_groups()))
    seconds, processor = time.perf_counter() - start, time.process_time() - worked
    print(json.dumps({"seconds": seconds, "processor": processor, "groups": groups}), flush=True)


def analyse(name: str) -> None:
    """Analyse and slice network ``name`` with graphprune, as a PyTorch module; print the seconds of each stage."""
    from graphprune.budget import Budget
    from graphprune.choose import choose
    from graphprune.frontends.torch_program import capture
    from graphprune.score import Evidence, criterion

    network = NETWORKS[name]
    torch.manual_seed(0)
    model, example = network.build().eval(), network.example()
    seconds: dict[str, float] = {"processor": 0.0}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start, worked = time.perf_counter(), time.process_time()
        result = work()
        seconds[stage] = time.perf_counter() - start
        if stage != "export":
            seconds["processor"] += time.process_time() - worked
        return result

    def read() -> Any:
        structure = program.read()
        assert structure.groups is not None
        return structure

    program = timed("export", lambda: capture(model, (example,)))
    structure = timed("analysis", read)
    scores = criterion("l1").score(Evidence(structure, program.weights()))
    selection = choose(structure, scores, Budget(ratio=0.5))
    timed("slicing", lambda: program.write(structure, selection))
    print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[-1])
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--export", type=Path, help="write the network as ONNX instead")
    parser.add_argument("--analyse", action="store_true", help="analyse it with graphprune instead")
    options = parser.parse_args()
    if options.analyse:
        analyse(options.network)
    elif options.export:
        export(options.network, options.export)
    else:
        build_groups(options.network)

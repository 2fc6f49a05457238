"""The networks whose latency is measured: as ONNX files, and pruned by others. Run as a program it makes one file."""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BUILD", "NETWORKS", "Network", "dense", "torch_pruned"]

BUILD = Path(__file__).parent.parent / "build" / "latency"
STEPS = 10
"""Halvings of the ratio that Torch-Pruning is given."""


@dataclass(frozen=True, slots=True)
class Network:
    """Where a network comes from: torchvision or timm by name (random weights), or a file of the corpus.

    ``module`` is what Torch-Pruning prunes, where the file has no module of its own.
    """

    source: str
    module: str | None = None
    extent: int = 224


NETWORKS: Mapping[str, Network] = {
    "ResNet-18": Network("torchvision:resnet18"),
    "ResNet-50": Network("torchvision:resnet50"),
    "MobileNetV2": Network("corpus:imagenet_mobilenetv2_bnfolded_fp32.onnx", "torchvision:mobilenet_v2"),
    "ViT-S/16": Network("timm:vit_small_patch16_224"),
    "YOLOX-nano": Network("corpus:yolox_nano.onnx"),
    "digits": Network("shipped:digits"),
}
"""The networks by name; the one that ships is for trying the program out."""


def dense(name: str) -> Path:
    """The ONNX file of a network, made where it is not there yet.

    Raises:
        SystemExit: the corpus is needed and not named, or the export fails.
    """
    kind, _, place = NETWORKS[name].source.partition(":")
    if kind == "shipped":
        from graphprune.models import digits_path

        return digits_path()
    if kind == "corpus":
        folder = os.environ.get("GRAPHPRUNE_CORPUS")
        if not folder:
            raise SystemExit(f"{name}: set GRAPHPRUNE_CORPUS to the folder of the corpus")
        return Path(folder, "onnx", place)
    return _made(name, BUILD / f"{place}.onnx", None)


def torch_pruned(name: str, keep: float) -> tuple[Path, Path] | None:
    """The files of a network's module as it is, and as Torch-Pruning prunes it by default; None without a module."""
    network = NETWORKS[name]
    source = network.module or network.source
    kind, _, place = source.partition(":")
    if kind not in ("torchvision", "timm"):
        return None
    return _made(name, BUILD / f"{place}.onnx", None), _made(name, BUILD / f"{place}-tp-{keep:g}.onnx", keep)


def _made(name: str, path: Path, keep: float | None) -> Path:
    """``path``, written by a process of its own, whose memory is then free for measuring."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-W", "ignore", __file__, name, str(path)]
        done = subprocess.run([*command, *([str(keep)] if keep else [])], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1][:300]}")
    return path


def _module(name: str) -> Any:
    import torch
    from torch_networks import vision

    network = NETWORKS[name]
    kind, _, place = (network.module or network.source).partition(":")
    models = vision()  # timm imports torchvision too
    torch.manual_seed(0)
    if kind == "torchvision":
        return getattr(models, place)(weights=None).eval()
    import timm

    return timm.create_model(place, pretrained=False).eval()


def _cut(module: Any, example: Any, keep: float) -> Any:
    """What Torch-Pruning leaves by its defaults (magnitude, the same ratio everywhere) at a share of the MACs."""
    import torch
    import torch_pruning as tp
    from torch import nn

    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    heads = {
        layer.qkv: layer.num_heads
        for layer in module.modules()
        if hasattr(layer, "qkv") and hasattr(layer, "num_heads")
    }
    whole, _ = tp.utils.count_ops_and_params(module, example)
    found: list[tuple[float, Any]] = []
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        ratio = (low + high) / 2
        torch.manual_seed(0)
        slim = copy.deepcopy(module)
        names = {id(old): new for old, new in zip(module.modules(), slim.modules(), strict=True)}
        pruner = tp.pruner.MagnitudePruner(
            slim,
            example,
            importance=tp.importance.MagnitudeImportance(),
            pruning_ratio=ratio,
            ignored_layers=[names[id(last)]],
            num_heads={names[id(layer)]: number for layer, number in heads.items()},
        )
        pruner.step()
        for layer in slim.modules():
            if heads and hasattr(layer, "qkv") and hasattr(layer, "head_dim"):
                layer.head_dim = layer.qkv.out_features // 3 // layer.num_heads
                if hasattr(layer, "attn_dim"):
                    layer.attn_dim = layer.qkv.out_features // 3
        reached, _ = tp.utils.count_ops_and_params(slim, example)
        found.append((abs(reached / whole - keep), slim))
        low, high = (ratio, high) if reached > keep * whole else (low, ratio)
    return min(found, key=lambda each: each[0])[1]


def _export(module: Any, example: Any, path: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (example,), str(path), dynamo=False, opset_version=17, input_names=["x"], output_names=["y"]
        )


def main() -> None:
    """Write one file: a network, or with a share what Torch-Pruning leaves of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", choices=list(NETWORKS))
    parser.add_argument("output", type=Path)
    parser.add_argument("keep", type=float, nargs="?")
    options = parser.parse_args()
    import torch

    module = _module(options.network)
    example = torch.randn(1, 3, NETWORKS[options.network].extent, NETWORKS[options.network].extent)
    if options.keep:
        module = _cut(module, example, options.keep)
    _export(module, example, options.output)


if __name__ == "__main__":
    main()

"""The networks that benchmarks run on: the corpus, the light ones inside the onnx package, and our reference ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.backend.test

from graphprune.models.reference import REFERENCE

__all__ = ["Network", "corpus_networks", "light_networks", "reference_networks"]


@dataclass(frozen=True, slots=True)
class Network:
    """A named ONNX file; ``open`` makes it on demand and returns its path."""

    name: str
    open: Callable[[], Path]


def corpus_networks() -> Iterator[Network]:
    """Yield the networks of ``$GRAPHPRUNE_CORPUS/onnx``, smallest first."""
    root = os.environ.get("GRAPHPRUNE_CORPUS")
    if not root:
        raise SystemExit("set GRAPHPRUNE_CORPUS to the folder that holds onnx/*.onnx, or pass --light or --reference")
    paths = sorted((Path(root) / "onnx").glob("*.onnx"), key=lambda path: (path.stat().st_size, path.name))
    if not paths:
        raise SystemExit(f"no networks in {root}/onnx: GRAPHPRUNE_CORPUS points to the wrong folder")
    for path in paths:
        yield Network(path.stem, lambda path=path: path)  # type: ignore[misc]


def light_networks() -> Iterator[Network]:
    """Yield the light networks of onnx's own backend tests: real structures, weights from ConstantOfShape."""
    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    for path in sorted(folder.glob("light_*.onnx")):
        yield Network(path.stem, lambda path=path: path)  # type: ignore[misc]


def reference_networks(folder: Path, *, tiny: bool = False) -> Iterator[Network]:
    """Yield our reference networks, saved to ``folder`` when they are opened."""
    for name, build in REFERENCE.items():

        def save(name: str = name, build: Callable[..., onnx.ModelProto] = build) -> Path:
            path = folder / f"{name}.onnx"
            onnx.save_model(build(tiny=tiny), path)
            return path

        yield Network(f"{name}_tiny" if tiny else name, save)

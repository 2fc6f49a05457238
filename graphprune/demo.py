"""The main job on the network that ships: prune it, and measure what changed."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import graphprune
from graphprune.backends.onnxruntime import Latency, compare
from graphprune.models import accuracy, digits_path, digits_test

__all__ = ["Demo", "Row", "run"]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured quantity before and after, as numbers and as text."""

    name: str
    before: float
    after: float
    form: str

    @property
    def texts(self) -> tuple[str, str]:
        """Both numbers as a person reads them."""
        return self.form.format(self.before), self.form.format(self.after)


@dataclass(frozen=True, slots=True)
class Demo:
    """What pruning did to the shipped network.

    Accuracy is on ``images`` held-out images, latency for all of them; ``sizes`` are those of the files, in bytes.
    """

    result: graphprune.PruneResult
    sizes: tuple[int, int]
    accuracy: tuple[float, float]
    latency: tuple[Latency, Latency]
    images: int

    @property
    def rows(self) -> tuple[Row, ...]:
        """The table to print."""
        result = self.result
        before, after = self.latency
        return (
            Row("accuracy", *self.accuracy, "{:.2%}"),
            Row("parameters", result.params.before, result.params.after, "{:,.0f}"),
            Row("multiply-accumulates", result.macs.before, result.macs.after, "{:,.0f}"),
            Row("bytes of the file", *self.sizes, "{:,.0f}"),
            Row(f"milliseconds for {self.images} images", before.median * 1e3, after.median * 1e3, "{:.2f}"),
        )


def run(
    ratio: float = 0.5, *, output: str | os.PathLike[str] | None = None, repeats: int = 50, threads: int = 1
) -> Demo:
    """Remove ``ratio`` of the shipped network's channels and measure both networks side by side.

    The slim network is kept where ``output`` names a file. Raises what :func:`graphprune.prune` raises.
    """
    data = digits_test()
    with tempfile.TemporaryDirectory() as folder:
        slim = Path(folder) / "slim.onnx" if output is None else Path(output)
        result = graphprune.prune(digits_path(), ratio=ratio, output=slim)
        sizes = digits_path().stat().st_size, slim.stat().st_size
        scores = accuracy(digits_path(), data), accuracy(slim, data)
        before, after = compare(
            [digits_path(), slim], {"images": data.inputs}, warmup=5, repeats=repeats, threads=threads
        )
    return Demo(result, sizes, scores, (before, after), len(data.labels))

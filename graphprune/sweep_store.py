"""The folder of a sweep: its points, of which model, data and options they are, and how they are written."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphprune.calibration.data import Batches
from graphprune.errors import ModelError, UsageError
from graphprune.frontends.atomic import write_text
from graphprune.frontends.program import Host, is_torch
from graphprune.sweep_points import Point, marked
from graphprune.version import __version__

__all__ = ["Store", "opened", "stored"]


@dataclass
class Store:
    """The points of a folder, written as they come."""

    folder: Path
    given: Mapping[str, Any]
    seen: Batches
    points: list[Point] = field(default_factory=list)

    def has(self, kind: str, amount: str | float) -> bool:
        """Whether a point was made and is still there."""
        return any(
            (point.kind, point.amount) == (kind, str(amount))
            and (point.file is None or (self.folder / point.file).exists())
            for point in self.points
        )

    @property
    def dense(self) -> Mapping[str, Any]:
        """The figures of the unpruned model."""
        return next((point.dense() for point in self.points if point.status != "refused"), {})

    def add(self, point: Point) -> None:
        """Take one in, and write all."""
        self.points = [own for own in self.points if (own.kind, own.amount) != (point.kind, point.amount)]
        self.points = marked([*self.points, point])
        document = {
            "graphprune": __version__,
            "given": self.given,
            "dense": self.dense,
            "data": self.seen.to_dict(),
            "points": [own.to_dict() for own in self.points],
        }
        write_text(json.dumps(document, indent=2) + "\n", self.folder / "sweep.json")
        rows = [own.row() for own in self.points]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(text.getvalue(), self.folder / "sweep.csv")


def stored(folder: Path, given: Mapping[str, Any]) -> list[Point]:
    """The points that a folder has.

    Raises:
        UsageError: they are of something else.
        ModelError: they cannot be read.
    """
    path = folder / "sweep.json"
    if not path.exists():
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        points = [Point.from_dict(entry) for entry in document["points"]]
        before = document["given"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); start over with --fresh") from None
    current = json.loads(json.dumps(given))
    other = [name for name in current if before.get(name) != current[name]]
    if other:
        words = {"model": "another model", "options": "other options"}
        said = ", ".join(words.get(name, f"other {name} data") for name in other)
        raise UsageError(f"{path}: has points of {said}; name another folder, or start over with --fresh")
    return points


def opened(model: Any, args: Any, kwargs: Any) -> tuple[Host, str]:
    """The unpruned host, and a mark of all that it computes with."""
    digest = hashlib.sha256()
    if is_torch(model):
        from graphprune.frontends.torch_fingerprint import fingerprint
        from graphprune.torch_api import program_from

        program = program_from(model, args, kwargs)
        digest.update(fingerprint(program.module).encode())
        for name, value in sorted(program.module.state_dict().items()):
            digest.update(name.encode())
            if hasattr(value, "detach"):
                digest.update(value.detach().cpu().contiguous().flatten().view(_byte()).numpy().tobytes())
        return program, digest.hexdigest()
    from graphprune.frontends.onnx_file import load
    from graphprune.frontends.onnx_fingerprint import fingerprint as mark

    host = load(model)
    digest.update(mark(host).encode())
    for name in sorted(host.graph.initializers):
        value = host.graph.initializers[name].const_value
        if value is not None and value.dtype.name != "STRING":
            digest.update(value.tobytes())
            if isinstance(value, ir.ExternalTensor):
                value.release()  # the file stays mapped otherwise
    return host, digest.hexdigest()


def _byte() -> Any:
    import torch

    return torch.uint8

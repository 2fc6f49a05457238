"""A program run again and again on a few samples, each time with other positions taken out.

The weights that hold positions are inputs of one session (ONNX), or are replaced as the graph is run (PyTorch), so that
a run costs a forward pass and nothing is built anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.steps import Feed, run_session
from graphprune.frontends.weight_access import get_weight, is_editable
from graphprune.proof.run import Segment
from graphprune.score.base import Evidence
from graphprune.score.positions import Indices, Places, Positions

__all__ = ["Ablation"]

Array = npt.NDArray[Any]


class Ablation:
    """The outputs of a program without some positions, on about the first ``samples`` samples.

    ``held`` tells which positions hold floating-point weights, so that they can be taken out; ``names`` are those of
    the outputs where they have any; ``tokens`` tells that integers are read.
    """

    def __init__(self, evidence: Evidence, positions: Positions, samples: int) -> None:
        host = evidence.calibration.host
        self._weights: dict[str, Array] = {}
        self._places: dict[str, dict[int, Places]] = {}
        self.held: npt.NDArray[np.bool_] = np.zeros(positions.total, np.bool_)
        outer = evidence.calibration.observable if isinstance(host, ir.Model) else None
        for parameter in evidence.structure.counted:
            name = parameter.name
            axes = evidence.structure.tensors.get(name) or ()
            own = {dim: positions.places(axis) for dim, axis in enumerate(axes) if isinstance(axis.size, int)}
            own = {dim: places for dim, places in own.items() if len(places.number)}
            if not own or not is_editable(host, name) or (outer is not None and name not in outer):
                continue
            self._weights[name] = get_weight(host, name)
            self._places[name] = own
            for places in own.values():
                self.held[places.number] = True
        feeds = _first(host, evidence.calibration.feeds, samples)
        self.tokens = any(_kind(value) in "iu" for value in _arrays(feeds[0])) if feeds else False
        self.names = [value.name or "" for value in host.graph.outputs] if isinstance(host, ir.Model) else []
        self._run = _Onnx(host, feeds, self._weights) if isinstance(host, ir.Model) else _torch(host, feeds)

    def outputs(self, gone: Indices) -> list[Array]:
        """What the program gives where the positions with the numbers ``gone`` hold zeros."""
        changed: dict[str, Array] = {}
        for name, by_dim in self._places.items():
            for dim, places in by_dim.items():
                index = places.index[np.isin(places.number, gone)]
                if len(index):
                    weight = changed.setdefault(name, self._weights[name].copy())
                    weight[(slice(None),) * dim + (index,)] = 0
        return self._run(changed)


def _first(host: Any, feeds: Sequence[Feed], samples: int) -> list[Feed]:
    """Batches that hold ``samples`` samples, the last one cut where the program takes any number of samples."""
    found: list[Feed] = []
    for feed in feeds:
        if samples <= 0:
            break
        if isinstance(host, ir.Model):
            feed = {name: np.asarray(value) for name, value in feed.items()}
            free = [value for value in host.graph.inputs if value.name in feed]
            if all(value.shape and not isinstance(value.shape[0], int) for value in free):
                feed = {name: value[:samples] for name, value in feed.items()}
            samples -= max((len(value) for value in feed.values() if value.ndim), default=1)
        else:
            first = feed[0] if isinstance(feed, tuple | list) and feed else feed
            samples -= max(len(first), 1) if getattr(first, "ndim", 0) else 1
        found.append(feed)
    return found


def _arrays(feed: Feed) -> list[Any]:
    return (
        list(feed.values()) if isinstance(feed, Mapping) else list(feed) if isinstance(feed, tuple | list) else [feed]
    )


def _kind(value: Any) -> str:
    """The kind of numbers of an array or a tensor, as numpy writes it."""
    if hasattr(value, "is_floating_point"):
        return "f" if value.is_floating_point() else "i"
    return np.asarray(value).dtype.kind


class _Onnx:
    """One session whose changing weights are inputs."""

    def __init__(self, model: ir.Model, feeds: Sequence[Feed], weights: Mapping[str, Array]) -> None:
        self._feeds = [{name: _widened(value) for name, value in feed.items()} for feed in feeds]
        self._weights = weights
        graph = model.graph
        constants = tuple(value for name, value in graph.initializers.items() if name not in weights)
        given = tuple(value.name or "" for value in graph.inputs if value.name not in graph.initializers)
        outputs = tuple(value.name or "" for value in graph.outputs)
        self._changes = _Changes({name: self._feeds[0][name] for name in given} | dict(weights))
        segment = Segment(tuple(graph), constants, (*given, *weights), outputs)
        self._results = run_session(model, segment, self._changes)

    def __call__(self, changed: Mapping[str, Array]) -> list[Array]:
        batches: list[list[Array]] = []
        for feed in self._feeds:
            self._changes.current = {**self._weights, **changed, **feed}
            batches.append(next(self._results))
        return [np.concatenate(each) if each[0].ndim else np.stack(each) for each in zip(*batches, strict=True)]


def _widened(value: Any) -> Array:
    """Half precision as float32, in which sessions run."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


class _Changes(Sequence[Mapping[str, Array]]):
    """Feeds without end: the same place is read again and again, and filled between."""

    def __init__(self, current: Mapping[str, Array]) -> None:
        self.current = current

    def __getitem__(self, index: Any) -> Any:
        return self.current

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        while True:
            yield self.current


def _torch(program: Any, feeds: Sequence[Feed]) -> Any:
    """The outputs of a PyTorch program as a function of changed weights."""
    import torch

    from graphprune.calibration.torch_steps import arguments_of
    from graphprune.proof.torch_run import leaves_of, run

    batches = [leaves_of(program.module, *arguments_of(program, feed)) for feed in feeds]

    def outputs(changed: Mapping[str, Array]) -> list[Array]:
        def value(name: str, own: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(changed[name]).to(own) if name in changed else own

        results = [run(program.module, leaves, value) for leaves in batches]
        tensors = [[each for each in batch if isinstance(each, torch.Tensor)] for batch in results]
        return [
            np.concatenate([np.atleast_1d(each.detach().float().cpu().numpy()) for each in same])
            for same in zip(*tensors, strict=True)
        ]

    return outputs

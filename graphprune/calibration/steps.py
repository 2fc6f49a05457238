"""Runs a program on all calibration inputs piece by piece, stopping where somebody wants to look or to change weights.

At a *stop* the values of some tensors are handed out for every batch; then the run goes on from there, with whatever
weights the program has by then. So work that improves a network layer by layer, each on what the layers before it now
give, costs one run of the network in all. What lives between two stops is the values that somebody still reads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

from graphprune.calibration.stash import Stash, View
from graphprune.frontends.program import Host
from graphprune.proof.run import Segment, reads, segment_proto

__all__ = ["Feed", "Stop", "Values", "as_single", "run_session", "steps"]

Feed: TypeAlias = Any
"""One batch of inputs: arrays by input name for ONNX, the tuple of arguments for PyTorch."""

Values: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Values of tensors by the names that the structure has for them."""

MEMORY = 1 << 29
"""Bytes of values that one run keeps in memory between two stops; the others lie in files."""

_SILENT = 4  # log severity: errors come back as exceptions


@dataclass(frozen=True, slots=True)
class Stop:
    """A place in a run: right before ``node``, or right ``after`` it; ``names`` are the values wanted there."""

    node: str
    names: tuple[str, ...]
    after: bool = False


def steps(host: Host, feeds: Sequence[Feed], stops: Sequence[Stop]) -> Iterator[list[Values]]:
    """For each stop, in order, the values wanted there for every batch.

    The weights of nodes that have not run may be changed between two stops. A stop that lies before an earlier one is
    made where that is, so all names that it wants are there.
    """
    if isinstance(host, ir.Model):
        return _OnnxSteps(host, feeds, stops).run()
    from graphprune.calibration.torch_steps import TorchSteps

    return TorchSteps(host, feeds, stops).run()


def ends_of(places: Mapping[str, int], stops: Sequence[Stop]) -> list[int]:
    """How many nodes have run at each stop."""
    ends: list[int] = []
    for stop in stops:
        end = places[stop.node] + stop.after
        ends.append(max(end, ends[-1]) if ends else end)
    return ends


class _OnnxSteps:
    """One run of an ONNX model."""

    def __init__(self, model: ir.Model, feeds: Sequence[Feed], stops: Sequence[Stop]) -> None:
        self.model, self.stops = model, stops
        self.nodes = list(model.graph)
        self.reads = [list(dict.fromkeys(reads(node))) for node in self.nodes]
        self.last = {name: index for index, names in enumerate(self.reads) for name in names}
        self.ends = ends_of({node.name or "": index for index, node in enumerate(self.nodes)}, stops)
        self.wanted = {name: number for number, stop in enumerate(stops) for name in stop.names}
        self.feeds = [{name: as_single(np.asarray(value)) for name, value in feed.items()} for feed in feeds]
        self.known: list[Stash] = []

    def run(self) -> Iterator[list[Values]]:
        """See :func:`steps`."""
        start = 0
        with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
            limit = MEMORY // max(len(self.feeds), 1)
            self.known = [Stash(Path(folder), limit, feed) for feed in self.feeds]
            for number, (stop, end) in enumerate(zip(self.stops, self.ends, strict=True)):
                if end > start:
                    self._advance(start, end, number)
                    start = end
                yield [View(values, stop.names) for values in self.known]

    def _advance(self, start: int, end: int, number: int) -> None:
        """Run the nodes from ``start`` up to ``end`` and drop what nobody reads behind them."""
        nodes, graph = self.nodes[start:end], self.model.graph
        made = {value.name: None for node in nodes for value in node.outputs if value.name}
        read = dict.fromkeys(name for names in self.reads[start:end] for name in names)
        constants = [name for name in read if name in graph.initializers]
        inputs = [name for name in read if name not in made and name not in graph.initializers]
        outputs = [name for name in made if self.last.get(name, -1) >= end or self.wanted.get(name, -1) >= number]
        segment = Segment(
            tuple(nodes), tuple(graph.initializers[name] for name in constants), tuple(inputs), tuple(outputs)
        )
        for values, results in zip(self.known, run_session(self.model, segment, self.known), strict=True):
            values.update(zip(outputs, results, strict=True))
            for name in list(values):
                if self.last.get(name, -1) < end and self.wanted.get(name, -1) < number:
                    del values[name]


def run_session(model: ir.Model, segment: Segment, feeds: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    """The outputs of one segment for each of ``feeds``, computed one after the other; optimised by ONNX Runtime."""
    if not segment.outputs:
        for _ in feeds:
            yield []
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.enable_cpu_mem_arena = False  # it keeps twice what it gave out, and each run is over soon
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    first = {name: feeds[0][name] for name in segment.inputs}
    proto, shared = segment_proto(model, segment, first)
    if shared:
        arrays = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in shared.values()]
        options.add_external_initializers(list(shared), arrays)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for feed in feeds:
        yield session.run(list(segment.outputs), {name: feed[name] for name in segment.inputs})


def as_single(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Half precision as float32, in which segments run."""
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array

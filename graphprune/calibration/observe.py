"""What runs through a program on calibration inputs, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.stash import as_float
from graphprune.calibration.steps import Feed, Values, as_single, run_session
from graphprune.frontends.program import Host
from graphprune.proof.run import Segment, reads

__all__ = ["Calibration"]


class Calibration:
    """A program and the batches that it is run on; nothing of either is kept between two calls.

    ``synthetic`` tells that the inputs were made up, ``source`` where they come from, for reports. ``progress`` is
    called with a text as batches pass.
    """

    def __init__(
        self,
        host: Host,
        feeds: Sequence[Feed],
        *,
        synthetic: bool = False,
        source: str = "",
        targets: Sequence[Any] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.host, self.feeds = host, list(feeds)
        self.synthetic, self.source, self.targets = synthetic, source, targets
        self._progress = progress

    def __len__(self) -> int:
        return len(self.feeds)

    @property
    def samples(self) -> int:
        """How many samples there are in all batches: the extent of the first dimension of their first input."""
        return sum(_extent(feed) for feed in self.feeds)

    def tell(self, text: str) -> None:
        """Show how far some longer work on the inputs has come."""
        if self._progress is not None:
            self._progress(text)

    @cached_property
    def observable(self) -> frozenset[str]:
        """Names of the tensors that can be observed: all but those inside the bodies of operators."""
        if isinstance(self.host, ir.Model):
            graph = self.host.graph
            values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
            return frozenset(value.name for value in values if value.name)
        from graphprune.calibration.torch_observe import observable

        return observable(self.host)

    def observe(self, names: Sequence[str]) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        """For each batch the values of the tensors called ``names``, floating-point ones as float32.

        The program is run once on each batch, and one batch of values is in memory at a time.
        """
        yield from self._told(self._observed(list(dict.fromkeys(names))))

    def outputs(self) -> Iterator[list[npt.NDArray[Any]]]:
        """The results of the program, batch by batch."""
        if isinstance(self.host, ir.Model):
            names = [value.name or "" for value in self.host.graph.outputs]
            for values in self._told(self._observed(names)):
                yield [values[name] for name in names]
            return
        from graphprune.calibration.torch_observe import outputs

        yield from self._told(outputs(self.host, self.feeds))

    def _observed(self, names: Sequence[str]) -> Iterator[Values]:
        if isinstance(self.host, ir.Model):
            return _onnx(self.host, self.feeds, names)
        from graphprune.calibration.torch_observe import observed

        return observed(self.host, self.feeds, names)

    def _told(self, batches: Iterator[Any]) -> Iterator[Any]:
        for number, batch in enumerate(batches, 1):
            self.tell(f"calibrate: batch {number} of {len(self.feeds)}")
            yield batch


def _onnx(model: ir.Model, feeds: Sequence[Feed], names: Sequence[str]) -> Iterator[Values]:
    """One session over the nodes that the wanted values need."""
    graph = model.graph
    needed: set[str] = set(names)
    nodes: list[ir.Node] = []
    for node in reversed(list(graph)):
        if any(value.name in needed for value in node.outputs):
            nodes.append(node)
            needed.update(reads(node))
    nodes.reverse()
    made = {value.name for node in nodes for value in node.outputs}
    constants = tuple(graph.initializers[name] for name in sorted(needed) if name in graph.initializers)
    inputs = tuple(v.name or "" for v in graph.inputs if v.name in needed and v.name not in graph.initializers)
    outputs = tuple(name for name in names if name in made)
    given = [{name: as_single(np.asarray(feed[name])) for name in inputs} for feed in feeds]
    for feed, results in zip(
        given, run_session(model, Segment(tuple(nodes), constants, inputs, outputs), given), strict=True
    ):
        found = dict(zip(outputs, results, strict=True))
        for name in names:
            if name not in found:
                own = feed.get(name)
                found[name] = graph.initializers[name].const_value.numpy() if own is None else own  # type: ignore[union-attr]
        yield {name: as_float(found[name]) for name in names}


def _extent(feed: Feed) -> int:
    value = next(iter(feed.values())) if isinstance(feed, Mapping) else feed
    while isinstance(value, list | tuple) and value:
        value = value[0]
    shape = getattr(value, "shape", ())
    return int(next(iter(shape), 1))

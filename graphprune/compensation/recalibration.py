"""Statistics of channels set right again, on calibration inputs and without labels.

After a cut each channel has another mean and variance than the layers behind it were trained on. Where batch
normalisation is still there, its stored statistics become those of what now reaches it. Where it was folded into the
layer before, the layer's results are given the mean and the deviation of the dense layer's, channel by channel
(``m``, ``d`` of the slim layer, ``M``, ``D`` of the dense one)::

    W <- W D / d        b <- (b - m) D / d + M

Layers come one after the other, each on what those before it give with their new weights. Sums are in float64;
variances are the unbiased estimates that PyTorch stores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.calibration.steps import Feed, Stop, Values, steps
from graphprune.compensation.functions import NORMS, named
from graphprune.compensation.pairs import top_nodes
from graphprune.frontends.program import Host, program_of
from graphprune.frontends.weight_access import get_weight, is_editable, set_weight
from graphprune.layers import Layer, layers
from graphprune.rules.call import Call
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["Recalibrated", "recalibrate"]

Array: TypeAlias = npt.NDArray[Any]

ROWS = 1 << 16
"""Rows of a layer that are looked at in all batches together."""
LARGEST = 10.0
"""By how much a channel is stretched at most: one that is nearly constant says nothing of its scale."""


@dataclass(slots=True)
class Recalibrated:
    """The new weights by name, and how many normalisations and layers have them."""

    weights: dict[str, Array] = field(default_factory=dict)
    normalisations: int = 0
    layers: int = 0


def recalibrate(
    before: Host,
    structure: Structure,
    selection: Selection,
    after: Host,
    feeds: Sequence[Feed],
    *,
    match: bool = True,
    seed: int = 0,
) -> Recalibrated:
    """Give ``after``, which ``selection`` has left of ``before``, new statistics in place.

    ``match`` also gives layers behind which there is no batch normalisation the moments of the dense ones.
    """
    slim = program_of(after).read()
    stations = list(_stations(slim, structure, after, match=match))
    dense = steps(
        before, feeds, [Stop(own.adder or own.node, (own.y,), True) for _, own in stations if own is not None]
    )
    ends = [Stop(own.call.node if isinstance(own, Layer) else own.node, (_input(own),)) for own, _ in stations]
    result, generator = Recalibrated(), np.random.default_rng(seed)
    for (station, twin), values in zip(stations, steps(after, feeds, ends), strict=True):
        if isinstance(station, Layer):
            assert twin is not None
            _match(station, twin, selection, after, values, next(dense), result, generator)
        else:
            _estimate(station, after, values, result)
    return result


def _input(station: Call | Layer) -> str:
    if isinstance(station, Layer):
        return station.x
    assert station.operands[0] is not None
    return station.operands[0].name


def _stations(
    slim: Structure, dense: Structure, after: Host, *, match: bool
) -> Iterator[tuple[Call | Layer, Layer | None]]:
    """What gets new numbers, in reading order: normalisations, and layers with the dense layer that each is left of."""
    own, twins = ({layer.node: layer for layer in layers(each)} for each in (slim, dense))
    uses = Counter(name for layer in own.values() for name in (layer.weight, layer.bias))
    top = top_nodes(after)
    norms = [call for call in slim.calls if call.node in top and _stores_statistics(call, after)]
    normalised = {_input(call) for call in norms}
    for call in slim.calls:
        if call in norms:
            yield call, None
            continue
        layer, twin = own.get(call.node), twins.get(call.node)
        if not match or layer is None or twin is None or layer.bias is None or layer.y in normalised:
            continue
        if layer.node not in top:
            continue
        names = (layer.weight, layer.bias)
        if all(uses[name] == 1 and is_editable(after, name) for name in names) and isinstance(twin.outputs.size, int):
            yield layer, twin


def _stores_statistics(call: Call, host: Host) -> bool:
    """Whether a call is a batch normalisation by statistics of its own that are stored."""
    if named(call) not in NORMS or any(mix.kind == "statistics" for mix in call.mixes):
        return False
    stored = [call.operand(number) for number in (3, 4)]
    return all(operand is not None and is_editable(host, operand.name) for operand in stored)


class _Moments:
    """Sums of numbers and of their squares, about the mean of the first batch, by channel."""

    def __init__(self) -> None:
        self.count, self._sum, self._squares, self._about = 0, 0.0, 0.0, 0.0  # type: Any, Any, Any, Any

    def add(self, rows: Array) -> None:
        """Take in ``(rows, channels)``."""
        wide = rows.astype(np.float64)
        if self.count == 0:
            self._about = wide.mean(0)
        wide -= self._about
        self.count += len(wide)
        self._sum = self._sum + wide.sum(0)
        self._squares = self._squares + (wide * wide).sum(0)

    @property
    def mean(self) -> Array:
        """Of each channel."""
        return np.asarray(self._about + self._sum / max(self.count, 1))

    @property
    def variance(self) -> Array:
        """The unbiased estimate for each channel."""
        spread = self._squares - self._sum * self._sum / max(self.count, 1)
        return np.asarray(np.maximum(spread, 0) / max(self.count - 1, 1))


def _estimate(call: Call, after: Host, values: Sequence[Values], result: Recalibrated) -> None:
    moments = _Moments()
    for batch in values:
        x = batch[_input(call)]
        moments.add(np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]))
    if moments.count < 2:
        return
    for number, new in ((3, moments.mean), (4, moments.variance)):
        operand = call.operand(number)
        assert operand is not None
        _replace(after, operand.name, new, result)
    result.normalisations += 1


def _match(
    slim: Layer,
    dense: Layer,
    selection: Selection,
    after: Host,
    values: Sequence[Values],
    wanted: Sequence[Values],
    result: Recalibrated,
    generator: np.random.Generator,
) -> None:
    weight, bias = get_weight(after, slim.weight), get_weight(after, str(slim.bias))
    matrix = slim.form.matrix(weight).astype(np.float64)
    kept = selection.mask(dense.outputs)
    mine, theirs = _Moments(), _Moments()
    for own, teacher in zip(values, wanted, strict=True):
        y = teacher[dense.y]
        index = _some(dense.form.count(y), max(ROWS // len(values), 1), generator)
        rows = slim.form.rows(own[slim.x], y, index)
        mine.add(np.einsum("rgf,gof->rgo", rows, matrix).reshape(len(rows), -1) + bias.reshape(-1))
        theirs.add(dense.form.targets(y, index).reshape(len(index), -1)[:, kept])
    if mine.count < 2 or mine.mean.shape != theirs.mean.shape:
        return
    deviation, target = np.sqrt(mine.variance), np.sqrt(theirs.variance)
    seen = deviation > 1e-6 * np.maximum(target, 1e-30)
    ratio = np.where(seen, np.clip(target / np.where(seen, deviation, 1), 1 / LARGEST, LARGEST), 1)
    scaled = matrix * ratio.reshape(matrix.shape[0], -1, 1)
    shifted = (bias.reshape(-1) - mine.mean) * ratio + theirs.mean
    _replace(after, slim.weight, slim.form.weight(scaled, weight), result)
    _replace(after, str(slim.bias), shifted.reshape(bias.shape), result)
    result.layers += 1


def _some(count: int, limit: int, generator: np.random.Generator) -> npt.NDArray[np.intp]:
    return np.arange(count) if count <= limit else np.sort(generator.choice(count, limit, replace=False))


def _replace(host: Host, name: str, array: Array, result: Recalibrated) -> None:
    set_weight(host, name, array)
    result.weights[name] = get_weight(host, name)

"""How near the outputs of a slim model are to those of the dense one, on the same batches.

For each output: the *cosine* between the two outputs of a sample, averaged over samples; the *relative error*, the norm
of all differences over that of the dense outputs; and where the output scores classes, the *agreement*, the share of
rows whose highest class is the same, and *KL*, the divergence in nats of the slim model's distribution from the dense
one's, averaged over rows. Scores become a distribution by a softmax, unless they are one already.

An output scores classes if it has two dimensions and no name that says otherwise (``boxes``, ``embedding``), or three
and the model reads tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.errors import UsageError

__all__ = ["Fidelity", "Likeness", "OutputFidelity", "Runs", "fidelity", "log_distribution"]

Array: TypeAlias = npt.NDArray[Any]

_NO_CLASSES = re.compile(r"box|landmark|coord|embed|feat|hidden|pose|offset|regress|mask|state", re.IGNORECASE)


class Runs(Protocol):
    """A program on its batches; :class:`~graphprune.calibration.observe.Calibration` is one."""

    def outputs(self) -> Iterator[list[Array]]:
        """The results of the program, batch by batch."""
        ...


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """One output of the slim model beside the dense one's.

    ``agreement`` and ``kl`` are None where the output scores no classes; an output of integers has the share of equal
    ones as ``agreement``. ``problem`` says why an output could not be compared.
    """

    name: str
    cosine: float | None
    relative_error: float | None
    kl: float | None = None
    agreement: float | None = None
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; figures that are not finite are null."""
        figures = {key: getattr(self, key) for key in ("cosine", "relative_error", "kl", "agreement")}
        finite = {key: None if value is None or not math.isfinite(value) else value for key, value in figures.items()}
        return {"name": self.name, **finite, **({"problem": self.problem} if self.problem else {})}


@dataclass(frozen=True, slots=True)
class Fidelity:
    """All outputs compared, on so many samples."""

    outputs: tuple[OutputFidelity, ...]
    samples: int
    synthetic: bool = False

    @property
    def cosine(self) -> float | None:
        """The lowest cosine of any output."""
        return min((own.cosine for own in self.outputs if own.cosine is not None), default=None)

    @property
    def relative_error(self) -> float | None:
        """The largest relative error of any output."""
        return max((own.relative_error for own in self.outputs if own.relative_error is not None), default=None)

    @property
    def agreement(self) -> float | None:
        """The agreement of the first output that scores classes."""
        return next((own.agreement for own in self.outputs if own.agreement is not None), None)

    @property
    def kl(self) -> float | None:
        """The divergence of the first output that scores classes."""
        return next((own.kl for own in self.outputs if own.kl is not None), None)

    @property
    def summary(self) -> str:
        """One line for people."""
        figures = (("cosine", self.cosine, ".4f"), ("relative error", self.relative_error, ".3f"))
        words = [f"{name} {format(value, form)}" for name, value, form in figures if value is not None]
        if self.agreement is not None:
            words.append(f"top-1 agreement {self.agreement:.1%}")
        if self.kl is not None:
            words.append(f"KL {self.kl:.4f}")
        on = " SYNTHETIC" if self.synthetic else ""
        return f"fidelity to the dense model on {self.samples}{on} samples: {', '.join(words) or 'nothing to compare'}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "samples": self.samples,
            "synthetic": self.synthetic,
            "outputs": [own.to_dict() for own in self.outputs],
        }


def fidelity(
    dense: Runs,
    slim: Runs,
    *,
    names: Sequence[str] = (),
    counts: Sequence[int] = (),
    tokens: bool = False,
    synthetic: bool = False,
) -> Fidelity:
    """The outputs of ``slim`` compared with those of ``dense``; both run on the same batches, one in memory at a time.

    ``names`` are what outputs are called, ``counts`` how many samples each batch has, and ``tokens`` tells that the
    model reads tokens.
    """
    likeness = Likeness(names, counts, tokens)
    for before, after in zip(dense.outputs(), slim.outputs(), strict=True):
        likeness.add(before, after)
    return likeness.result(synthetic)


@dataclass
class Likeness:
    """Adds up batch by batch what :func:`fidelity` returns; rows of a batch are samples where ``counts`` says so."""

    names: Sequence[str] = ()
    counts: Sequence[int] = ()
    tokens: bool = False
    _sums: list[_Sums] = field(default_factory=list)
    _samples: int = 0
    _batches: int = 0

    def add(self, dense: Sequence[Array], slim: Sequence[Array]) -> None:
        """One batch.

        Raises:
            UsageError: the models have different numbers of outputs.
        """
        if len(dense) != len(slim):
            raise UsageError(
                f"the dense model has {len(dense)} outputs and the slim one {len(slim)}: compare like models"
            )
        if not self._sums:
            self._sums = [_Sums(value, self.name(index), self.tokens) for index, value in enumerate(dense)]
        samples = self.counts[self._batches] if self._batches < len(self.counts) else None
        for sums, before, after in zip(self._sums, dense, slim, strict=True):
            sums.add(before, after, samples)
        self._batches += 1
        self._samples += samples if samples is not None else _rows(dense)

    def result(self, synthetic: bool = False) -> Fidelity:
        """What all batches so far say."""
        found = tuple(sums.result(self.name(index)) for index, sums in enumerate(self._sums))
        return Fidelity(found, self._samples, synthetic)

    def name(self, index: int) -> str:
        """What an output is called."""
        return self.names[index] if index < len(self.names) else f"output {index}"


class _Sums:
    """Of one output."""

    def __init__(self, first: Array, name: str, tokens: bool) -> None:
        self.integers = first.dtype.kind in "iub"
        scores = first.ndim == 3 if tokens else first.ndim == 2 and not _NO_CLASSES.search(name)
        self.classes = not self.integers and scores and first.shape[-1] >= 2
        self.given = self.classes and _is_distribution(first)
        # numbers of 0 to 1 that do not sum to one are classes each for itself: a softmax over them means nothing
        self.diverges = self.classes and (self.given or not bool(((first >= 0) & (first <= 1)).all()))
        self.cosines = self.kl = self.error = self.norm = 0.0
        self.samples = self.rows = self.equal = 0
        self.problem = ""

    def add(self, dense: Array, slim: Array, samples: int | None) -> None:
        if dense.shape != slim.shape:
            self.problem = f"its shape is {slim.shape} and the dense model's {dense.shape}"
        if self.problem:
            return
        if self.integers:
            self.equal += int((dense == slim).sum())
            self.rows += dense.size
            return
        before, after = dense.astype(np.float64), slim.astype(np.float64)
        if not np.isfinite(after).all():
            self.problem = "the slim model gives NaN or infinity"
            return
        self.error += float(np.square(after - before).sum())
        self.norm += float(np.square(before).sum())
        count = samples if samples and dense.ndim and dense.shape[0] % samples == 0 else 1
        flat, other = before.reshape(count, -1), after.reshape(count, -1)
        self.cosines += float(_cosines(flat, other).sum())
        self.samples += count
        if self.classes:
            rows, others = before.reshape(-1, before.shape[-1]), after.reshape(-1, after.shape[-1])
            self.equal += int((rows.argmax(1) == others.argmax(1)).sum())
            self.rows += len(rows)
            if self.diverges:
                logs, own = log_distribution(rows, self.given), log_distribution(others, self.given)
                self.kl += float((np.exp(logs) * (logs - own)).sum())

    def result(self, name: str) -> OutputFidelity:
        if self.problem:
            return OutputFidelity(name, None, None, problem=self.problem)
        share = self.equal / self.rows if self.rows else None
        if self.integers:
            return OutputFidelity(name, None, None, agreement=share)
        cosine = self.cosines / self.samples if self.samples else None
        relative = math.sqrt(self.error / self.norm) if self.norm else (math.inf if self.error else 0.0)
        kl = self.kl / self.rows if self.diverges and self.rows else None
        return OutputFidelity(name, cosine, relative, kl, share if self.classes else None)


def log_distribution(rows: Array, given: bool | None = None) -> npt.NDArray[np.float64]:
    """The logarithms of a distribution over the last dimension: of scores by a softmax, of probabilities as they are.

    ``given`` tells which of the two they are; by default that is told from the numbers.
    """
    values = rows.astype(np.float64)
    if _is_distribution(rows) if given is None else given:
        logs: npt.NDArray[np.float64] = np.log(np.clip(values, 1e-12, None))
        return logs
    shifted = values - values.max(-1, keepdims=True)
    normal: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normal


def _is_distribution(values: Array) -> bool:
    """Whether rows are probabilities: not negative, and each sums to one (as float16 rounds)."""
    return bool(values.size and (values >= 0).all() and np.allclose(values.sum(-1, dtype=np.float64), 1, atol=5e-3))


def _cosines(one: Array, other: Array) -> Array:
    """Of rows; two zeros are alike, and zero is like nothing else."""
    norms, others = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    product = norms * others
    whole = np.where(product > 0, (one * other).sum(1) / np.where(product > 0, product, 1), 0.0)
    cosines: Array = np.where((norms == 0) & (others == 0), 1.0, whole)
    return cosines


def _rows(outputs: Iterable[Array]) -> int:
    return next((len(value) for value in outputs if value.ndim), 1)

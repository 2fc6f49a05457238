"""What is compared: ways of pruning with graphprune, and Torch-Pruning's; and which are run on which network."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

__all__ = ["METHODS", "PARTS", "Case", "Method", "cases"]


@dataclass(frozen=True, slots=True)
class Method:
    """A way of pruning.

    ``options`` go to :func:`graphprune.prune`; ``calibrated`` methods are also given the calibration inputs. A method
    with a ``rival`` is Torch-Pruning's: the name and arguments of its importance, and whether it is global; with
    ``inner`` it is told to leave the channels of the residual stream alone.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    calibrated: bool = False
    rival: tuple[str, Mapping[str, Any]] | None = None
    wide: bool = False
    inner: bool = False

    @property
    def available(self) -> bool:
        """Whether this graphprune has the options."""
        needed = {*self.options, *(["calibration"] if self.calibrated else [])}
        return self.rival is not None or needed <= _options()


@cache
def _options() -> frozenset[str]:
    import graphprune

    return frozenset(inspect.signature(graphprune.prune).parameters)


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table: a network pruned to ``keep`` per cent of its multiply-accumulates by a method."""

    part: str
    network: str
    keep: int
    method: str
    seed: int

    @property
    def name(self) -> str:
        """What the row is called on the command line."""
        return f"{self.network}/{self.keep}/{self.method}/s{self.seed}"


def _ours() -> Iterator[Method]:
    yield Method("dense", "dense")
    for criterion in ("l1", "l2", "random"):
        for scope in ("local", "global"):
            yield Method(f"{criterion}-{scope}", "magnitude", {"criterion": criterion, "scope": scope})
    yield Method("no-data", "no data", {"recipe": "no-data"})
    yield Method("calibrated", "calibrated", {"recipe": "calibrated", "compensate": "none"}, True)
    yield Method("compensated", "calibrated, compensated", {"recipe": "calibrated"}, True)
    yield Method("best", "calibrated, compensated", {"recipe": "best"}, True)


RIVALS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "l1": ("MagnitudeImportance", {"p": 1}),
    "l2": ("MagnitudeImportance", {"p": 2}),
    "group-norm": ("GroupMagnitudeImportance", {"p": 2, "normalizer": "max"}),
    "bn-scale": ("BNScaleImportance", {}),
    "lamp": ("LAMPImportance", {}),
    "fpgm": ("FPGMImportance", {}),
    "taylor": ("TaylorImportance", {}),
    "random": ("RandomImportance", {}),
}
"""Torch-Pruning's importances by the names used here."""


def _theirs() -> Iterator[Method]:
    for name, rival in RIVALS.items():
        for wide in (False, True):
            scope = "global" if wide else "local"
            for inner in (False, True):
                end = "-inner" if inner else ""
                yield Method(f"tp-{name}-{scope}{end}", "Torch-Pruning", rival=rival, wide=wide, inner=inner)


METHODS = {method.name: method for method in (*_ours(), *_theirs())}
OURS = tuple(method.name for method in _ours() if method.name != "dense")


def _rivals(names: Sequence[str], *, inner: Sequence[bool]) -> list[str]:
    return [
        method.name
        for method in METHODS.values()
        if method.rival and method.inner in inner and method.name.split("-local")[0].split("-global")[0][3:] in names
    ]


_MAIN, _ALL = ("l1", "l2"), tuple(RIVALS)
PARTS: Mapping[str, tuple[tuple[tuple[str, ...], tuple[int, ...], list[str]], ...]] = {
    "resnet": (
        (("resnet20", "resnet56"), (50, 70, 40), [*OURS]),
        (("resnet20", "resnet56"), (50,), _rivals(_ALL, inner=(True,))),
        (("resnet20", "resnet56"), (50,), _rivals(_MAIN, inner=(False,))),
        (("resnet20", "resnet56"), (70, 40), _rivals(_MAIN, inner=(True,))),
    ),
    "mobilenet": (
        (("mobilenetv2", "mobilenetv1"), (80, 70), [*OURS]),
        (("mobilenetv1",), (80, 70), _rivals([name for name in _ALL if name != "random"], inner=(False,))),
        (("mobilenetv2",), (80, 70), _rivals(["l1", "l2", "lamp", "fpgm", "taylor"], inner=(False,))),
    ),
    "transformer": ((("llama", "albert"), (80,), [*OURS]),),
}
"""Of each part: networks, per cent of multiply-accumulates to keep, methods."""


def cases(parts: Sequence[str], seeds: Sequence[int]) -> Iterator[Case]:
    """Yield the rows of these parts, the dense networks first."""
    for part in parts:
        for seed in seeds:
            networks = dict.fromkeys(name for names, _, _ in PARTS[part] for name in names)
            for network in networks:
                yield Case(part, network, 100, "dense", seed)
            for names, keeps, methods in PARTS[part]:
                for network in names:
                    for keep in keeps:
                        for method in methods:
                            yield Case(part, network, keep, method, seed)

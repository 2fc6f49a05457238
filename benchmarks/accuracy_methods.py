"""What is compared: ways of pruning with graphprune, and Torch-Pruning's; and which are run on which network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["METHODS", "PARTS", "Case", "Method", "cases"]


@dataclass(frozen=True, slots=True)
class Method:
    """A way of pruning.

    ``options`` go to :func:`graphprune.prune`; ``calibrated`` methods are also given the calibration inputs, and
    ``labelled`` ones, which need gradients, the module and the labels too. A method with a ``rival`` is
    Torch-Pruning's: the name and arguments of its importance, and whether it is global; with ``inner`` it is told to
    leave the channels of the residual stream alone. ``control`` is the dense network with the same recovery.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    calibrated: bool = False
    rival: tuple[str, Mapping[str, Any]] | None = None
    wide: bool = False
    inner: bool = False
    labelled: bool = False


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


PLAIN = {"recipe": "weights", "compensate": "none"}


def _ours() -> Iterator[Method]:
    yield Method("dense", "dense")
    yield Method("control", "dense", calibrated=True)
    for criterion in ("l1", "l2", "random"):
        for scope in ("local", "global"):
            yield Method(f"{criterion}-{scope}", "magnitude", {**PLAIN, "criterion": criterion, "scope": scope})
    yield Method("no-data", "no data", {"recipe": "no-data"})
    yield Method("l2-merged", "no data", {"recipe": "weights", "criterion": "l2", "compensate": "merge"})
    yield Method("calibrated", "calibrated", {"recipe": "calibrated", "compensate": "none"}, True)
    options = {"recipe": "calibrated", "criterion": "l1", "compensate": "least-squares"}
    yield Method("l1-compensated", "calibrated, compensated", options, True)
    for compensate in ("bias", "recalibrate"):
        options = {"recipe": "calibrated", "compensate": compensate}
        yield Method(f"calibrated-{compensate}", "calibrated, compensated", options, True)
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


def _criteria() -> Iterator[Method]:
    """Every criterion: each group loses the same share, or groups compete, or the same with compensation."""
    from graphprune.score import criteria, criterion

    for name in criteria():
        gradients = "gradients" in criterion(name).needs
        for end, options in (
            ("local", {"scope": "local", "compensate": "none"}),
            ("global", {"scope": "global", "compensate": "none"}),
            ("local-ls", {"scope": "local", "compensate": "least-squares"}),
        ):
            arguments = {"recipe": "calibrated", "criterion": name, "normalize": "max", **options}
            yield Method(f"criterion-{name}-{end}", "criterion", arguments, True, labelled=gradients)


METHODS = {method.name: method for method in (*_ours(), *_theirs(), *_criteria())}
OURS = tuple(method.name for method in _ours() if method.kind != "dense")


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
    "criteria": ((("resnet20",), (50,), [name for name in METHODS if name.startswith("criterion-")]),),
}
"""Of each part: networks, per cent of multiply-accumulates to keep, methods."""


def cases(parts: Sequence[str], seeds: Sequence[int]) -> Iterator[Case]:
    """Yield the rows of these parts, the dense networks first."""
    for part in parts:
        for seed in seeds:
            networks = dict.fromkeys(name for names, _, _ in PARTS[part] for name in names)
            for network in networks:
                if part != "criteria":  # there the dense network is that of another part
                    yield Case(part, network, 100, "dense", seed)
                    yield Case(part, network, 100, "control", seed)
            for names, keeps, methods in PARTS[part]:
                for network in names:
                    for keep in keeps:
                        for method in methods:
                            yield Case(part, network, keep, method, seed)

"""What a pass is: a frozen dataclass whose fields are its options, with a contract that can be checked."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from graphprune.clock import Clock
from graphprune.errors import UsageError
from graphprune.frontends.program import Host, is_torch
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["Context", "Decision", "Pass", "Report", "last_cut", "passes", "register", "run_passes"]

P = TypeVar("P", bound="type[Pass]")

_REGISTRY: dict[str, type[Pass]] = {}


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass did.

    ``modified`` is true exactly when the model is no longer what it was; ``counts`` says how often each thing was
    done; ``notes`` are sentences for the user.
    """

    modified: bool
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """A cut that was carried out: by which pass, on which model, and what it left.

    ``lossless``: nothing was lost, so ``after`` must equal ``before`` itself rather than the masked ``before``;
    ``reference``: what ``after`` must equal instead, where no positions but whole operators went; ``estimated``:
    weights were chosen anew, so that ``after`` is to be near the original rather than equal to anything.
    """

    by: str
    before: Host
    after: Host
    structure: Structure
    selection: Selection
    lossless: bool = False
    reference: Host | None = None
    estimated: bool = False


@dataclass(slots=True)
class Context:
    """What the passes of one pipeline share.

    ``reports`` holds each pass's report in the order they ran;
    ``data`` holds what one pass leaves for a later one, under the leaving pass's name; ``decisions`` are the cuts so
    far; ``dims`` are numbers for symbolic dimensions by name; ``clock`` times the stages;
    ``notes`` are sentences for the user that belong to no pass.
    """

    reports: list[tuple[str, Report]] = field(default_factory=list)
    data: dict[str, object] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    dims: Mapping[str, int] | None = None
    clock: Clock = field(default_factory=Clock)
    notes: list[str] = field(default_factory=list)

    def ran(self, name: str) -> bool:
        """Return whether the pass called ``name`` has run."""
        return any(done == name for done, _ in self.reports)


@dataclass(frozen=True)
class Pass(ABC):
    """A step that changes a model in place; subclasses are frozen dataclasses.

    ``requires`` names passes that must have run earlier in the same pipeline; ``any_host`` tells that a pass takes
    PyTorch programs as well as ONNX models.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    any_host: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    @abstractmethod
    def run(self, model: Any, context: Context) -> Report:
        """Change ``model`` in place and say what was done; idempotent."""

    def __call__(self, model: Host, context: Context | None = None) -> Report:
        """Run alone or as one step of a pipeline, and record the report in ``context``.

        Raises:
            UsageError: the pass is for ONNX models, and this is not one.
        """
        if not self.any_host and is_torch(model):
            raise UsageError(f"pass '{self.name}' works on ONNX models only: export the module, or leave the pass out")
        context = Context() if context is None else context
        report = self.run(model, context)
        context.reports.append((self.name, report))
        return report


def register(cls: P) -> P:
    """Class decorator: let pipelines use this pass by its name."""
    if _REGISTRY.setdefault(cls.name, cls) is not cls:
        raise UsageError(f"two passes are called '{cls.name}': rename {cls.__qualname__}")
    return cls


def passes() -> Mapping[str, type[Pass]]:
    """Return the registered passes by name."""
    return dict(sorted(_REGISTRY.items()))


def last_cut(context: Context, name: str) -> Decision:
    """The last decision that removed positions.

    Raises:
        UsageError: there is none.
    """
    cuts = [each for each in context.decisions if each.selection.keep and not each.lossless and not each.estimated]
    if not cuts:
        raise UsageError(f"{name} comes after a cut: put prune in front of it")
    return cuts[-1]


def run_passes(model: Host, steps: Sequence[Pass], context: Context | None = None) -> Context:
    """Run ``steps`` on ``model`` in place, in order, and return the context with their reports.

    Raises:
        UsageError: before anything runs, when a pass comes without one that it requires.
    """
    context = Context() if context is None else context
    before = {name for name, _ in context.reports}
    for step in steps:
        for required in step.requires:
            if required not in before:
                raise UsageError(f"pass '{step.name}' needs '{required}' before it: put {required} in front of it")
        before.add(step.name)
    for step in steps:
        step(model, context)
    return context

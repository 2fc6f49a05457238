"""The way back of a pruned program: the user's own class, where it computes what the slim graph does, else that graph.

A copy of the user's module gets the slim graph's parameters, and its attributes are set to the new sizes: those of
``torch.nn``'s layers by a table, others by what the graph shows of their meaning. Nothing of this is trusted: the copy
is kept only if its own forward pass agrees with the slim graph. Where it does not, alternatives are tried, within a
bound.
"""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx, nn

from graphprune.frontends.torch_attention import adapt_attention
from graphprune.frontends.torch_calls import arguments, walk
from graphprune.frontends.torch_evidence import Evidence, Hypothesis, hypotheses, modules_of
from graphprune.frontends.torch_layers import sizes_of_layer
from graphprune.frontends.torch_likeness import (
    difference,
    first_line,
    forget,
    shaken,
    steps_alike,
    trace_graph,
    unchanged,
)
from graphprune.frontends.torch_optimizer import carry_optimizer
from graphprune.frontends.torch_patch import Number, Patch, numbers, set_number
from graphprune.frontends.torch_program import TorchProgram
from graphprune.frontends.torch_pruned import PrunedModule
from graphprune.frontends.torch_scale import DEFAULT_SCALE, move_scales
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["Back", "carry_optimizer", "returned"]

_TRIES = 64
"""How often the patched copy may run while meanings of its attributes are tried."""


@dataclass(frozen=True)
class Back:
    """What a pruned program comes back as.

    ``way`` is ``"module"`` for the user's class, changed by ``patches``, and ``"graph"`` for the slim graph; then
    ``reason`` says in one line why the class could not be kept. ``program`` is the slim program with the module's
    parameters, where those had to become others than the slim program's (see :mod:`~graphprune.frontends.torch_scale`).
    """

    module: nn.Module
    way: Literal["module", "graph"]
    reason: str = ""
    patches: tuple[Patch, ...] = ()
    program: TorchProgram | None = None


Step = tuple[int, str, str]
"""How far a run of the copy came, the module that went wrong, and what happened; nothing if all went well."""


class _Refused(Exception):
    """The user's class cannot be kept, for the reason given."""


def returned(
    original: TorchProgram,
    slim: TorchProgram,
    structure: Structure,
    selection: Selection | None,
    *,
    seed: int = 0,
    way: Literal["auto", "module", "graph"] = "auto",
) -> Back:
    """The slim program as a module that trains; neither program nor the user's module is changed.

    ``structure`` is that of ``original``, and ``selection`` what ``slim`` keeps of it: None where more was changed than
    a selection can say, which only the graph can express.
    """
    own = slim.detached()  # comparing writes to running statistics, and what comes back is trained
    reason = "the graph was asked for"
    if way != "graph":
        try:
            return _class(original, own, structure, selection, seed)
        except _Refused as refused:
            reason = str(refused)
    source = original.source
    saved = (original.module if source is None else source).state_dict()
    training = None if source is None else source.training
    names = {*saved, *(name for name, _ in slim.module.named_parameters(remove_duplicate=False))}
    return Back(PrunedModule.of(own.module, names, training), "graph", reason)


def _class(
    original: TorchProgram, slim: TorchProgram, structure: Structure, selection: Selection | None, seed: int
) -> Back:
    source = original.source
    if source is None:
        raise _Refused("an exported program has no class to go back to")
    if selection is None:
        raise _Refused("more was changed than the removal of positions")
    if isinstance(source, fx.GraphModule):
        raise _Refused("the module is a graph itself")
    problem = ""
    for spelled in (False, True):
        wanted = _rescaled(source, original, slim, spelled=spelled)
        if spelled and wanted is slim:
            break
        try:
            module = copy.deepcopy(source, _slim_tensors(source, wanted.module, structure))
        except Exception as error:  # copying runs whatever the user's objects define
            raise _Refused(f"{type(source).__name__} cannot be copied ({first_line(error)})") from error
        _refresh(module)
        adapt_attention(module)
        patching = _Patching(module, original, wanted, structure, selection, seed)
        found = patching.settle()
        if not found:
            return Back(module, "module", "", patching.patches(source), None if wanted is slim else wanted)
        problem = problem or found
    raise _Refused(problem)


def _rescaled(source: nn.Module, original: TorchProgram, slim: TorchProgram, *, spelled: bool) -> TorchProgram:
    """The slim program with the scales of attention that the user's code will compute; itself where those are the same.

    ``spelled``: whether numbers in the graph are taken for scales that Python computes from a width.
    """
    if not spelled and not any(node.meta.get(DEFAULT_SCALE) for _, node, _ in walk(slim.module)):
        return slim
    scaled = slim.detached()
    keep = [path for path, child in source.named_modules() if isinstance(child, nn.MultiheadAttention)]
    if not move_scales(scaled.module, keep, original.module if spelled else None):
        return slim
    for owner in {id(owner): owner for _, _, owner in walk(scaled.module)}.values():
        owner.recompile()
    same = not difference(scaled.module, slim.module, slim.args, slim.kwargs, noise=False)
    return scaled if same else slim


# -- parameters ---------------------------------------------------------------------------------------------------


def places_of(module: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Where each tensor of a module is held, by its id: parameters, buffers, plain attributes; tied ones together."""
    found: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for child in module.modules():
        for held in (child._parameters, child._buffers, child.__dict__):
            for name, value in held.items():
                if isinstance(value, torch.Tensor):
                    found[id(value)].append((child, name))
    return found


def resolve(module: nn.Module, name: str) -> torch.Tensor | None:
    """The tensor called ``name``, None where the module has none."""
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value if isinstance(value, torch.Tensor) else None


def replace_tensors(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put tensors in the places of others, by name; what was tied stays tied."""
    places = places_of(module)
    for name, tensor in tensors.items():
        old = resolve(module, name)
        for owner, own in places.pop(id(old), ()):
            if own in owner._parameters:
                owner._parameters[own] = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
            elif own in owner._buffers:
                owner._buffers[own] = tensor
            else:
                owner.__dict__[own] = tensor
    _refresh(module)


def _refresh(module: nn.Module) -> None:
    """Let recurrent layers find their weights anew, and others forget what they made of theirs."""
    forget(module)
    for child in module.modules():
        if isinstance(child, nn.RNNBase):
            child._init_flat_weights()


def _slim_tensors(source: nn.Module, slim: nn.Module, structure: Structure) -> dict[int, Any]:
    """What a copy of the user's module gets in the place of its parameters and buffers, by their ids."""
    found: dict[int, Any] = {}
    for name in structure.parameters:
        old, new = resolve(source, name), resolve(slim, name)
        if old is None or new is None or old.dtype != new.dtype or id(old) in found:
            continue
        value = new.detach().clone()
        found[id(old)] = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
    return found


# -- attributes ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Meaning:
    """An attribute of all modules of one class, and what it may become in each, the likeliest first."""

    numbers: list[Number]
    choices: list[Hypothesis]
    choice: int = 0

    def values(self) -> Iterator[tuple[Number, int]]:
        yield from zip(self.numbers, self.choices[self.choice].after, strict=True)


class _Patching:
    """Finds the numbers that make a copy with sliced parameters compute what the slim graph does."""

    def __init__(
        self,
        module: nn.Module,
        original: TorchProgram,
        slim: TorchProgram,
        structure: Structure,
        selection: Selection,
        seed: int,
    ) -> None:
        self.module, self.slim, self.seed = module, slim, seed
        self.tries = 0
        self._undo: list[tuple[_Meaning, int]] = []
        spelled = _spelled(slim.module)
        held: list[Number] = []
        shared: dict[int, list[Number]] = defaultdict(list)
        for path, child in module.named_modules():
            sizes = sizes_of_layer(child, spelled.get(path, {}))
            child.__dict__.update(sizes)
            for number in numbers(path, child):
                if number.attribute[0] in sizes:
                    continue
                own = len(number.attribute) == 1 or isinstance(number.attribute[1], int)
                (held if own else shared[id(number.holder)]).append(number)
        wanted: dict[str, set[int]] = defaultdict(set)
        for number in itertools.chain(held, *shared.values()):
            wanted[number.module].add(number.value)
        evidence = Evidence(original.module, slim.module, structure, selection, wanted)
        self.meanings = [*_meanings(module, held, evidence), *_shared_meanings(shared, evidence)]

    def settle(self) -> str:
        """Set the attributes; returns why no choice that was tried works, or nothing."""
        self._set()
        args, kwargs = self.slim.args, self.slim.kwargs
        problem = difference(self.module, self.slim.module, args, kwargs, seed=self.seed)
        if not problem or not any(len(meaning.choices) > 1 for meaning in self.meanings):
            return problem
        where = ""
        with shaken([self.module, self.slim.module], self.seed), unchanged(self.slim.module):
            trace = trace_graph(self.slim.module, args, kwargs, self.seed)

            def attempt() -> Step:
                self._set()
                self.tries += 1
                return steps_alike(self.module, trace, args, kwargs, self.seed)

            step: Step | None = attempt()
            while step is not None and step[2] and self.tries < _TRIES:
                where = step[1]
                step = self._better(attempt, step)
        self._set()
        again = difference(self.module, self.slim.module, args, kwargs, seed=self.seed)
        return again and f"{again}{f', first in {where}' if where else ''}"

    def _better(self, attempt: Callable[[], Step], before: Step) -> Step | None:
        """Choose other meanings for attributes of the module that went wrong, or of those around it.

        Pairs are tried of those that make a difference alone.
        """
        near = [
            (meaning, choice) for meaning in self._near(before[1]) for choice in range(min(len(meaning.choices), 6))
        ]
        useful: list[tuple[_Meaning, int]] = []
        for meaning, choice in near:
            if choice != meaning.choice:
                found = self._attempt(attempt, [(meaning, choice)])
                if not found[2] or found[0] > before[0]:
                    return found
                if found != before:
                    useful.append((meaning, choice))
                self._take_back()
        for one, other in itertools.combinations(useful, 2):
            if one[0] is not other[0] and self.tries < _TRIES:
                found = self._attempt(attempt, [one, other])
                if not found[2] or found[0] > before[0]:
                    return found
                self._take_back()
        return None

    def _attempt(self, attempt: Callable[[], Step], chosen: list[tuple[_Meaning, int]]) -> Step:
        self._undo = [(meaning, meaning.choice) for meaning, _ in chosen]
        for meaning, choice in chosen:
            meaning.choice = choice
        return attempt()

    def _take_back(self) -> None:
        for meaning, choice in self._undo:
            meaning.choice = choice

    def _near(self, where: str) -> list[_Meaning]:
        """Meanings of attributes that the module called ``where``, its parts or the modules around it hold."""
        levels = [".".join(where.split(".")[:count]) for count in range(len(where.split(".")), 0, -1)]
        levels = [*levels, ""] if where else [""]
        found: list[_Meaning] = []
        for level in levels:
            for meaning in self.meanings:
                here = any(number.module == level for number in meaning.numbers)
                if here and len(meaning.choices) > 1 and meaning not in found:
                    found.append(meaning)
        inside = [
            m
            for m in self.meanings
            if len(m.choices) > 1 and m not in found and any(n.module.startswith(f"{where}.") for n in m.numbers)
        ]
        return [*found, *inside][:8]

    def _set(self) -> None:
        for meaning in self.meanings:
            for number, value in meaning.values():
                set_number(self.module, number.module, number.attribute, value)

    def patches(self, source: nn.Module) -> tuple[Patch, ...]:
        """What was changed against the user's module."""
        found: list[Patch] = []
        seen: set[tuple[int, Any]] = set()
        for path, child in source.named_modules():
            after = {number.attribute: number.value for number in numbers(path, self.module.get_submodule(path))}
            for number in numbers(path, child):
                key = (id(number.holder), number.attribute[-1])
                new = after.get(number.attribute, number.value)
                if new != number.value and key not in seen:
                    found.append(Patch(path, number.attribute, number.value, new))
                seen.add(key)
        return tuple(found)


def _meanings(module: nn.Module, held: list[Number], evidence: Evidence) -> list[_Meaning]:
    """Attributes that modules hold themselves: alike in all modules of a class."""
    kinds: dict[tuple[type, tuple[str | int, ...]], list[Number]] = defaultdict(list)
    for number in held:
        kinds[type(module.get_submodule(number.module)), number.attribute].append(number)
    found: list[_Meaning] = []
    for (_, _), each in kinds.items():
        used = [number for number in each if evidence.sources.get(number.module)]
        if not used:
            continue
        sources = [evidence.sources[number.module] for number in used]
        choices = hypotheses(used[0].name, [number.value for number in used], sources)
        if choices:
            found.append(_Meaning(used, choices))
    return found


def _shared_meanings(shared: Mapping[int, list[Number]], evidence: Evidence) -> list[_Meaning]:
    """Numbers of configuration objects: changed where everything that holds the object agrees, which is tried last."""
    found: list[_Meaning] = []
    for each in shared.values():
        names: dict[tuple[str | int, ...], list[Number]] = defaultdict(list)
        for number in each:
            names[number.attribute[1:]].append(number)
        for same in names.values():
            sources = [source for number in same for source in evidence.sources.get(number.module, ())]
            choices = hypotheses(same[0].name, [same[0].value], [sources])
            if choices:
                found.append(_Meaning(same[:1], choices))
    return found


def _spelled(slim: fx.GraphModule) -> dict[str, dict[str, Any]]:
    """The arguments of the calls that each innermost module makes."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for _, node, _ in walk(slim):
        paths = modules_of(node)
        if paths and node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            for name, value in arguments(node).items():
                if isinstance(value, int | list | tuple) and not isinstance(value, bool):
                    found[paths[-1]].setdefault(name, value)
    return found

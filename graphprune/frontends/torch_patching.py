"""Finding what the attributes of a module must become, so that it computes what a slim graph does.

What the graph shows of their meaning is tried first; where the module's own forward then disagrees, other meanings of
the attributes near the place where it parts from the graph are tried, within a bound.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from graphprune.frontends.torch_calls import arguments, walk
from graphprune.frontends.torch_evidence import Evidence, Hypothesis, hypotheses, modules_of
from graphprune.frontends.torch_layers import sizes_of_layer
from graphprune.frontends.torch_likeness import difference, shaken, unchanged
from graphprune.frontends.torch_patch import Number, Patch, numbers, set_number
from graphprune.frontends.torch_program import TorchProgram
from graphprune.frontends.torch_trace import steps_alike, trace_graph
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["Patching"]

_TRIES = 64
"""How often the patched copy may run while meanings of its attributes are tried."""

Step = tuple[int, str, str]
"""How far a run of the copy came, the module that went wrong, and what happened; nothing if all went well."""


@dataclass(slots=True)
class _Meaning:
    """An attribute of all modules of one class, and what it may become in each, the likeliest first."""

    numbers: list[Number]
    choices: list[Hypothesis]
    choice: int = 0

    def values(self) -> Iterator[tuple[Number, int]]:
        yield from zip(self.numbers, self.choices[self.choice].after, strict=True)


class Patching:
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
        self._layers: set[tuple[str, str | int]] = set()
        spelled = _spelled(slim.module)
        held: list[Number] = []
        shared: dict[int, list[Number]] = defaultdict(list)
        for path, child in module.named_modules():
            sizes = sizes_of_layer(child, spelled.get(path, {}))
            child.__dict__.update(sizes)
            self._layers.update((path, name) for name in sizes)
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
        """What was changed against the user's module: numbers that were set here, and no others."""
        chosen = {(n.module, n.attribute) for meaning in self.meanings for n in meaning.numbers}
        found: list[Patch] = []
        seen: set[tuple[int, Any]] = set()
        for path, child in source.named_modules():
            after = {number.attribute: number.value for number in numbers(path, self.module.get_submodule(path))}
            for number in numbers(path, child):
                if (path, number.attribute) not in chosen and (path, number.attribute[0]) not in self._layers:
                    continue
                key = (id(number.holder), number.attribute[-1])
                new = after.get(number.attribute, number.value)
                if new != number.value and key not in seen:
                    found.append(Patch(path, number.attribute, number.value, new))
                if not isinstance(number.holder, tuple):  # modules share tuples until one of them is set
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

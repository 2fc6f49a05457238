"""Which sizes the calls of a module spelled before a cut and after it, and what its attributes may mean in that light.

Python computes the sizes that a graph spells from attributes of its modules: ``view(b, n, self.heads, -1)``. Export
keeps, for each node, the modules whose ``forward`` made it. So a number in a node's arguments, or an extent of a tensor
that it touches, which equals an attribute of one of these modules, is evidence for what the attribute becomes. Modules
of one class make the same calls, so what an attribute means is the same place in all of them: a place that has the
attribute's value in every instance is a hypothesis, and instances of different widths tell hypotheses apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from graphprune.axes import Axis, Leaf
from graphprune.frontends.torch_calls import names_of, walk
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["Evidence", "Hypothesis", "Source", "hypotheses", "modules_of"]

_PARTS = 12
"""How many parts of one axis are looked at."""


@dataclass(frozen=True, slots=True)
class Source:
    """A size somewhere in the calls of a module: where, before and after the cut, and what kind of thing it is.

    ``place`` is comparable between modules of one class. ``role`` is that of the axis, where it is an extent.
    """

    place: tuple[object, ...]
    before: int
    after: int
    spelled: bool
    own: bool
    role: str = ""
    side: str = ""


@dataclass(slots=True)
class Hypothesis:
    """What an attribute becomes in each of its instances, and how much speaks for it.

    ``own``: whether calls that the modules make themselves do, rather than modules in them.
    """

    after: tuple[int, ...]
    weight: float = 0.0
    own: bool = False


def modules_of(node: fx.Node) -> list[str]:
    """The qualified names of the modules whose forward made a node, outermost first."""
    return [str(path).partition("@")[0] for path, _ in (node.meta.get("nn_module_stack") or {}).values()]


class Evidence:
    """The sizes in all calls of a program by module, as far as a module has an attribute of that value.

    ``wanted`` are the values of a module's attributes.
    """

    def __init__(
        self,
        before: fx.GraphModule,
        after: fx.GraphModule,
        structure: Structure,
        selection: Selection,
        wanted: Mapping[str, set[int]],
    ) -> None:
        self.structure, self.selection, self.wanted = structure, selection, wanted
        self.sources: dict[str, list[Source]] = defaultdict(list)
        self._roles = {group.leaf: group.role for group in structure.groups}
        self._extents: dict[int, list[tuple[int, int, int, str, Axis]]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        slim = {label: node for label, node, _ in walk(after)}
        self._adopted = self._adoptions(before)
        for label, node, _ in walk(before):
            if node.op == "call_function":
                self._node(label, node, slim.get(label))

    def _adoptions(self, graph: fx.GraphModule) -> dict[str, list[str]]:
        """Modules whose forward is never called, by the module around them that is: it calls methods of theirs."""
        called = {path for _, node, _ in walk(graph) for path in modules_of(node)}
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.wanted:
            if path not in called:
                around = path
                while around and around not in called:
                    around = around.rpartition(".")[0]
                found[around].append(path)
        return found

    def _node(self, label: str, node: fx.Node, slim: fx.Node | None) -> None:
        paths = modules_of(node)
        if not paths:
            return
        adopted = self._adopted.get(paths[-1], ())
        if not any(self.wanted.get(path) for path in (*paths, *adopted)):
            return
        op = names_of(node.target)[-1]
        number = self._counts[paths[-1], op]
        self._counts[paths[-1], op] += 1
        found = list(self._spelled(node, slim)) + list(self._touched(label, node))
        for path in dict.fromkeys((*paths, *adopted)):
            wanted = self.wanted.get(path)
            if not wanted:
                continue
            inner = "" if path in adopted else paths[-1][len(path) :]
            for place, before, after, spelled, role, side in found:
                if before in wanted:
                    where = (inner, op, number, *place)
                    self.sources[path].append(Source(where, before, after, spelled, not inner, role, side))

    def _spelled(self, node: fx.Node, slim: fx.Node | None) -> Iterator[tuple[Any, ...]]:
        """The integers in the arguments of a call."""
        if slim is None or slim.target is not node.target:
            return
        after = dict(_integers((slim.args, slim.kwargs)))
        for place, before in _integers((node.args, node.kwargs)):
            new = after.get(place)
            if new is not None and (new >= 0 or before < 0):
                yield place, before, new, True, "", ""

    def _touched(self, label: str, node: fx.Node) -> Iterator[tuple[Any, ...]]:
        """The extents of the tensors that a call reads and makes, and of the parts of their axes."""
        prefix = label[: len(label) - len(node.name)]
        names = [(f"in{index}", prefix + each.name) for index, each in enumerate(node.all_input_nodes)]
        names += [("out", label), *((f"out{index}", f"{label}.{index}") for index in range(4))]
        for side, name in names:
            for dim, axis in enumerate(self.structure.tensors.get(name) or ()):
                for part, before, after, role in self._parts(axis):
                    yield (side, dim, part), before, after, False, role, side

    def _parts(self, axis: Axis) -> list[tuple[int, int, int, str]]:
        space, selection = self.structure.space, self.selection
        axis = space.find(axis)
        if id(axis) not in self._extents:
            found: list[tuple[int, int, int, str, Axis]] = []
            pending = [axis]
            while pending and len(found) < _PARTS:
                part = space.find(pending.pop(0))
                count = selection.count(part)
                if isinstance(part.size, int) and isinstance(count, int) and part.size > 1:
                    role = self._roles.get(part, "") if isinstance(part, Leaf) else ""
                    found.append((len(found), part.size, count, role, axis))
                pending.extend(space.parts(part))
            self._extents[id(axis)] = found
        return [each[:4] for each in self._extents[id(axis)]]


def _integers(value: object, place: tuple[object, ...] = ()) -> Iterator[tuple[tuple[object, ...], int]]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield place, value
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _integers(each, (*place, index))
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _integers(each, (*place, key))


def hypotheses(name: str, values: Sequence[int], sources: Sequence[Sequence[Source]]) -> list[Hypothesis]:
    """What the attribute ``name`` may become in its instances, the likeliest first.

    ``values[i]`` is what instance ``i`` holds, ``sources[i]`` its evidence. Places that fit all instances come
    first; where there is none, each instance speaks for itself. Empty where nothing speaks for a change.
    """
    places: dict[tuple[object, ...], list[Source | None]] = {}
    for index, found in enumerate(sources):
        for source in found:
            if source.before == values[index]:
                places.setdefault(source.place, [None] * len(values))[index] = source
    full = {place for place, each in places.items() if all(each)}
    weights: dict[tuple[int, ...], Hypothesis] = {}
    for place in full:
        each = [source for source in places[place] if source is not None]
        found_one = _note(weights, tuple(source.after for source in each), _weight(name, each[0]))
        found_one.own |= each[0].own
    if not any(after != tuple(values) for after in weights):
        _note_singly(weights, name, values, sources)
    found_ones = sorted(weights.values(), key=lambda each: (-each.weight, each.after))
    changed = [each for each in found_ones if each.after != tuple(values)]
    if not changed:
        return []
    same = next((each for each in found_ones if each.after == tuple(values)), Hypothesis(tuple(values)))
    if _is_setting(name) or not (any(each.own for each in changed) or _is_width(name)):
        return [same, *changed]
    rest = [each for each in changed if each.weight >= same.weight / 2] or changed[:1]
    first = [*rest, same] if rest[0].weight * 2 >= same.weight else [same, *rest]
    return [*first, *(each for each in changed if each not in first)]


def _note(weights: dict[tuple[int, ...], Hypothesis], after: tuple[int, ...], weight: float) -> Hypothesis:
    found = weights.setdefault(after, Hypothesis(after))
    found.weight += weight
    return found


def _note_singly(
    weights: dict[tuple[int, ...], Hypothesis], name: str, values: Sequence[int], sources: Sequence[Sequence[Source]]
) -> None:
    """Let each instance become what most speaks for in its own calls."""
    ranked: list[list[int]] = []
    total = 0.0
    for value, found in zip(values, sources, strict=True):
        own: Counter[int] = Counter()
        for source in found:
            if source.before == value:
                own[source.after] += _weight(name, source)  # type: ignore[assignment]
        ranked.append([after for after, _ in own.most_common() if after != value] or [value])
        total += max(own.values(), default=0)
    for rank in range(max(map(len, ranked), default=0)):
        _note(weights, tuple(each[min(rank, len(each) - 1)] for each in ranked), total / (rank + 1) / 4)


_SETTINGS = (
    "kernel", "stride", "padding", "dilation", "patch", "window", "layer", "depth", "block", "max_", "image", "axis",
    "_id", "vocab", "classes", "label", "shift", "num_stages", "token", "position", "seed", "version", "reduction",
)  # fmt: skip


def _is_setting(name: str) -> bool:
    """Whether a name says that the number is no extent of a channel axis."""
    return any(word in name.lower() for word in _SETTINGS)


_WIDTHS = ("features", "dim", "channel", "hidden", "width", "embed", "size", "chs", "planes", "head", "inner", "model")


def _is_width(name: str) -> bool:
    """Whether a name says that the number is the extent of a channel axis."""
    return any(word in name.lower() for word in _WIDTHS)


def _weight(name: str, source: Source) -> float:
    """How much a place says about an attribute of this name."""
    weight = (8.0 if source.spelled else 2.0) if source.own else (1.0 if source.spelled else 0.5)
    name = name.lower()
    heads = "head" in name
    width = any(word in name for word in ("dim", "size", "width", "channels", "features"))
    if source.role == "head":
        weight *= 8 if heads and not width else 0.5
    elif source.role == "head width":
        weight *= 8 if heads and width else 0.5
    if name.startswith(("in_", "input")) and source.side:
        weight *= 4 if source.side.startswith("in") else 0.5
    if name.startswith(("out_", "output")) and source.side:
        weight *= 4 if source.side.startswith("out") else 0.5
    return weight

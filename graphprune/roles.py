"""What the positions of groups are, told by what the operators around them do: no names, no hints.

========== ==========================================================================================================
role       a position is
========== ==========================================================================================================
head       a head of an attention, in queries, keys, values and the output projection
kv head    a key-value head together with all query heads that read it
query head one query head of every key-value head
head width a number of a head: of queries and keys (a rotated pair stays a pair), or of values
ffn        an inner unit of a position-wise network that leads back to the axis it reads, gated or not
expert     an expert of a mixture, with its row of the router; where groups are chosen first, a group, or one expert of
           every group
hidden unit a unit of a recurrent layer, with all its gates
residual   a channel of the stream that skip connections add to, under layer normalisations or an embedding
embedding  a channel of an embedding table that is no such stream
channel    anything else
========== ==========================================================================================================

Rules say the roles of what their operator defines by itself (:attr:`~graphprune.rules.call.Call.roles`). The rest is
read off the structure: an attention is two products of activations with a softmax between them, whose shared axes are
heads; heads that keys only repeat are query heads. The work is one pass over the calls, and a walk from each attention
back to its projections.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from graphprune.axes import Axis, Leaf
from graphprune.rules.call import Call, Mix, Operand

if TYPE_CHECKING:
    from graphprune.structure import Structure

__all__ = ["CHANNEL", "ROLES", "infer_roles"]

CHANNEL = "channel"

ROLES = (
    "channel",
    "head",
    "kv head",
    "query head",
    "head width",
    "ffn",
    "expert",
    "hidden unit",
    "residual",
    "embedding",
)
"""All roles; rules of users may add others."""

FEW = 32
"""Leaves up to which an axis is looked into: heads, gates and rotated halves are few, a dense concatenation is not."""

FAR = 256
"""Tensors between a softmax and the products before and after it at most: a mask, a bias, casts."""

STACKED = 3
"""Dimensions from which a parameter that is looked into is a stack of matrices, those of experts, and no table."""

_LOOK_UPS = frozenset({"onnx.Gather", "aten.index", "aten.index_select"})
_SUMS = frozenset({"onnx.Add", "onnx.Sum", "aten.add", "com.microsoft.BiasDropout", "com.microsoft.GatedAdd"})
_FUSED_SUMS = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SkipGroupNorm")
_TABLES = frozenset(
    {"onnx.Gather", "aten.embedding", "aten.embedding_bag", "com.microsoft.TorchEmbedding", "aten.index_select"}
)


def infer_roles(structure: Structure) -> dict[Leaf, str]:
    """The role of each leaf that has one; every other is a ``channel``."""
    return _Roles(structure).roles


class _Roles:
    """One look at a structure."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.space = structure.space
        self.held = self._under(axis for name in structure.parameters for axis in structure.tensors.get(name) or ())
        self.roles: dict[Leaf, str] = {}
        self._note_networks()
        self._note_attentions()
        self._note_streams()
        self._note_declared()
        self._note_experts()
        self.roles = {leaf: role for leaf, role in self.roles.items() if leaf in self.held}

    # -- axes -----------------------------------------------------------------------------------------------------

    def _under(self, axes: Iterable[Axis]) -> set[Leaf]:
        """All leaves of ``axes``; shared parts are visited once."""
        return {node for node in self.space.nodes(axes) if isinstance(node, Leaf)}

    def _few(self, axes: Iterable[Axis]) -> set[Leaf]:
        """The leaves of ``axes`` with more than one position, none of an axis that has too many to be looked at."""
        found: set[Leaf] = set()
        for axis in axes:
            own: dict[Leaf, None] = {}
            stack = [self.space.find(axis)]
            steps = 0
            while stack and steps <= 2 * FEW:
                node = stack.pop()
                steps += 1
                if isinstance(node, Leaf):
                    own[node] = None
                else:
                    stack.extend(self.space.parts(node))
            if not stack and len(own) <= FEW:
                found.update(leaf for leaf in own if leaf.size != 1)
        return found

    def _of(self, operand: Operand | None) -> set[Leaf]:
        return self._few(operand.axes or ()) if operand is not None else set()

    def _made(self, call: Call) -> set[Leaf]:
        return self._few(axis for name in call.results[:1] for axis in self.structure.tensors.get(name) or ())

    # -- tensors --------------------------------------------------------------------------------------------------

    @cached_property
    def static(self) -> set[str]:
        """Tensors that are parameters, computed from nothing else, or matrices that each token takes from a stack."""
        found = set(self.structure.parameters)
        for call in self.structure.calls:
            names = [operand.name for operand in call.operands if operand is not None]
            stacked = call.operand(0)
            looked_up = call.op in _LOOK_UPS and stacked is not None and len(stacked.axes or ()) >= STACKED
            if (
                names
                and not call.border
                and (all(name in found for name in names) or (looked_up and names[0] in found))
            ):
                found.update(call.results)
        return found

    @cached_property
    def readers(self) -> dict[str, list[Call]]:
        """The calls that read each tensor."""
        found: defaultdict[str, list[Call]] = defaultdict(list)
        for call in self.structure.calls:
            for name in {operand.name: None for operand in call.operands if operand is not None}:
                found[name].append(call)
        return found

    @cached_property
    def maker(self) -> dict[str, Call]:
        """The call that makes each tensor."""
        return {name: call for call in self.structure.calls for name in call.results if name}

    def _activations(self, call: Call) -> list[Operand]:
        return [operand for operand in call.operands if operand is not None and operand.name not in self.static]

    def _weights(self, call: Call) -> list[Operand]:
        return [operand for operand in call.operands if operand is not None and operand.name in self.static]

    # -- roles ----------------------------------------------------------------------------------------------------

    def _note_declared(self) -> None:
        for call in self.structure.calls:
            for axis, role in call.roles:
                if role in ("expert", "hidden unit") or role not in ROLES:
                    self._note(self.structure.leaves(axis), role)

    def _note_experts(self) -> None:
        """Axes of stacks of matrices whose best positions are chosen for each token."""
        stacks = self._under(
            axes[0]
            for name in self.structure.parameters
            if len(axes := self.structure.tensors.get(name) or ()) >= STACKED
        )
        chosen = [mix.axis for call in self.structure.calls for mix in call.mixes if mix.positions]
        self._note(sorted(self._under(chosen) & stacks, key=lambda leaf: leaf.number), "expert")

    def _note(self, leaves: Iterable[Leaf], role: str) -> None:
        self.roles.update(dict.fromkeys(leaves, role))

    def _note_streams(self) -> None:
        """Channels that skip connections add to, and those of embedding tables."""
        added = self._under(self._added_axes())
        statistics = (
            mix.axis for call in self.structure.calls for mix in call.mixes if _over(mix) and not _softmax(call)
        )
        tables = self._under(self._table_axes())
        streams = added & (self._under(statistics) | tables)
        self._note((leaf for leaf in tables - added if leaf not in self.roles), "embedding")
        self._note(streams, "residual")

    def _added_axes(self) -> Iterator[Axis]:
        """Axes of the operands of sums that somebody else reads too: what is added to is a skip connection."""
        for call in self.structure.calls:
            fused = call.op.endswith(_FUSED_SUMS)
            if call.op not in _SUMS and not fused:
                continue
            operands = [o for o in self._activations(call) if o.axes is not None]
            if len(operands) < 2 or len({len(o.axes or ()) for o in operands}) > 1:
                continue
            if fused or any(len(self.readers[operand.name]) > 1 for operand in operands):
                yield from (axis for axes in zip(*(o.axes or () for o in operands), strict=True) for axis in _one(axes))

    def _table_axes(self) -> Iterator[Axis]:
        """Widths of tables in which rows are looked up at run time."""
        for call in self.structure.calls:
            table = next(iter(call.operands), None)
            if table is None or table.name not in self.static or table.axes is None or len(table.axes) != 2:
                continue
            if call.op in _TABLES and len(self._activations(call)) > 0:
                yield table.axes[1]

    def _note_networks(self) -> None:
        """Inner units of position-wise networks: made by products with weights, summed by others, back to one axis."""
        read: defaultdict[Leaf, set[Leaf]] = defaultdict(set)  # what the products that make a leaf sum over
        led: defaultdict[Leaf, set[Leaf]] = defaultdict(set)  # what the products that sum over it make
        convolved: list[Axis] = []
        for call in self.structure.calls:
            if not call.contractions:
                continue
            if "conv" in call.op.lower():
                convolved.extend(
                    axis for operand in call.operands if operand is not None for axis in operand.axes or ()
                )
                continue
            weights, activations = self._weights(call), self._activations(call)
            if not weights or not activations:
                continue
            result = self._made(call)
            seen = self._few(axis for operand in activations for axis in operand.axes or ())
            weight = self._few(axis for operand in weights for axis in operand.axes or ())
            made, summed = (weight & result) - seen, (weight & seen) - result
            for leaf in made:
                read[leaf] |= summed
            for leaf in summed:
                led[leaf] |= made
        outside = self._under(convolved)
        for leaf, sources in read.items():
            if leaf not in outside and leaf in led and not sources.isdisjoint(led[leaf]):
                self.roles[leaf] = "ffn"
        self._note_declared_as("ffn")

    def _note_declared_as(self, *roles: str) -> None:
        for call in self.structure.calls:
            for axis, role in call.roles:
                if role in roles:
                    self._note(self.structure.leaves(axis), role)

    # -- attention ------------------------------------------------------------------------------------------------

    def _note_attentions(self) -> None:
        self._note_declared_as("head width")
        found = [*self._fused(), *self._spelled()]
        for call, heads in found:
            own = [leaf for leaf in heads if leaf in self.held]
            repeated = [leaf for leaf in own if self._repeated(call, leaf)]
            whole = "kv head" if repeated else "head"
            self._note((leaf for leaf in own if leaf not in repeated), whole)
            self._note(repeated, "query head")

    def _fused(self) -> Iterator[tuple[Call, list[Leaf]]]:
        """Attentions that are one operator, and their heads as it declares them."""
        for call in self.structure.calls:
            declared = {role: [*self._few([axis])] for axis, role in call.roles if role in ("head", "query head")}
            heads = [leaf for role in ("head", "query head") for leaf in declared.get(role, ())]
            if heads:
                self._query_heads.update(dict.fromkeys(declared.get("query head", ())))
                yield call, heads

    @cached_property
    def _query_heads(self) -> dict[Leaf, None]:
        return {}

    def _spelled(self) -> Iterator[tuple[Call, list[Leaf]]]:
        """Products of activations before and after a softmax, and the heads that all three share; notes head widths."""
        for softmax in self.structure.calls:
            operand = softmax.operand(0)
            if not _softmax(softmax) or operand is None or not operand.axes:
                continue
            scores = self._products(operand.name, self._sources)
            if not scores:
                continue
            over = {dim for mix in softmax.mixes if _over(mix) for number, dim in mix.operands if number == 0}
            beside = self._few(axis for dim, axis in enumerate(operand.axes) if dim not in over)
            for call in scores:
                left, right = map(self._of, self._activations(call))
                result = self._made(call)
                self._note((left & right) - result - beside, "head width")
                yield call, self._heads(call, beside & result)
            for call in self._products(softmax.results[0], self._users) if softmax.results else ():
                left, right = map(self._of, self._activations(call))
                result = self._made(call)
                self._note(((left ^ right) & result) - beside, "head width")
                yield call, self._heads(call, beside & result)

    def _products(self, tensor: str, step: Callable[[str], Iterable[tuple[Call, str]]]) -> list[Call]:
        """The products of two activations that are nearest to ``tensor`` in the direction of ``step``."""
        found: dict[int, Call] = {}
        seen, stack = {tensor}, [tensor]
        while stack and len(seen) <= FAR:
            for call, other in step(stack.pop()):
                if call.contractions:
                    if len(self._activations(call)) == 2:
                        found[id(call)] = call
                elif other not in seen and not _softmax(call):
                    seen.add(other)
                    stack.append(other)
        return list(found.values())

    def _sources(self, tensor: str) -> Iterator[tuple[Call, str]]:
        """The call that makes a tensor, with each activation that it reads."""
        call = self.maker.get(tensor)
        if call is not None:
            yield from ((call, operand.name) for operand in self._activations(call))

    def _users(self, tensor: str) -> Iterator[tuple[Call, str]]:
        """The calls that read a tensor, with each tensor that they make."""
        for call in self.readers.get(tensor, ()):
            yield from ((call, result) for result in call.results or ("",))

    def _heads(self, call: Call, shared: set[Leaf]) -> list[Leaf]:
        """Those of ``shared`` that number the matrices of a product rather than their rows and columns."""
        axes = next((self.structure.tensors.get(name) for name in call.results), None) or ()
        outer = self._few(axes if "insum" in call.op else axes[:-2])
        return sorted(shared & outer, key=lambda leaf: leaf.number)

    def _repeated(self, call: Call, leaf: Leaf) -> bool:
        """Whether some operand of an attention has ``leaf`` only because it was repeated along it, or lacks it."""
        if leaf in self._query_heads:
            return True
        operands = self._activations(call)[: 3 if call.roles else 2]
        return not all(self._projected(operand.name, leaf) for operand in operands) and any(
            self._projected(operand.name, leaf) for operand in operands
        )

    def _projected(self, tensor: str, leaf: Leaf) -> bool:
        """Whether ``tensor`` has ``leaf`` from a weight, followed back through tensors that have it."""
        seen, stack = {tensor}, [tensor]
        while stack:
            name = stack.pop()
            call = self.maker.get(name)
            if call is None:
                continue
            for operand in call.operands:
                if operand is None or operand.name in seen or leaf not in self._of(operand):
                    continue
                if operand.name in self.static:
                    if call.contractions:
                        return True
                    continue
                seen.add(operand.name)
                stack.append(operand.name)
        return False


def _one(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Axes that are added position by position; none where one is repeated along the others."""
    return axes if len({str(axis.size) for axis in axes}) == 1 else ()


def _over(mix: Mix) -> bool:
    return mix.kind == "statistics"


def _softmax(call: Call) -> bool:
    name = call.op.lower()
    return "softmax" in name and "log" not in name

"""Higher-order operators: regions without gradients or under autocast, and branches, whose graphs are read in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from torch import fx

from graphprune.frontends.reading import meet
from graphprune.rules.call import Axes, Call, Declined

if TYPE_CHECKING:
    from graphprune.frontends.torch_reader import Reader

__all__ = ["READERS", "flat", "results_of"]

Body = Callable[["Reader", str, fx.Node, Mapping[str, fx.GraphModule], Call], "list[Axes | None]"]


def flat(values: object) -> Iterator[object]:
    """The arguments of a higher-order operator, lists opened; numbers and flags are left out."""
    if isinstance(values, list | tuple):
        for value in values:
            yield from flat(value)
    elif isinstance(values, fx.Node):
        yield values


def results_of(body: fx.GraphModule) -> list[object]:
    """What a graph gives."""
    given = next(reversed(body.graph.nodes)).args[0]
    return list(given) if isinstance(given, list | tuple) else [given]


def _given(call: Call) -> list[Axes | None]:
    call.related.update(range(len(call.operands)))
    return [operand.axes if operand is not None else None for operand in call.operands]


def _region(
    reader: Reader, prefix: str, node: fx.Node, inner: Mapping[str, fx.GraphModule], call: Call
) -> list[Axes | None]:
    """One graph that takes all operands."""
    if len(inner) != 1:
        raise Declined("a region that is not one graph")
    ((name, body),) = inner.items()
    inside = f"{prefix}{name}/"
    for node_inside, operand in zip(_inputs(body), call.operands, strict=False):
        reader.mean(inside + node_inside.name, operand.meaning if operand is not None else None)
    results = reader.graph(body, inside, _given(call))
    call.followed.update(range(len(call.operands)))
    if isinstance(node.meta.get("val"), list | tuple):
        for index, value in enumerate(results_of(body)):
            meaning = reader.meanings.get(inside + value.name) if isinstance(value, fx.Node) else None
            if meaning is not None:
                call.meanings[index] = meaning
    return results


def _branches(
    reader: Reader, prefix: str, node: fx.Node, inner: Mapping[str, fx.GraphModule], call: Call
) -> list[Axes | None]:
    """Two graphs that take the same operands, after the condition; their results are one."""
    if len(inner) != 2:
        raise Declined("branches that are not two graphs")
    given = _given(call)
    taken = given[1:] if len(given) > len(_inputs(next(iter(inner.values())))) else given
    ends = [reader.graph(body, f"{prefix}{name}/", taken) for name, body in inner.items()]
    return [meet(call, a, b, "branches that disagree") for a, b in zip(*ends, strict=True)]


def _inputs(body: fx.GraphModule) -> list[fx.Node]:
    return [node for node in body.graph.nodes if node.op == "placeholder"]


READERS: dict[str, Body] = {
    "higher_order.wrap_with_set_grad_enabled": _region,
    "higher_order.wrap_with_autocast": _region,
    "higher_order.tag_activation_checkpoint": _region,
    "higher_order.invoke_subgraph": _region,
    "higher_order.hints_wrapper": _region,
    "higher_order.cond": _branches,
}

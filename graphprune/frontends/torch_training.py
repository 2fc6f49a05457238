"""Training and evaluation mode of an exported graph: the arguments by which its operators tell them apart.

``torch.export`` writes the mode of a module into its graph: ``training`` of batch normalisation, ``train`` of dropout.
Setting those arguments switches the graph as ``module.train()`` switches a module. What Python itself decides by
``self.training`` leaves no argument: stochastic depth is there only in a graph that was exported in training mode, and
evaluation puts the expectation in the place of its coins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from graphprune.frontends.torch_calls import arguments, names_of, put, walk

__all__ = ["COIN", "FIXED", "PROBABILITY", "ROWS", "fixed_nodes", "hold", "is_training", "loose_coins", "set_training"]

FIXED = "graphprune.fixed"
"""Mark of nodes that are the same in both modes, in the metadata of a node."""

PROBABILITY = "graphprune.probability"
"""Key of what an attention's dropout is in training, in the metadata of a node."""


COIN = "graphprune.coin"
"""Key of the operator that a node is in training, in the metadata of a node that stands for its expectation."""


@dataclass(frozen=True, slots=True)
class Row:
    """The argument of an operator that says whether it trains.

    ``needs`` is an argument without which the operator is the same in both modes (batch normalisation without running
    statistics). A ``probability`` says it by being more than zero.
    """

    argument: str
    needs: str | None = None
    probability: bool = False


_STATISTICS = Row("training", "running_mean")
_TRAIN = Row("train")
_DROP = Row("dropout_p", probability=True)

ROWS: dict[str, Row] = {
    "aten.batch_norm": _STATISTICS,
    "aten.native_batch_norm": _STATISTICS,
    "aten._native_batch_norm_legit": _STATISTICS,
    "aten._batch_norm_impl_index": _STATISTICS,
    "aten.cudnn_batch_norm": _STATISTICS,
    "aten.miopen_batch_norm": _STATISTICS,
    "aten.instance_norm": Row("use_input_stats", "running_mean"),
    "aten.dropout": _TRAIN,
    "aten.native_dropout": _TRAIN,
    "aten.feature_dropout": _TRAIN,
    "aten.alpha_dropout": _TRAIN,
    "aten.feature_alpha_dropout": _TRAIN,
    "aten.rrelu": Row("training"),
    "aten.rrelu_with_noise": Row("training"),
    "aten.lstm": _TRAIN,
    "aten.gru": _TRAIN,
    "aten.rnn_tanh": _TRAIN,
    "aten.rnn_relu": _TRAIN,
    "aten.scaled_dot_product_attention": _DROP,
    "aten._scaled_dot_product_flash_attention": _DROP,
    "aten._scaled_dot_product_flash_attention_for_cpu": _DROP,
    "aten._scaled_dot_product_efficient_attention": _DROP,
    "aten._scaled_dot_product_cudnn_attention": _DROP,
    "aten._scaled_dot_product_attention_math": _DROP,
}


_COINS: dict[object, Any] = {
    torch.ops.aten.bernoulli_.float: torch.ops.aten.fill_.Scalar,
    torch.ops.aten.bernoulli.p: torch.ops.aten.full_like.default,
}
"""Coins that stochastic depth throws, and what stands for their expectation, which is divided by right after."""

_RANDOM = ("rand", "bernoulli", "normal", "uniform", "exponential", "multinomial", "poisson")


def loose_coins(module: fx.GraphModule) -> list[str]:
    """Nodes that draw random numbers in evaluation as well, since nothing tells what they are there for."""
    return [
        label
        for label, node, _ in walk(module)
        if isinstance(node.target, torch._ops.OpOverload)
        and FIXED not in node.meta
        and row_of(node) is None
        and node.target not in _COINS
        and any(word in node.target._schema.name for word in _RANDOM)
    ]


def row_of(node: fx.Node) -> Row | None:
    """The row of a node whose argument can be switched."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    row = next((found for name in names_of(node.target) if (found := ROWS.get(name)) is not None), None)
    if row is None:
        return None
    given = arguments(node)
    if row.argument not in given or (row.needs is not None and given.get(row.needs) is None):
        return None
    return row


def is_training(module: fx.GraphModule) -> bool:
    """Whether any operator of the graph trains."""
    for _, node, _ in walk(module):
        row = row_of(node)
        if row is not None and FIXED not in node.meta and arguments(node)[row.argument]:
            return True
    return False


def fixed_nodes(module: fx.GraphModule) -> set[fx.Node]:
    """What trains in a graph of evaluation mode: it does so in both modes (a dropout that is always on)."""
    return {
        node
        for _, node, _ in walk(module)
        if node.target in _COINS or ((row := row_of(node)) and arguments(node)[row.argument])
    }


def hold(module: fx.GraphModule) -> None:
    """Mark what trains in a graph of evaluation mode, so that no switch of mode changes it."""
    for node in fixed_nodes(module):
        node.meta[FIXED] = True


def set_training(module: fx.GraphModule, mode: bool) -> bool:
    """Let all operators of ``module``, in place, be those of training or of evaluation; tells whether any changed.

    Batch normalisations count their batches in training, as the modules do. The dropout of a fused attention is known
    only in a graph that was exported in training mode.
    """
    touched: dict[int, fx.GraphModule] = {}
    for _, node, owner in list(walk(module)):
        changed = _switch(node, mode)
        changed |= _forget(node) if not mode else _count(node, owner)
        if changed:
            touched[id(owner)] = owner
    for owner in touched.values():
        owner.recompile()
    return bool(touched)


def _switch(node: fx.Node, mode: bool) -> bool:
    if FIXED in node.meta:
        return False
    if node.target in _COINS and not mode:
        node.meta[COIN] = node.target
        node.target, node.kwargs = _COINS[node.target], {}
        return True
    if COIN in node.meta and mode:
        node.target = node.meta.pop(COIN)
        return True
    row = row_of(node)
    if row is None:
        return False
    before: Any = arguments(node)[row.argument]
    after: Any = mode
    if row.probability:
        known = node.meta.setdefault(PROBABILITY, before)
        after = known if mode else 0.0
    if before == after or (before is None and mode):
        return False
    put(node, row.argument, after)
    return True


def _is_counter(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr" and str(node.target).endswith("num_batches_tracked")


def _forget(node: fx.Node) -> bool:
    """Take away the counting of batches."""
    if node.target is not torch.ops.aten.add_.Tensor or node.users or not _is_counter(node.args[0]):
        return False
    node.graph.erase_node(node)
    return True


def _count(node: fx.Node, owner: fx.GraphModule) -> bool:
    """Count the batches that a normalisation sees, if it has a counter that nothing adds to."""
    row = row_of(node)
    if row is not _STATISTICS or FIXED in node.meta:
        return False
    mean = arguments(node)["running_mean"]
    if not isinstance(mean, fx.Node) or mean.op != "get_attr" or not str(mean.target).endswith("running_mean"):
        return False
    name = str(mean.target)[: -len("running_mean")] + "num_batches_tracked"
    try:
        owner.get_buffer(name)
    except AttributeError:
        return False
    counters = [each for each in owner.graph.nodes if each.op == "get_attr" and str(each.target) == name]
    if any(user.target is torch.ops.aten.add_.Tensor for each in counters for user in each.users):
        return False
    with owner.graph.inserting_before(node):
        counter = owner.graph.get_attr(name)
        owner.graph.call_function(torch.ops.aten.add_.Tensor, (counter, 1))
    return True

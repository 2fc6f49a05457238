"""The slim graph as a module that trains: what comes back where the user's class cannot express what is left.

Exported graphs refuse ``train()`` and ``eval()``, forget on copying which buffers are saved, and name devices in their
calls. A :class:`PrunedModule` behaves like the module it came from: parameters, buffers and their names, the call's
signature, both modes, devices, copies.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.fx._pytree import tree_flatten_spec
from torch.fx.graph import _PyTreeCodeGen
from torch.utils import _pytree as pytree

from graphprune.frontends.torch_calls import walk
from graphprune.frontends.torch_training import hold, is_training, loose_coins, set_training

__all__ = ["CONSTANTS", "PrunedModule"]

CONSTANTS = (bool, int, float, str, type(None))
"""Inputs of these types are part of a graph: exporting takes the example's value for the only one."""


class PrunedModule(fx.GraphModule):  # type: ignore[misc]
    """A graph of ATen calls with parameters, in one of two modes.

    Inputs must have the shapes of the example inputs, except for dimensions that were exported as dynamic; those that are
    no tensors must have the values.
    """

    @classmethod
    def of(
        cls,
        graph: fx.GraphModule,
        persistent: Iterable[str] | None = None,
        training: bool | None = None,
        *,
        held: bool = False,
    ) -> PrunedModule:
        """Wrap a graph, whose parameters it takes over.

        ``persistent`` names the buffers that a state dict holds (None: all), ``training`` the mode that the graph was
        exported in (None: as its operators tell). What trains in a graph of evaluation mode always does; ``held`` says
        that it is marked already.
        """
        if training is None:
            training = is_training(graph)
        if not training and not held:
            hold(graph)
        module = cls(graph, graph.graph, "PrunedModule")
        if persistent is not None:
            _persist(module, set(persistent))
        for child in module.modules():
            _free(child)
            child.training = training
        module._prepare()
        return module

    def train(self, mode: bool = True) -> PrunedModule:
        """Switch to training or evaluation."""
        super().train(mode)
        set_training(self, mode)
        if not mode and (coins := loose_coins(self)):
            warnings.warn(
                f"node '{coins[0]}' draws random numbers in evaluation too: prune the module in eval() mode instead",
                stacklevel=2,
            )
        return self

    def _prepare(self) -> None:
        self._arguments, self._fixed = _fixed(self)
        self.register_forward_pre_hook(_check_inputs, with_kwargs=True)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> PrunedModule:
        before = _devices(self)
        super()._apply(fn, recurse)
        after = _devices(self)
        if before != after and len(after) == 1:
            _move(self, before, next(iter(after)))
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PrunedModule:
        saved = set(self.state_dict())
        training = self.training
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its trees
            copied = super().__deepcopy__(memo)
        assert isinstance(copied, PrunedModule)
        _persist(copied, saved)
        for child in copied.modules():
            child.training = training
        copied._prepare()
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        """As a document and tensors, so that processes can pass it on and ``torch.save`` can write it."""
        from graphprune.frontends.torch_text import tensors_of, to_document

        return _restored, (to_document(self, training=self.training), tensors_of(self), set(self.state_dict()))


def _free(module: nn.Module) -> None:
    """Give a module its own class' ``train`` and ``eval`` back, which exported programs take away."""
    for name in ("train", "eval"):
        module.__dict__.pop(name, None)


def _persist(module: nn.Module, names: set[str]) -> None:
    """Let a state dict hold those of the buffers that are named."""
    for path, child in module.named_modules():
        for own in child._buffers:
            if (f"{path}.{own}" if path else own) in names:
                child._non_persistent_buffers_set.discard(own)
            else:
                child._non_persistent_buffers_set.add(own)


def _devices(module: nn.Module) -> set[torch.device]:
    return {tensor.device for tensor in _tensors(module)}


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _move(module: fx.GraphModule, before: set[torch.device], after: torch.device) -> None:
    """Let calls that name one of the devices ``before`` name ``after``."""
    kinds = {device.type for device in before}

    def moved(value: object) -> object:
        return after if isinstance(value, torch.device) and value.type in kinds else value

    for _, node, _ in walk(module):
        if node.op == "call_function":
            node.args = pytree.tree_map(moved, node.args)
            node.kwargs = pytree.tree_map(moved, node.kwargs)
    for owner in {id(owner): owner for _, _, owner in walk(module)}.values():
        owner.recompile()


def _check_inputs(module: fx.GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse inputs of other shapes than the graph was made for, and other numbers and flags: both are spelled in it.

    Raises:
        ValueError: names the input, what it is and what is needed.
    """
    if torch.compiler.is_compiling():
        # which traces this: shapes are the compiler's own business, values of arguments are not
        given = dict(zip(module._arguments, args, strict=False))
        given.update(kwargs)
        for name, stated in module._fixed.items():
            if name in given:
                _check_constant(name, stated, given[name])
        return
    leaves = _leaves(module, args, dict(kwargs))
    wanted = [node for node in module.graph.nodes if node.op == "placeholder"]
    symbols: dict[str, int] = {}
    for node, value in zip(wanted, leaves, strict=False):
        if "val" not in node.meta:
            continue
        stated = node.meta["val"]
        if isinstance(stated, CONSTANTS):
            _check_constant(node.name, stated, value)
            continue
        if not isinstance(stated, torch.Tensor):
            continue
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"input '{node.name}' was a tensor when the graph was exported, and {value!r} was given")
        fits = len(stated.shape) == len(value.shape) and all(
            given == (size if isinstance(size, int) else symbols.setdefault(str(size), int(given)))
            for size, given in zip(stated.shape, value.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"input '{node.name}' has shape {tuple(value.shape)} where the graph was exported for "
                f"{tuple(map(str, stated.shape))}: export with dynamic_shapes for other sizes"
            )


def _leaves(module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """What is given for each input of the graph; nothing where the call itself will say what is wrong with it."""
    codegen = module.graph._codegen
    if not isinstance(codegen, _PyTreeCodeGen):
        return list(pytree.tree_leaves((args, kwargs)))
    info = codegen.pytree_info
    given = dict(zip(info.orig_args, args, strict=False)) | kwargs
    if len(args) > len(info.orig_args) or given.keys() != set(info.orig_args):
        return []
    values = [given[name] for name in info.orig_args]
    count = info.in_spec.child(0).num_children
    names = info.in_spec.child(1).context
    try:
        leaves = tree_flatten_spec((tuple(values[:count]), dict(zip(names, values[count:], strict=True))), info.in_spec)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError):
        return []
    if len(leaves) != len(pytree.tree_leaves(values)):
        raise ValueError(
            f"the inputs hold {len(pytree.tree_leaves(values))} values where the graph was exported for {len(leaves)}"
        )
    return list(leaves)


def _fixed(module: fx.GraphModule) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The names of all arguments, and the values of those that are a number, text or flag."""
    codegen = module.graph._codegen
    if not isinstance(codegen, _PyTreeCodeGen):
        return (), {}
    info = codegen.pytree_info
    specs = [each for part in info.in_spec.children() for each in part.children()]
    inputs = iter(node for node in module.graph.nodes if node.op == "placeholder")
    fixed: dict[str, Any] = {}
    for name, spec in zip(info.orig_args, specs, strict=True):
        nodes = list(itertools.islice(inputs, spec.num_leaves))
        if spec.is_leaf() and nodes and isinstance(value := nodes[0].meta.get("val", ...), CONSTANTS):
            fixed[name] = value
    return tuple(info.orig_args), fixed


def _check_constant(name: str, stated: object, given: object) -> None:
    if not _is_same(stated, given):
        said = f"a {type(given).__name__}" if isinstance(given, torch.Tensor) else repr(given)
        raise ValueError(
            f"input '{name}' was fixed at {stated!r} when the graph was exported, and {said} was given: "
            "export with the other value for another graph"
        )


def _is_same(stated: object, given: object) -> bool:
    """Whether a number, text or flag is the one that the graph was exported for."""
    if isinstance(stated, float) and isinstance(given, float) and math.isnan(stated):
        return math.isnan(given)
    numbers = isinstance(stated, int | float) and isinstance(given, int | float)
    if isinstance(stated, bool) is not isinstance(given, bool):
        return False
    return (numbers or type(stated) is type(given)) and stated == given


def _restored(document: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], saved: set[str]) -> PrunedModule:
    """A module out of a pickle."""
    from graphprune.frontends.torch_text import from_document

    return from_document(document, tensors, saved)

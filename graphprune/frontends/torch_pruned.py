"""The slim graph as a module that trains: what comes back where the user's class cannot express what is left.

Exported graphs refuse ``train()`` and ``eval()``, forget on copying which buffers are saved, and name devices in their
calls. A :class:`PrunedModule` behaves like the module it came from: parameters, buffers and their names, the call's
signature, both modes, devices, copies.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphprune.frontends.torch_calls import walk
from graphprune.frontends.torch_training import hold, is_training, loose_coins, set_training

__all__ = ["PrunedModule"]


class PrunedModule(fx.GraphModule):  # type: ignore[misc]
    """A graph of ATen calls with parameters, in one of two modes.

    Inputs must have the shapes of the example inputs, except for dimensions that were exported as dynamic.
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
    """Refuse inputs of other shapes than the graph was made for: sizes are spelled in it.

    Raises:
        ValueError: names the input, its shape and the one that is needed.
    """
    if torch.compiler.is_compiling():
        return
    leaves = pytree.tree_leaves((args, dict(kwargs)))
    wanted = [node for node in module.graph.nodes if node.op == "placeholder"]
    symbols: dict[str, int] = {}
    for node, value in zip(wanted, leaves, strict=False):
        stated = node.meta.get("val")
        if not isinstance(stated, torch.Tensor) or not isinstance(value, torch.Tensor):
            continue
        fits = len(stated.shape) == len(value.shape) and all(
            given == (size if isinstance(size, int) else symbols.setdefault(str(size), int(given)))
            for size, given in zip(stated.shape, value.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"input '{node.name}' has shape {tuple(value.shape)} where the graph was exported for "
                f"{tuple(map(str, stated.shape))}: export with dynamic_shapes for other sizes"
            )

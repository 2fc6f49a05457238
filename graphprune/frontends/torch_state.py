"""What running a module leaves behind in it, and how that is put back.

A forward pass may count itself, fill caches, keep its last result, and update statistics. A user's module must not show
that it was run or exported here, and no such trace may pass for something that pruning changed.
"""

from __future__ import annotations

import contextlib
import enum
import io
import logging
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import fx, nn

__all__ = ["forget", "held_by", "preserved", "quiet", "tensors_of"]

_DEPTH = 4
"""How far objects and containers in attributes are followed into one another."""

_Restore = Callable[[], None]


def tensors_of(module: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    """Parameters, buffers, and tensors that are plain attributes, of a module and all in it: holder, name, tensor."""
    for child in module.modules():
        for held in (child._parameters, child._buffers, child.__dict__):
            for name, value in held.items():
                if isinstance(value, torch.Tensor):
                    yield child, name, value


@contextlib.contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """A context after which a module is as before: attributes, what containers and objects in them hold, buffers.

    Only the values of parameters are taken to stay.
    """
    restores = [restore for value in held_by(module) if (restore := _restore(value)) is not None]
    try:
        yield
    finally:
        for restore in restores:
            restore()


def held_by(module: nn.Module) -> Iterator[Any]:
    """All modules in a module, and the tensors, containers and plain objects in their attributes; each once."""
    seen: set[int] = set()
    pending: list[tuple[Any, int]] = [(child, 0) for child in module.modules()]
    while pending:
        value, depth = pending.pop()
        if id(value) in seen or (depth and isinstance(value, nn.Module)):
            continue
        seen.add(id(value))
        inner: Iterable[Any] = ()
        if isinstance(value, dict):
            inner = value.values()
        elif isinstance(value, list | tuple | deque):
            inner = value
        elif isinstance(value, nn.Module) or _is_plain(value):
            inner = [each for name, each in vars(value).items() if not name.endswith(("_hooks", "_hooks_with_kwargs"))]
        elif not isinstance(value, torch.Tensor | set):
            continue
        yield value
        if depth < _DEPTH:
            pending.extend((each, depth + 1) for each in inner)


def _restore(value: Any) -> _Restore | None:
    """What puts back what ``value`` holds now."""
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, dict | set):
        return _entries(value, value.copy() if isinstance(value, set) else dict(value))
    if isinstance(value, list | deque):
        return _items(value, list(value))
    return None if isinstance(value, tuple) else _entries(vars(value), dict(vars(value)))


def _is_plain(value: object) -> bool:
    """Whether an object's attributes are its owner's business alone."""
    if isinstance(value, type | types.ModuleType | enum.Enum) or callable(value):
        return False
    return hasattr(value, "__dict__") and type(value).__module__.partition(".")[0] not in ("builtins", "torch")


def _tensor(tensor: torch.Tensor) -> _Restore:
    if isinstance(tensor, nn.Parameter):
        needs = tensor.requires_grad

        def again() -> None:
            if tensor.requires_grad != needs:
                tensor.requires_grad_(needs)

        return again
    with torch.no_grad():
        kept = tensor.detach().clone()

    def write() -> None:
        if kept.shape == tensor.shape and not tensor.is_meta:
            with torch.no_grad():
                tensor.detach().copy_(kept)

    return write


def _entries(held: Any, kept: Any) -> _Restore:
    """Put back what a dict or a set held."""

    def again() -> None:
        if isinstance(held, dict):
            same = len(held) == len(kept) and all(held.get(name, held) is value for name, value in kept.items())
        else:
            same = held == kept
        if not same:
            held.clear()
            held.update(kept)

    return again


def _items(held: Any, kept: list[Any]) -> _Restore:
    def again() -> None:
        if len(held) != len(kept) or any(one is not other for one, other in zip(held, kept, strict=True)):
            held.clear()
            held.extend(kept)

    return again


def forget(module: nn.Module) -> None:
    """Let modules drop what they keep of their weights for evaluation, as they do when they are told to train.

    Those that do so define ``train``; each is told to train, and then to be in its own mode again. Modes and values of
    parameters are as before.
    """
    if isinstance(module, fx.GraphModule):
        return
    modes = [(child, child.training) for child in module.modules()]
    for child, mode in modes:
        if type(child).train is nn.Module.train or isinstance(child, fx.GraphModule):
            continue
        own = [(p, p.detach().clone()) for p in child._parameters.values() if p is not None]
        # A user's method does what it likes, and what it cannot do need not be done.
        with contextlib.suppress(Exception), torch.no_grad():
            child.train(True)
            child.train(mode)
        with torch.no_grad():
            for parameter, value in own:
                if not parameter.is_meta and parameter.shape == value.shape and not torch.equal(parameter, value):
                    parameter.data.copy_(value)
    for child, mode in modes:
        child.training = mode


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what PyTorch's tracers and exporters print, log and warn of to themselves: their errors say it again."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)

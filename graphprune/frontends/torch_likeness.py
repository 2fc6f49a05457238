"""Whether a module computes what a graph computes: on example inputs and random ones, with weights that hide nothing.

Networks start with weights that switch whole blocks off (a last normalisation of zeros, layer scales of 1e-6), so that
a wrong number inside would not be seen. Both are therefore also compared with weights shaken by the same noise.
"""

from __future__ import annotations

import contextlib
import math
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphprune.frontends.torch_state import forget, preserved

__all__ = [
    "Steady",
    "copied",
    "difference",
    "first_line",
    "run",
    "shaken",
    "unchanged",
]

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Both sides run the same kernels on the same shapes, but may fuse attention or sum in another order."""


_AMOUNTS = (1.0, 0.1, 0.01)
"""How much of the noise weights get: less where the results are not finite otherwise, and at last in any case."""

_ANY = 1e-9
"""A share of numbers that one of them is."""

_STUCK = "the slim graph does not run"
_NOTHING = "its results are not finite"


class Steady(TorchDispatchMode):  # type: ignore[misc]
    """A mode in which every coin shows its expectation, so that dropout passes everything on.

    The numbers that dropout draws depend on the layout of memory, which two ways of computing the same need not share.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Answer coins, and leave everything else to PyTorch."""
        coin = _COINS.get(func)
        return func(*args, **(kwargs or {})) if coin is None else coin(*args)


_aten = torch.ops.aten

_COINS: dict[object, Callable[..., Any]] = {
    _aten.bernoulli_.float: lambda x, p=0.5, *_: x.fill_(p),
    _aten.bernoulli_.Tensor: lambda x, p, *_: x.copy_(p),
    _aten.bernoulli.default: lambda x, *_: x.clone(),
    _aten.bernoulli.p: lambda x, p, *_: torch.full_like(x, p),
    _aten.native_dropout.default: lambda x, *_: (x.clone(), torch.ones_like(x, dtype=torch.bool)),
}


def sampled(values: Any, seed: int) -> Any:
    """Inputs like ``values``: noise of their scale for floats, their own integers in another order."""
    generator = torch.Generator().manual_seed(seed)

    def like(value: object) -> object:
        if not isinstance(value, torch.Tensor) or value.is_meta or not value.numel():
            return value
        if value.is_complex() or value.dtype == torch.bool or value.dim() == 0:
            return value
        if value.is_floating_point():
            scale = float(value.detach().float().abs().mean()) or 1.0
            noise = torch.randn(value.shape, generator=generator) * (scale if math.isfinite(scale) else 1.0)
            return noise.to(value.device, value.dtype)
        order = torch.randperm(value.numel(), generator=generator).to(value.device)
        return value.reshape(-1)[order].reshape(value.shape)

    return pytree.tree_map(like, values)


def difference(
    module: nn.Module,
    graph: fx.GraphModule,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    seed: int = 0,
    noise: bool = True,
) -> str:
    """How the results of ``module`` differ from those of ``graph``; empty where they agree.

    Both must be in the mode that the graph was exported in; nothing of them is changed. With ``noise`` they are
    compared with other weights too, and must be: what cannot be compared differs.
    """
    example, other = (args, dict(kwargs)), sampled((args, dict(kwargs)), seed + 1)
    with unchanged(module), unchanged(graph):
        problem = _trial(module, graph, example, seed)
    if problem:
        return f"{problem} on the example inputs"
    if not noise:
        with unchanged(module), unchanged(graph):
            problem = _trial(module, graph, other, seed)
        return "" if not problem or problem.startswith(_STUCK) else f"{problem} on random inputs"
    for given, where in ((example, "the example inputs"), (other, "random inputs")):
        for amount in _AMOUNTS:
            with shaken([module, graph], seed, amount), unchanged(module), unchanged(graph):
                problem = _trial(module, graph, given, seed, share=1.0 if amount > _AMOUNTS[-1] else _ANY)
            if problem != _NOTHING:
                break
        if given is other and (problem == _NOTHING or problem.startswith(_STUCK)):
            continue  # they need not be inputs of the graph
        if problem:
            return f"{problem} on {where} with other weights"
    return ""


def _trial(
    module: nn.Module,
    graph: fx.GraphModule,
    given: tuple[Any, dict[str, Any]],
    seed: int,
    share: float = 0.0,
) -> str:
    """How the results on some inputs differ; at least ``share`` of the numbers in them must be finite."""
    try:
        expected = run(graph, *given, seed)
    except Exception as error:  # a graph raises what its operators do
        return f"{_STUCK} ({first_line(error)})"
    floats = [each.isfinite().flatten() for each in expected if _is_float(each)]
    if share and floats and float(torch.cat(floats).double().mean()) < share:
        return _NOTHING
    try:
        found = run(module, *given, seed)
    except Exception as error:  # the forward of a user's module raises whatever it likes
        return first_line(error)
    return _compare(found, expected)


def _is_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and not value.is_meta and bool(value.numel())


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, with its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def run(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], seed: int) -> list[Any]:
    """All results of one run, the same at each call; inputs are copied."""
    state = random.getstate()
    random.seed(seed)
    try:
        with torch.random.fork_rng(), torch.no_grad(), Steady():
            torch.manual_seed(seed)
            args, kwargs = pytree.tree_map(copied, (args, dict(kwargs)))
            return list(pytree.tree_leaves(module(*args, **kwargs)))
    finally:
        random.setstate(state)


def copied(value: object) -> object:
    """Inputs that one run may write to."""
    return value.clone() if isinstance(value, torch.Tensor) else value


def _compare(found: Sequence[Any], expected: Sequence[Any]) -> str:
    tensors = [each for each in found if isinstance(each, torch.Tensor)]
    wanted = [each for each in expected if isinstance(each, torch.Tensor)]
    if len(tensors) != len(wanted):
        return f"{len(tensors)} results instead of {len(wanted)}"
    for index, (a, b) in enumerate(zip(tensors, wanted, strict=True)):
        if a.shape != b.shape:
            return f"result {index} has shape {tuple(a.shape)} instead of {tuple(b.shape)}"
        if a.is_meta or b.is_meta or not a.numel():
            continue
        if not a.is_floating_point():
            if not a.is_complex() and not torch.equal(a, b):
                return f"result {index} differs"
            continue
        x, y = a.detach().double(), b.detach().double()
        same = (x == y) | (x.isnan() & y.isnan())
        gap = float((x - y).abs().masked_fill(same, 0).nan_to_num(math.inf).max())
        scale = float(y.nan_to_num(0, 0, 0).abs().max())
        if gap > TOLERANCES.get(a.dtype, 1e-1) * max(scale, 1e-30):
            return f"result {index} differs by {gap:.3g} where its largest value is {scale:.3g}"
    return ""


@contextlib.contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """A context in which a module may run: afterwards it is as before, whatever the run left behind in it."""
    with preserved(module):
        forget(module)
        yield


@contextlib.contextmanager
def shaken(modules: Sequence[nn.Module], seed: int, amount: float = 1.0) -> Iterator[None]:
    """A context in which the parameters of all modules have the same noise, by their names, and ``amount`` of it."""
    saved: list[tuple[torch.Tensor, torch.Tensor]] = []
    done: set[int] = set()
    first = dict(modules[0].named_parameters(remove_duplicate=False))
    second = dict(modules[1].named_parameters(remove_duplicate=False))
    try:
        with torch.no_grad():
            for name, parameter in first.items():
                twin = second.get(name)
                if twin is None or id(parameter) in done or not parameter.is_floating_point() or parameter.is_meta:
                    continue
                done.update((id(parameter), id(twin)))
                saved += [(each, each.detach().clone()) for each in (parameter, twin)]
                value = _noisy(parameter, seed ^ zlib.crc32(name.encode()), amount)
                parameter.copy_(value)
                twin.copy_(value)
        yield
    finally:
        with torch.no_grad():
            for tensor, value in saved:
                tensor.copy_(value)


def _noisy(parameter: torch.Tensor, seed: int, amount: float) -> torch.Tensor:
    """A parameter with noise of a fifth of its spread; one that is the same everywhere gets values of its own."""
    generator = torch.Generator().manual_seed(seed)
    noise = amount * torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(parameter.device)
    value = parameter.detach().float()
    spread = float(value.std()) if value.numel() > 1 else 0.0
    if spread > 1e-3 * float(value.abs().max()) and float(value.abs().max()) > 1e-3:
        return (value + noise * spread / 5).to(parameter.dtype)
    level = 1.0 if parameter.dim() == 1 and float(value.abs().max()) > 1e-3 else 0.0
    return (level + noise / 4).to(parameter.dtype)

"""Where a module parts from a graph: the results of its modules, call by call, against what the graph makes there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphprune.frontends.torch_likeness import Steady, copied, first_line, run, unchanged

__all__ = ["Trace", "steps_alike", "trace_graph"]

Mark = tuple[tuple[int, ...], float, float]


class Trace:
    """Marks (shape, size and a weighted sum) of the values that each call of each module makes."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, int], list[Mark]] = {}

    def accepts(self, path: str, call: int, mark: Mark) -> bool | None:
        """Whether a value of this mark was made in a call; None where nothing is known about the call."""
        known = self.calls.get((path, call))
        return None if not known else any(_alike(mark, each) for each in known)


def _mark(value: torch.Tensor) -> Mark:
    flat = value.detach().double().reshape(-1)
    ramp = torch.cos(torch.arange(flat.numel(), dtype=torch.float64, device=flat.device))
    return tuple(value.shape), float(flat.abs().sum()), float((flat * ramp).sum())


def _alike(a: Mark, b: Mark) -> bool:
    scale = max(abs(a[1]), abs(b[1]), 1e-30)
    return a[0] == b[0] and abs(a[1] - b[1]) <= 1e-4 * scale and abs(a[2] - b[2]) <= 1e-4 * scale


class _Tracer(fx.Interpreter):  # type: ignore[misc]
    """Runs a graph and marks what its nodes make."""

    def __init__(self, module: fx.GraphModule, trace: Trace) -> None:
        super().__init__(module)
        self.trace = trace

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            mark = _mark(value)
            for key, (path, _) in (n.meta.get("nn_module_stack") or {}).items():
                number = str(key).rpartition("@")[2] if "@" in str(key) else "0"
                call = (str(path).partition("@")[0], int(number) if number.isdigit() else 0)
                self.trace.calls.setdefault(call, []).append(mark)
        return value


def trace_graph(graph: fx.GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any], seed: int) -> Trace:
    """The marks of one run on example inputs, under the weights' own values."""
    trace = Trace()
    leaves = list(pytree.tree_leaves((args, dict(kwargs))))
    with torch.random.fork_rng(), torch.no_grad(), unchanged(graph), Steady():
        torch.manual_seed(seed)
        _Tracer(graph, trace).run(*map(copied, leaves), enable_io_processing=False)
    return trace


def steps_alike(
    module: nn.Module, trace: Trace, args: tuple[Any, ...], kwargs: Mapping[str, Any], seed: int
) -> tuple[int, str, str]:
    """How many calls of modules end as in ``trace`` before one does not, which module that is, and what happened.

    The name of the module is empty for the whole.
    """
    return _Steps(module, trace).follow(args, kwargs, seed)


class _Parted(Exception):
    """A module's result is not one that the graph makes."""


class _Steps:
    def __init__(self, module: nn.Module, trace: Trace) -> None:
        self.module, self.trace = module, trace
        self.names = {id(child): name for name, child in module.named_modules()}
        self.calls: dict[str, int] = {}
        self.done = 0
        self.open: list[str] = []
        self.failed = ""

    def follow(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], seed: int) -> tuple[int, str, str]:
        handles = [child.register_forward_pre_hook(self._enter) for child in self.module.modules()]
        handles += [child.register_forward_hook(self._leave) for child in self.module.modules()]
        what = ""
        try:
            with unchanged(self.module):
                run(self.module, args, kwargs, seed)
        except _Parted as parted:
            what = str(parted)
        except Exception as error:  # whatever a user's forward raises
            self.failed = self.open[-1] if self.open else ""
            what = first_line(error)
        finally:
            for handle in handles:
                handle.remove()
        return self.done, self.failed, what

    def _enter(self, child: nn.Module, inputs: object) -> None:
        self.open.append(self.names[id(child)])

    def _leave(self, child: nn.Module, inputs: object, output: object) -> None:
        name = self.open.pop()
        call = self.calls.get(name, 0)
        self.calls[name] = call + 1
        first = next((each for each in pytree.tree_leaves(output) if isinstance(each, torch.Tensor)), None)
        given = [each for each in pytree.tree_leaves(inputs) if isinstance(each, torch.Tensor)]
        passed_on = first is None or any(first is each for each in given)
        if not passed_on and self.trace.accepts(name, call, _mark(first)) is False:
            self.failed = name
            raise _Parted("its result is another")
        self.done += 1

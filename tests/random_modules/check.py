"""What must be true of pruning any module, tried on one."""

from __future__ import annotations

import copy
import math
import re
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import graphprune
from graphprune.errors import GraphpruneError, ModelError, TargetError, VerificationError
from graphprune.frontends.torch_likeness import run
from graphprune.frontends.torch_program import TorchProgram, capture
from graphprune.torch_api import ModuleResult
from random_modules.choice import Choice
from random_modules.network import Case

__all__ = ["Outcome", "check"]

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 6e-2}
"""Scaled differences that other orders of summation make in a few dozen operators."""


@dataclass
class Outcome:
    """What came of one case: ``problems`` are broken promises, ``status`` what pruning answered.

    ``reach`` is the share of parameters that some group touches.
    """

    status: str = ""
    way: str = ""
    reason: str = ""
    reach: float = 0.0
    problems: list[str] = field(default_factory=list)


def check(case: Case, seed: int, *, onnx: bool = False) -> Outcome:
    """Prune ``case`` with options of ``seed`` and try every promise on what comes back."""
    outcome = Outcome()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message=r".*draws random numbers in evaluation")
            _check(case, Choice(seed), outcome, onnx)
    except Exception as error:  # whatever breaks is a problem of this case
        outcome.problems.append(f"{type(error).__name__}: {error}".strip()[:400])
    return outcome


def _check(case: Case, t: Choice, outcome: Outcome, onnx: bool) -> None:
    module, args = case.module, case.args
    before = copy.deepcopy(module)
    try:
        program = capture(module, args, dynamic_shapes=case.dynamic_shapes)
    except ModelError as error:
        outcome.status, outcome.reason = "not exported", str(error)
        fixed = case.dynamic_shapes is not None and "Constraints violated" in str(error)
        _expect(outcome, fixed, str(error))  # code that fixes a dimension that is to be dynamic
        return
    structure = program.read()
    touched = {place.tensor for group in structure.groups for place in group.slices}
    total = sum(parameter.elements for parameter in structure.counted)
    outcome.reach = sum(each.elements for each in structure.counted if each.name in touched) / max(total, 1)
    roles = sorted({group.role for group in structure.groups})
    budget = t.pick(["ratio", "ratio", "ratio", "params", "macs"])
    share = t.pick([0.3, 0.4, 0.5, 0.6, 0.8])
    options: dict[str, Any] = {
        budget: share,
        "criterion": t.pick(["l1", "l2", "random"]),
        "scope": t.pick(["auto", "local", "global"]),
        "seed": t.randrange(100),
        "dynamic_shapes": case.dynamic_shapes,
        "way": "graph" if t.chance(0.25) else "auto",
    }
    if roles and t.chance(0.2):
        options["units"] = [t.pick(roles)]
    if t.chance(0.15):
        options["round_to"] = t.pick([2, 3, 4])
    if t.chance(0.15):
        options["optimizer"] = _stepped(module, args)
        before = copy.deepcopy(module)
    try:
        result = graphprune.prune(module, args, **options)
    except TargetError as error:
        outcome.status, outcome.reason = "target", str(error)
        sizes = [group.size for group in structure.groups if group.role in options.get("units", roles)]
        problem = _untrue(str(error), sizes, budget, share, options)
        _expect(outcome, not problem, f"{problem}: {error}")
        return
    except VerificationError as error:
        outcome.status, outcome.reason = "refused", str(error)
        _expect(outcome, "changes no output" in str(error), str(error))
        return
    finally:
        state, old = module.state_dict(), before.state_dict()
        same = list(state) == list(old) and all(torch.equal(state[name], old[name]) for name in old)
        _expect(outcome, same and module.training == before.training, "the module was changed")
    outcome.status, outcome.way, outcome.reason = result.status, result.way, result.way_reason
    _check_result(case, result, options, outcome)
    _check_training(result, args, outcome)
    extra = t.pick(["save", "apply", "again", "modes", "", "", ""])
    if extra == "save":
        _check_storage(case, result, outcome)
    elif extra == "apply":
        again = graphprune.apply(result.plan, module, args, dynamic_shapes=case.dynamic_shapes)
        _same(outcome, "the plan applied again", again.module, result.module, args)
    elif extra == "again":
        _check_second(result, case, outcome)
    elif extra == "modes":
        result.module.train(not module.training)
        result.module.train(module.training)
        _same(outcome, "there and back", result.module, result.model.module, args)
    if onnx and not module.training and next(module.parameters()).dtype == torch.float32:
        _check_onnx(result, args, outcome)


def _untrue(message: str, sizes: list[int], budget: str, share: float, options: dict[str, Any]) -> str:
    """What is wrong with the reason that nothing was pruned; empty if it is true."""
    if "no weight has an axis" in message:
        return f"there are {len(sizes)} groups" if sizes else ""
    if "out of reach" in message:
        found = re.search(r"out of reach: ([0-9.e+-]+)%", message)
        return "" if found and float(found[1]) > 100 * share - 0.5 else "what is least is in reach"
    if "removes nothing" not in message:
        return "another reason"
    few = math.floor(share * max(sizes, default=0)) < options.get("round_to", 1)
    return "" if few or budget != "ratio" or options["scope"] == "global" else "there are groups that are large enough"


def _stepped(module: nn.Module, args: tuple[Tensor, ...]) -> torch.optim.Optimizer:
    """An optimizer with a state."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    outputs = pytree.tree_leaves(module(*args))
    sum(y.float().nan_to_num().square().mean() for y in outputs).backward()
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad.nan_to_num_()
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def _expect(outcome: Outcome, holds: bool, problem: str) -> None:
    if not holds:
        outcome.problems.append(problem)


def _same(outcome: Outcome, what: str, a: nn.Module, b: nn.Module, args: tuple[Tensor, ...]) -> None:
    """Both compute the same, coins aside."""
    one, other = (run(each, args, {}, 0) for each in (copy.deepcopy(a), copy.deepcopy(b)))
    _expect(outcome, len(one) == len(other), f"{what}: {len(one)} results instead of {len(other)}")
    for x, y in zip(one, other, strict=False):
        if x.shape != y.shape:
            outcome.problems.append(f"{what}: shape {tuple(x.shape)} instead of {tuple(y.shape)}")
            return
        scale = max(1e-6, float(y.double().nan_to_num().abs().max()))
        gap = float((x.double() - y.double()).abs().nan_to_num().max()) / scale
        _expect(outcome, gap <= CLOSE[y.dtype], f"{what}: differs by {gap:.2g}")


def _check_result(case: Case, result: ModuleResult, options: dict[str, Any], outcome: Outcome) -> None:
    assert isinstance(result.model, TorchProgram)
    _expect(outcome, result.status == "pruned" and result.verified is True, f"{result.status}, {result.verified}")
    _expect(outcome, not result.undeclared, f"undeclared: {result.undeclared}")
    count = sum(parameter.numel() for parameter in result.module.parameters())
    _expect(outcome, count == result.params.after, f"{count} parameters, reported {result.params.after}")
    _expect(outcome, result.params.after < result.params.before, f"no fewer parameters than {result.params.before}")
    for name, change in (("params", result.params), ("macs", result.macs)):
        fits = change.after <= options.get(name, 1.0) * change.before + 1
        _expect(outcome, fits, f"{change.after} of {change.before} {name} where {options.get(name)} was asked for")
    _expect(outcome, result.module.training == case.module.training, "another mode")
    if result.way == "module":
        _expect(outcome, type(result.module) is type(case.module), f"a {type(result.module).__name__}")
        names, old = list(result.module.state_dict()), list(case.module.state_dict())
        _expect(outcome, names == old, "other names in its state")
    _expect(outcome, options["way"] == "auto" or result.way == "graph", "not the way that was asked for")
    _same(outcome, "the module against its graph", result.module, result.model.module, case.args)
    inputs = [node.meta["val"] for node in result.model.module.graph.nodes if node.op == "placeholder"]
    if any(not isinstance(each.shape[0], int) for each in inputs):
        more = tuple(torch.cat((each, each[:1])) for each in case.args)
        _same(outcome, "another batch", result.module, result.model.module, more)
    for name, parameter in result.module.named_parameters():
        _expect(outcome, parameter.is_leaf and parameter.requires_grad, f"parameter {name} does not train")


def _check_training(result: ModuleResult, args: tuple[Tensor, ...], outcome: Outcome) -> None:
    """One step: finite gradients, and weights that move; with the optimizer that was carried over, if there is one."""
    module, optimizer = copy.deepcopy((result.module, result.optimizer))
    parameters = list(module.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    if optimizer is None:
        optimizer = torch.optim.SGD(parameters, lr=0.01)
    else:
        held = {id(each) for group in optimizer.param_groups for each in group["params"]}
        _expect(outcome, held == {id(each) for each in parameters}, "the optimizer holds other parameters")
        for parameter, state in optimizer.state.items():
            shapes = {each.shape for each in state.values() if each.dim()}
            _expect(outcome, shapes <= {parameter.shape}, f"a state of shapes {shapes} for {tuple(parameter.shape)}")
    outputs = pytree.tree_leaves(module(*args))
    sum((y.float() * torch.linspace(0.5, 1, y.numel()).view(y.shape)).sum() for y in outputs).backward()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    _expect(outcome, bool(gradients), "no gradient")
    if all(bool(y.isfinite().all()) for y in outputs):
        _expect(outcome, all(bool(each.isfinite().all()) for each in gradients), "gradients that are not finite")
    optimizer.step()
    moved = any(not torch.equal(a, b) for a, b in zip(parameters, before, strict=True))
    _expect(outcome, moved or not any(bool(each.any()) for each in gradients), "no weight moved")


def _check_storage(case: Case, result: ModuleResult, outcome: Outcome) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stored = result.save(Path(folder) / "slim")
        graph = graphprune.load(stored)
        _same(outcome, "the stored graph", graph, result.module, case.args)
        if result.way == "module":
            _same(outcome, "the stored module", graphprune.load(stored, case.module), result.module, case.args)


def _check_second(result: ModuleResult, case: Case, outcome: Outcome) -> None:
    """What was pruned once is a module like any other."""
    try:
        second = graphprune.prune(
            result.module, case.args, ratio=0.5, criterion="random", dynamic_shapes=case.dynamic_shapes
        )
    except GraphpruneError as error:
        fine = isinstance(error, TargetError) or "changes no output" in str(error)
        _expect(outcome, fine, f"pruned twice: {type(error).__name__}: {error}")
        return
    _expect(outcome, second.verified is True, "pruned twice, and not verified")
    _expect(outcome, second.params.before == result.params.after, "pruned twice: other parameters in between")
    _same(outcome, "pruned twice", second.module, second.model.module, case.args)


def _check_onnx(result: ModuleResult, args: tuple[Tensor, ...], outcome: Outcome) -> None:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = result.to_onnx(Path(folder) / "slim.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = {each.name: value.numpy() for each, value in zip(session.get_inputs(), args, strict=True)}
        found = session.run(None, feed)
    expected = run(copy.deepcopy(result.module), args, {}, 0)
    for a, b in zip(found, expected, strict=True):
        close = np.allclose(a, b.numpy(), rtol=1e-3, atol=1e-3 * max(1.0, float(b.abs().max())))
        _expect(outcome, close, f"ONNX differs by {np.abs(a - b.numpy()).max():.2g}")

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from exported import EXPORTERS, export

import graphprune
from graphprune.correspondence import Namer
from graphprune.errors import UsageError
from graphprune.plan import Cut, Plan
from graphprune.replay import replay
from graphprune.selection import Selection
from graphprune.sides import model_side, module_side

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.torch

from torch import nn  # noqa: E402

from graphprune.frontends.torch_program import TorchProgram, capture  # noqa: E402
from graphprune.models.torch_reference import REFERENCE  # noqa: E402
from graphprune.models.torch_reference.blocks import ConvBn, seeded  # noqa: E402


class Residual(nn.Module):
    def __init__(self, joined: bool = True) -> None:
        super().__init__()
        self.stem, self.a = ConvBn(3, 16, 3), ConvBn(16, 24, 3)
        self.b = ConvBn(24, 16, 3, activation=None)
        self.head = nn.Linear(16 * 64, 10)
        self.joined = joined

    def forward(self, x):
        x = self.stem(x)
        y = self.b(self.a(x))
        return self.head(torch.relu(x + y if self.joined else y).view(x.shape[0], -1))


class Mlp(nn.Module):
    """Square matrices without bias: neither name nor shape tells them apart or which way round they are."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in ((12, 20), (20, 20), (20, 20), (20, 5)))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


Example = tuple[nn.Module, tuple[Any, ...]]


def residual(joined: bool = True, seed: int = 0) -> Example:
    module = seeded(Residual(joined), seed)
    with torch.no_grad():
        module.a.bn.weight[::3] *= -1.0  # folded into a filter, a sign goes with it
    return module, (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)),)


def mlp(seed: int = 0) -> Example:
    return seeded(Mlp(), seed), (torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(1)),)


def reference(name: str) -> Callable[[], Example]:
    return lambda: REFERENCE[name](tiny=True)


CASES: dict[str, Callable[[], Example]] = {
    "residual": residual,
    "mlp": mlp,
    "lstm_tagger": lambda: REFERENCE["lstm_tagger"](tiny=True, depth=1),
    **{name: reference(name) for name in ("vit", "gpt2", "densenet121")},
}


PAIRS = [
    (case, exporter)
    for case in CASES
    for exporter in (EXPORTERS if case in ("residual", "mlp") else ("dynamo", "legacy"))
]


@functools.cache
def captured(case: str) -> tuple[TorchProgram, nn.Module, tuple[Any, ...]]:
    module, args = CASES[case]()
    return capture(module, args), module, args


@functools.cache
def exported(case: str, exporter: str) -> onnx.ModelProto:
    _, module, args = captured(case)
    return export(module, args, exporter)


def outputs(model: ir.Model | onnx.ModelProto, args: tuple[Any, ...]) -> list[np.ndarray]:
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a.numpy() for i, a in zip(session.get_inputs(), args, strict=True)})


def halved(program: TorchProgram) -> Plan:
    structure = program.read()
    keep = {}
    for number, group in enumerate(structure.groups):
        keep[group.leaf] = np.random.default_rng(number).permutation(group.size) >= group.size // 2
    return Plan.of(structure, Selection(structure.space, keep))


def cut(program: TorchProgram, plan: Plan) -> TorchProgram:
    slim = program.clone()
    structure = slim.read()
    assert slim.write(structure, plan.selection(structure))
    return slim


def check_same(slim: TorchProgram, model: ir.Model, args: tuple[Any, ...], before: TorchProgram) -> None:
    with torch.no_grad():
        ours = [value.numpy() for value in slim.run(args, {})]
        unpruned = [value.numpy() for value in before.run(args, {})]
    for own, other, full in zip(ours, outputs(model, args), unpruned, strict=True):
        scale = np.abs(other).max()
        # float32 rounding of a few layers, whose order of additions differs between hosts
        np.testing.assert_allclose(own, other, atol=1e-5 * max(1.0, scale), rtol=1e-4)
        assert np.abs(own - full).max() > 1e-2 * scale


@pytest.mark.parametrize(("case", "exporter"), PAIRS)
def test_plan_of_an_export_prunes_the_module_alike(case: str, exporter: str) -> None:
    program, _, args = captured(case)
    model = exported(case, exporter)
    result = graphprune.prune(model, ratio=0.5, verify=False)
    plan = replay(result.plan, module_side(program), model_side(model, result.plan.prepare))
    assert plan.options == result.plan.options
    check_same(cut(program, plan), result.model, args, program)


@pytest.mark.parametrize(("case", "exporter"), PAIRS)
def test_plan_of_a_module_prunes_its_export_alike(case: str, exporter: str) -> None:
    program, _, args = captured(case)
    model = exported(case, exporter)
    plan = halved(program)
    carried = replay(plan, model_side(model), module_side(program))
    result = graphprune.apply(carried, model, verify=False)
    check_same(cut(program, plan), result.model, args, program)


@pytest.mark.parametrize("exporter", ["dynamo", "unoptimized", "unfolded"])
def test_names_are_enough_where_the_exporter_kept_them(exporter: str) -> None:
    module, args = residual()
    model = export(module, args, exporter)
    result = graphprune.prune(model, ratio=0.5, verify=False)
    program = capture(module, args)
    check_same(cut(program, replay(result.plan, module_side(program))), result.model, args, program)


def test_names_that_are_gone_are_refused() -> None:
    module, args = residual()
    plan = graphprune.prune(export(module, args, "legacy"), ratio=0.5, verify=False).plan
    with pytest.raises(UsageError, match=r"'onnx::Conv_\d+' has no counterpart by name in the module; give the model"):
        replay(plan, module_side(capture(module, args)))


def test_a_trained_module_is_known_by_its_names() -> None:
    module, args = residual()
    model = export(module, args, "unfolded")
    plan = graphprune.prune(model, ratio=0.5, verify=False).plan
    trained = capture(seeded(module, 7), args)
    assert replay(plan, module_side(trained), model_side(model)).cuts.keys() >= {"a.conv.weight", "b.bn.weight"}


def test_a_trained_module_without_names_is_refused() -> None:
    module, args = mlp()
    model = export(module, args, "legacy")
    plan = graphprune.prune(model, ratio=0.5, verify=False).plan
    with pytest.raises(UsageError, match=r"'onnx::MatMul_\d+' \(20x20\) has no counterpart in the module: no single"):
        replay(plan, module_side(capture(*mlp(seed=7))), model_side(model))


def test_shapes_tell_what_values_cannot() -> None:
    module, args = mlp()
    model = export(module, args, "legacy")
    plan = graphprune.prune(model, ratio=0.5, verify=False).plan
    first = next(name for name, dims in plan.cuts.items() if plan.cuts[name].keys() == {1})
    only = replace(plan, cuts={first: {1: Cut(20, tuple(range(10)))}})
    found = replay(only, module_side(capture(*mlp(seed=7))), model_side(model))
    assert found.cuts == {
        "layers.0.weight": {0: Cut(20, tuple(range(10)))},
        "layers.1.weight": {1: Cut(20, tuple(range(10)))},
    }


def test_weights_on_meta_are_named_as_the_reason() -> None:
    module, args = mlp()
    model = export(module, args, "legacy")
    plan = graphprune.prune(model, ratio=0.5, verify=False).plan
    program = capture(module.to("meta"), tuple(arg.to("meta") for arg in args))
    with pytest.raises(UsageError, match="contents cannot be compared because the module has none"):
        replay(plan, module_side(program), model_side(model))


def test_other_couplings_are_refused() -> None:
    module, args = residual(joined=False)
    model = export(module, args, "unfolded")
    plan = graphprune.prune(model, ratio=0.5, verify=False).plan
    joined = module_side(capture(*residual()))
    for source in (None, model_side(model)):
        with pytest.raises(UsageError, match="the module couples its layers otherwise, so make the plan on it"):
            replay(plan, joined, source)
    one = replace(plan, cuts={"b.conv.weight": {0: Cut(16, tuple(range(8)))}})
    with pytest.raises(UsageError, match=r"'stem.*' dimension 0 is coupled with more in the module than"):
        replay(one, joined, model_side(model))


def test_layers_that_one_operator_holds_go_together() -> None:
    module, args = REFERENCE["lstm_tagger"](tiny=True)
    model = export(module, args, "legacy")
    lstm, source = module_side(capture(module, args)), model_side(model)
    plan = graphprune.prune(model, ratio=0.5, verify=False).plan
    with pytest.raises(UsageError, match="the module couples its layers otherwise"):
        replay(plan, lstm, source)
    halves = halved(capture(module, args))
    result = graphprune.apply(replay(halves, source, lstm), model, verify=False)
    check_same(cut(capture(module, args), halves), result.model, args, capture(module, args))


def test_what_is_pinned_is_refused() -> None:
    module, args = mlp()
    plan = Plan({"layers.3.weight": {0: Cut(5, (0, 1))}})
    with pytest.raises(UsageError, match=r"'layers.3.weight' dimension 0 is pinned in the module: graph output"):
        replay(plan, module_side(capture(module, args)))


def test_the_inside_of_a_wrapper_is_known() -> None:
    module, args = residual()
    model = export(Wrapped(module).eval(), args, "unfolded")
    result = graphprune.prune(model, ratio=0.5, verify=False)
    program = capture(module, args)
    plan = replay(result.plan, module_side(program))
    check_same(cut(program, plan), result.model, args, program)
    back = replay(plan, model_side(model))
    assert back.cuts == result.plan.cuts


def test_names_as_exporters_spell_them() -> None:
    namer = Namer(["p_features_0_conv_weight", "x"], ["features.0.conv.weight", "features.0.conv.bias"])
    assert namer("p_features_0_conv_weight") == "features.0.conv.weight"
    assert namer("features.0.conv.bias") == "features.0.conv.bias"
    assert namer("x") is None
    wrapped = Namer(["model.a.weight", "model.b.weight", "other"], ["a.weight", "b.weight"])
    assert wrapped("model.a.weight") == "a.weight"
    assert wrapped("other") is None
    assert Namer(["a.weight", "b.weight"], ["module.a.weight", "module.b.weight"])("b.weight") == "module.b.weight"
    assert Namer(["a"], ["x.1", "x_1"])("p_x_1") is None

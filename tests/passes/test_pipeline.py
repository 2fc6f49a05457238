from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
import pytest
from onnx_ir.passes import common
from onnx_models import operators, parse

from graphprune.errors import UsageError
from graphprune.passes import (
    AsIrPass,
    Canonicalize,
    Context,
    EliminateDeadNodes,
    FromIrPass,
    Pass,
    Report,
    base,
    format_pipeline,
    parse_pipeline,
    register,
    run_passes,
)


@pytest.fixture(autouse=True)
def sample_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    register(TryOptions)


@dataclass(frozen=True)
class TryOptions(Pass):
    requires = ("canonicalize",)

    ratio: float = 0.5
    round_to: int | None = None
    names: tuple[str, ...] = ()
    fast: bool = False
    mode: Literal["local", "global"] = "local"

    def run(self, model: ir.Model, context: Context) -> Report:
        return Report(False)


def test_options_have_the_types_of_the_fields() -> None:
    text = "canonicalize, try-options{ratio=0.25 round-to=8 names='a b,c' fast mode=global} ,eliminate-dead-nodes"
    assert parse_pipeline(text) == [
        Canonicalize(),
        TryOptions(0.25, 8, ("a b", "c"), True, "global"),
        EliminateDeadNodes(),
    ]
    assert parse_pipeline("try-options{round-to=none fast=false}") == [TryOptions()]
    assert parse_pipeline("try-options{}") == [TryOptions()]


@pytest.mark.parametrize(
    "step", [TryOptions(), TryOptions(1.5, 4, ("x y", "z"), True, "global"), TryOptions(names=("a",))]
)
def test_a_pipeline_is_written_as_it_is_read(step: TryOptions) -> None:
    assert parse_pipeline(format_pipeline([Canonicalize(), step])) == [Canonicalize(), step]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("canonicalise", "there is no pass 'canonicalise' (did you mean 'canonicalize'?)"),
        ("try-options{ratoi=1}", "pass 'try-options' has no option 'ratoi' (did you mean 'ratio'?)"),
        ("canonicalize{x=1}", "pass 'canonicalize' has no option 'x': it has no options"),
        ("try-options{ratio=half}", "option 'ratio' of pass 'try-options' is 'half': write a number"),
        ("try-options{round-to=1.5}", "option 'round-to' of pass 'try-options' is '1.5': write a whole number"),
        ("try-options{fast=yes}", "option 'fast' of pass 'try-options' is 'yes': write true or false"),
        ("try-options{mode=globl}", "(did you mean 'global'?): choose one of local, global"),
        ("try-options{ratio=1 ratio=2}", "option 'ratio' of pass 'try-options' is given twice"),
        ("try-options{ratio=1", "is not closed"),
        ("try-options{names='a}", "is not closed"),
        ("try-options}ratio=1", "braces do not match"),
        ("try-options{ratio=1} canonicalize", "goes on after its options"),
        ("canonicalize,,canonicalize", "has an empty step"),
        ("", "has an empty step"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_pipeline(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pass_runs_only_after_those_it_requires() -> None:
    model = parse("agraph (float[2] x) => (float[2] y) { y = Relu(x) }")
    with pytest.raises(UsageError, match="pass 'try-options' needs 'canonicalize' before it"):
        run_passes(model, [TryOptions(), Canonicalize()])
    context = run_passes(model, [Canonicalize(), TryOptions()])
    assert [name for name, _ in context.reports] == ["canonicalize", "try-options"]
    assert not run_passes(model, [TryOptions()], context).reports[-1][1].modified


def test_two_passes_cannot_share_a_name() -> None:
    with pytest.raises(UsageError, match="two passes are called 'canonicalize'"):
        register(type("Canonicalize", (Pass,), {}))


def test_our_passes_run_among_those_of_onnx_ir() -> None:
    model = parse("agraph (float[2] x) => (float[2] y) { a = Identity(x)\n b = Neg(x)\n y = Relu(a) }")
    result = ir.passes.Sequential(common.TopologicalSortPass(), AsIrPass(Canonicalize()))(model)
    assert result.modified
    assert operators(model) == ["Relu"]
    with pytest.raises(ir.passes.PreconditionError, match="needs 'canonicalize'"):
        AsIrPass(TryOptions())(model)


def test_passes_of_onnx_ir_run_among_ours() -> None:
    model = parse("agraph (float[2] x) => (float[2] y) { a = Identity(x)\n y = Relu(a) }")
    step = FromIrPass(common.IdentityEliminationPass())
    assert run_passes(model, [step]).reports == [("from-ir-pass", Report(True))]
    assert operators(model) == ["Relu"]
    assert not step(model).modified
    with pytest.raises(UsageError, match="is not in place"):
        FromIrPass(ir.passes.functionalize(common.IdentityEliminationPass()))(model)

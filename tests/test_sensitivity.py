from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from analysed import analyse

import graphprune
from graphprune import sensitivity
from graphprune.calibration.observe import Calibration
from graphprune.cli import main
from graphprune.curves import Curves
from graphprune.errors import TargetError, UsageError
from graphprune.measuring import bundles
from graphprune.models import reference
from graphprune.models.reference.builder import GraphBuilder


def network(first: int = 12) -> onnx.ModelProto:
    b = GraphBuilder(seed=1)
    x = b.relu(b.gemm(b.input("x", ("N", 6)), first))
    x = b.relu(b.gemm(x, 16))
    b.output(b.gemm(x, 4), "logits")
    return b.model()


def inputs(count: int = 24) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 6)).astype(np.float32)


def losses(curves: Curves) -> list[tuple[float, ...]]:
    return [curve.loss for curve in curves.curves]


def divergence(dense: onnx.ModelProto, slim: ir.Model) -> float:
    """KL of softmax outputs, the plain way."""
    before, after = (
        next(iter(Calibration(model, [{"x": inputs()}]).outputs()))[0].astype(float)
        for model in (ir.from_proto(dense), slim)
    )
    one, other = (values - np.log(np.exp(values).sum(1, keepdims=True)) for values in (before, after))
    return float((np.exp(one) * (one - other)).sum(1).mean())


def test_curves_are_the_distance_of_models_cut_at_one_group() -> None:
    curves = sensitivity(network(), calibration=inputs(), removed=(0.25, 0.75))
    assert [dict(curve.groups) for curve in curves.curves] == [{"a0": 12}, {"a1": 16}]
    assert curves.about["complete"]
    for curve in curves.curves:
        assert curve.removed == (0.25, 0.75)
        assert 0 < curve.loss[0] < curve.loss[1]
        for share, loss in zip(curve.removed, curve.loss, strict=True):
            slim = graphprune.prune(network(), ratio=0.0, per_group=dict.fromkeys(curve.groups, share), verify=False)
            np.testing.assert_allclose(loss, divergence(network(), slim.model), rtol=1e-4)


def test_the_same_inputs_give_the_same_curves_and_distances_differ() -> None:
    one, two = (sensitivity(network(), calibration=inputs(), removed=(0.5,)) for _ in range(2))
    assert one == two
    found = {}
    for distance in ("cosine", "error"):
        found[distance] = losses(sensitivity(network(), calibration=inputs(), removed=(0.5,), distance=distance))
    assert found["cosine"] != found["error"] != losses(one)
    assert all(loss > 0 for own in found.values() for (loss,) in own)


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    file, said = tmp_path / "curves.json", []

    class Killed(BaseException):
        pass

    def killed(stage: str) -> None:
        if stage.startswith("measure 2"):
            raise Killed

    with pytest.raises(Killed):
        sensitivity(network(), calibration=inputs(), output=file, progress=killed)
    assert len(Curves.load(file).curves) == 1
    with pytest.raises(UsageError, match="not complete"):
        graphprune.prune(network(), macs="50%", curves=file)
    curves = sensitivity(network(), calibration=inputs(), output=file, progress=said.append)
    assert not any(stage.startswith("measure 1") for stage in said)
    assert any(stage.startswith("measure 2 of 2: a1, 50% removed") for stage in said)
    assert curves == sensitivity(network(), calibration=inputs()) == Curves.load(file)
    said.clear()
    sensitivity(network(), calibration=inputs(), output=file, progress=said.append)
    assert not any(stage.startswith("measure") for stage in said)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "curves.json"
    first = sensitivity(network(), calibration=inputs(), removed=(0.5,), output=file)
    for other, options in (
        ("another model or other inputs", {"calibration": inputs(8)}),
        ("another 'criterion'", {"criterion": "l2"}),
        ("another 'removed'", {"removed": (0.75,)}),
    ):
        call = {"calibration": inputs(), "removed": (0.5,), **options}
        with pytest.raises(UsageError, match=f"has curves of {other}; .*fresh=True"):
            sensitivity(network(), output=file, **call)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="another model or other inputs"):
        sensitivity(network(14), calibration=inputs(), removed=(0.5,), output=file)
    again = sensitivity(network(), calibration=inputs(), removed=(0.75,), output=file, fresh=True)
    assert losses(again) != losses(first)


def test_slim_models_may_be_changed_before_they_run() -> None:
    seen: list[int] = []

    def after(slim: object) -> None:
        assert isinstance(slim, ir.Model)
        seen.append(sum(value.const_value.size for value in slim.graph.initializers.values() if value.const_value))

    curves = sensitivity(network(), calibration=inputs(), removed=(0.5, 0.75), after=after)
    assert len(seen) == 4
    assert seen[0] > seen[1]
    assert "after" in curves.about["after"]


def test_passes_may_follow_each_cut() -> None:
    plain = sensitivity(network(), calibration=inputs(64), removed=(0.5,))
    better = sensitivity(network(), calibration=inputs(64), removed=(0.5,), after="compensate{holdout=0.25}")
    assert all(own[0] < before[0] for own, before in zip(losses(better), losses(plain), strict=True))
    assert better.about["after"] == "compensate{holdout=0.25}"


def test_pools_and_small_groups_of_one_class_are_measured_together() -> None:
    program = analyse(reference.shufflenet_v2())
    groups = program.structure.groups
    found = bundles(program.structure, groups)
    assert sorted(group.name for bundle in found for group in bundle) == sorted(group.name for group in groups)
    pools = {group.leaf.pool for group in groups}
    assert len(found) < len(pools) < len(groups)
    for pool in pools:
        assert sum(any(group.leaf.pool == pool for group in bundle) for bundle in found) == 1
    few = bundles(program.structure, groups, most=6)
    assert len(few) < len(found)


def test_groups_can_be_left_out() -> None:
    curves = sensitivity(network(), calibration=inputs(), removed=(0.5,), exclude=["a0"])
    assert [dict(curve.groups) for curve in curves.curves] == [{"a1": 16}]
    result = graphprune.prune(network(), macs="70%", curves=curves)
    assert set(result.plan.to_json().split('"')) & {"a1"} or result.groups.cut == 1
    with pytest.raises(TargetError, match="nothing to measure"):
        sensitivity(network(), calibration=inputs(), exclude=["*"])
    with pytest.raises(UsageError, match="no group has the role 'head'"):
        sensitivity(network(), calibration=inputs(), units=["head"])


@pytest.mark.parametrize("removed", [(), (0.0,), (1.0,), (0.5, 2.0)])
def test_shares_that_make_no_sense(removed: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="above 0 and below 1"):
        sensitivity(network(), calibration=inputs(), removed=removed)


def test_pruning_by_curves_keeps_what_the_outputs_need() -> None:
    b = GraphBuilder(seed=3)
    x = b.input("x", ("N", 6))
    main_path = b.relu(b.gemm(x, 16))
    idle = b.relu(b.gemm(x, 16))
    both = b.add(b.gemm(main_path, 4), b.mul(b.gemm(idle, 4), b.constant(np.float32(1e-3))))
    b.output(both, "logits")
    model = b.model()
    curves = sensitivity(model, calibration=inputs())
    result = graphprune.prune(model, macs="60%", curves=curves)
    assert result.verified
    assert result.macs.after <= 0.6 * result.macs.before
    uniform = graphprune.prune(model, macs="60%", scope="local")
    dense = next(iter(Calibration(ir.from_proto(model), [{"x": inputs()}]).outputs()))[0]
    errors = [
        float(np.square(next(iter(Calibration(slim.model, [{"x": inputs()}]).outputs()))[0] - dense).sum())
        for slim in (result, uniform)
    ]
    assert errors[0] < 0.2 * errors[1]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(network(), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=inputs())
    file = tmp_path / "curves.json"
    call = ["sensitivity", str(tmp_path / "m.onnx"), "-o", str(file), "--calib", str(tmp_path / "x.npz")]
    assert main([*call, "--removed", "25%,50%", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [curve["groups"] for curve in document["curves"]] == [["a0"], ["a1"]]
    assert document["about"]["data"]["samples"] == 24
    assert main([*call, "--removed", "25%,50%"]) == 0
    shown = capsys.readouterr().out
    assert "loss (auto) on 24 samples" in shown
    assert "-25%" in shown
    assert f"2 curves -> {file}" in shown
    slim = tmp_path / "slim.onnx"
    assert main(["prune", str(tmp_path / "m.onnx"), "-o", str(slim), "--macs", "60%", "--curves", str(file), "-q"]) == 0
    assert slim.exists()
    assert main(["sensitivity", str(tmp_path / "m.onnx")]) == 2
    assert "where to? Give --output FILE" in capsys.readouterr().err


@pytest.mark.torch
def test_modules_have_the_curves_of_their_export() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.ReLU(), torch.nn.Linear(10, 4)).eval()
    curves = sensitivity(module, (torch.zeros(2, 6),), calibration=inputs(), removed=(0.5,))
    (curve,) = curves.curves
    with torch.no_grad():
        dense = module(torch.from_numpy(inputs())).log_softmax(1)
        for share, loss in zip(curve.removed, curve.loss, strict=True):
            slim = graphprune.prune(module, (torch.zeros(2, 6),), ratio=share, verify=False).module
            own = slim(torch.from_numpy(inputs())).log_softmax(1)
            assert loss == pytest.approx(float((dense.exp() * (dense - own)).sum(1).mean()), rel=1e-4)

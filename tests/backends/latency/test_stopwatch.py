"""Latency that is asked for, on a machine that is made up, and the gate at the end."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from command_line import Run
from made_up_machine import VECTOR, Machine, images, stopwatch
from told_times import taking
from tvm_programs import needs_tvm

import graphprune
from graphprune import passes
from graphprune.backends import gate, race
from graphprune.backends.latency import stopwatch as stopwatches
from graphprune.backends.latency.stopwatch import LatencyStopwatch
from graphprune.backends.measure import Comparison
from graphprune.cost import CostModel
from graphprune.errors import SlowerError, TargetError, UsageError
from graphprune.frontends.program import program_of
from graphprune.models import digits_path, digits_test
from graphprune.pace import STOPWATCH, Pace
from graphprune.passes.paced import PACE
from graphprune.passes.prune import Prune

TEXT = """g (float[1, 3, 8, 8] x) => (float[1, 8, 8, 8] y) {
    a = Conv<pads=[1,1,1,1]>(x, w0)
    b = Relu(a)
    c = Conv<pads=[1,1,1,1]>(b, w1)
    d = Relu(c)
    e = Conv<pads=[1,1,1,1]>(d, w2)
    f = Relu(e)
    y = Conv<pads=[1,1,1,1]>(f, w3)
}"""


def network() -> ir.Model:
    generator = np.random.default_rng(0)
    widths = (3, 64, 96, 80, 8)
    shapes = {f"w{place}": (after, before, 3, 3) for place, (before, after) in enumerate(itertools.pairwise(widths))}
    return images(TEXT, **{name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})


def pruned(machine: Machine, cache: Path, seconds: float = 1e9, **options: Any) -> tuple[ir.Model, passes.Context]:
    model = network()
    context = passes.Context()
    context.data[STOPWATCH] = stopwatch(machine, cache, seconds)
    passes.run_passes(model, [passes.Canonicalize(), Prune(**options)], context)
    return model, context


def widths(model: ir.Model) -> list[int]:
    return [int(model.graph.initializers[f"w{place}"].shape[0]) for place in range(3)]  # type: ignore[index,arg-type]


@pytest.mark.parametrize("latency", ["75%", "50%", "30%", "3ms"])
@pytest.mark.parametrize("round_to", ["auto", 1, 16])
def test_the_latency_is_met(latency: str, round_to: Any, tmp_path: Path) -> None:
    machine = Machine()
    model, context = pruned(machine, tmp_path, latency=latency, round_to=round_to)
    found = context.data[PACE]
    assert isinstance(found, Pace)
    dense, slim = machine.race([network(), model])
    assert (found.dense, found.slim) == pytest.approx((dense, slim))
    met = slim / 3e-3 if latency == "3ms" else slim / dense / (float(latency.rstrip("%")) / 100)
    # Wide steps leave few points between; no latency is exceeded.
    assert {1: 0.85, "auto": 0.85, 16: 0.75}[round_to] < met < 1.05
    if round_to != 1:
        assert all(width % (VECTOR if round_to == "auto" else 16) == 0 for width in widths(model))


def test_equal_tables_give_equal_choices_and_are_not_measured_again(tmp_path: Path) -> None:
    machine = Machine()
    first, _ = pruned(machine, tmp_path, latency="50%", round_to="auto")
    asked = machine.operators
    assert asked > 20
    second, context = pruned(machine, tmp_path, latency="50%", round_to="auto")
    assert machine.operators == asked
    assert widths(first) == widths(second)
    assert any(note.startswith("round-to auto: multiples of 8") for note in context.notes)
    assert any("channels that come out: multiples of 8, since fewer channels" in note for note in context.notes)


def test_without_time_for_tables_the_rounds_make_up_for_it(tmp_path: Path) -> None:
    machine = Machine()
    model, context = pruned(machine, tmp_path, seconds=0.0, latency="50%", round_to=8)
    dense, slim = machine.race([network(), model])
    assert 0.45 < slim / dense < 0.525
    assert any("latency tables are coarse" in note and "--measure-seconds more" in note for note in context.notes)


def test_an_operator_that_cannot_be_measured_alone_is_named(tmp_path: Path) -> None:
    machine = Machine()
    own = machine.timer

    def timer(single: Any) -> float | None:
        return None if next(iter(single.feeds.values())).shape[1:2] == (3,) else own(single)

    machine.timer = timer  # type: ignore[method-assign]
    _, context = pruned(machine, tmp_path, latency="60%", round_to=8)
    assert any(note.startswith("latency tables lack 1 operator ") and "Conv '" in note for note in context.notes)


def test_widths_are_padded_where_that_is_faster(tmp_path: Path) -> None:
    machine = Machine()
    wide = machine.race

    def race(models: Sequence[ir.Model]) -> list[float]:
        # Widths that fill no vectors take another way here, which no table knows of.
        odd = [any(width % VECTOR for width in widths(model)) for model in models]
        return [seconds * (1.4 if slow else 1.0) for seconds, slow in zip(wide(models), odd, strict=True)]

    machine.race = race  # type: ignore[method-assign]
    for options in ({"latency": "60%"}, {"ratio": 0.4}):
        model, context = pruned(machine, tmp_path, **options, round_to=1)  # type: ignore[arg-type]
        assert all(width % VECTOR == 0 for width in widths(model))
        assert any("padded back" in note for note in context.notes)
    machine.race = wide  # type: ignore[method-assign]
    model, context = pruned(machine, tmp_path, ratio=0.4, round_to=1)
    assert widths(model) == [39, 58, 48]  # what is as fast stays as it was asked for
    model, context = pruned(machine, tmp_path, macs="50%", round_to=1)
    assert any(width % VECTOR for width in widths(model))


def test_what_is_out_of_reach_leaves_the_model_alone(tmp_path: Path) -> None:
    machine = Machine()
    with pytest.raises(TargetError, match=r"latency 1% is out of reach: .* is the least that was measured"):
        pruned(machine, tmp_path, latency="1%", round_to=8)


def test_rounding_is_by_group(tmp_path: Path) -> None:
    model = network()
    passes.canonicalize(model)
    program = program_of(model)
    structure = program.read()
    watch = stopwatch(Machine(), tmp_path)
    rounding = watch.rounding(model, structure, CostModel(structure))
    assert [rounding.multiples[group.leaf] for group in structure.groups] == [8, 8, 8]
    assert len(rounding.reasons) == len(watch.cliffs) == 2


def test_what_a_stopwatch_cannot_do(tmp_path: Path) -> None:
    model = network()
    passes.canonicalize(model)
    structure = program_of(model).read()
    watch = LatencyStopwatch(threads=1, cache=tmp_path, timer=lambda single: None)
    with pytest.raises(UsageError, match="no operator of this model could be measured alone"):
        watch.prediction(model, structure, CostModel(structure))
    with pytest.raises(UsageError, match="-1 seconds for measuring are too few"):
        LatencyStopwatch(seconds=-1, cache=tmp_path)
    with pytest.raises(UsageError, match="export the module first"):
        watch.race([object()])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="put a stopwatch"):
        passes.run_passes(model, [passes.Canonicalize(), Prune(latency="50%")])


def test_models_are_timed_in_turns_by_the_backend(tmp_path: Path) -> None:
    watch = LatencyStopwatch(threads=1, cache=tmp_path)
    found = watch.race([network(), network()])
    assert len(found) == 2
    assert all(seconds > 0 for seconds in found)
    assert watch.measurement([network()]).threads == 1


# -- the whole way ------------------------------------------------------------------------------------------------


@pytest.fixture(name="machine")
def _machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The made-up machine in place of the backend's clock, in all calls."""
    machine = Machine()
    monkeypatch.setattr(stopwatches, "OperatorTimer", lambda *arguments: machine.timer)
    monkeypatch.setattr(LatencyStopwatch, "race", lambda self, hosts: machine.race(hosts))
    monkeypatch.setattr(LatencyStopwatch, "about", lambda self: {"made up": id(machine)})
    return machine


def answers(monkeypatch: pytest.MonkeyPatch, found: Comparison) -> None:
    """Let the gate measure ``found``."""

    class Told:
        measurement = type("M", (), {"comparison": lambda self, index: found})()

    monkeypatch.setattr(gate, "race", lambda *arguments, **options: Told())


def test_the_command_prunes_for_a_latency(
    machine: Machine, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, Comparison(1.9, 1.8, 2.0))
    output = tmp_path / "slim.onnx"
    answer = run("prune", digits_path(), "-o", output, "--latency", "60%", "--threads", 1, "--json")
    assert answer.code == 0, answer.err
    found = answer.document["latency"]
    assert found["share"] <= 0.63
    assert found["asked"] == "60%"
    assert found["comparison"]["verdict"] == "faster"
    assert output.exists()
    shown = run("prune", digits_path(), "-o", output, "--latency", "60%", "--threads", 1)
    assert "against the dense model: faster by 1.90x" in shown.out
    assert "latency: asked 60%" in shown.out


def test_what_is_not_faster_is_not_written(
    machine: Machine, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, Comparison(0.9, 0.85, 0.95))
    output = tmp_path / "slim.onnx"
    command = ("prune", digits_path(), "-o", output, "--threads", 1)
    for budget in (("--latency", "60%"), ("--ratio", 0.5, "--gate")):
        refused = run(*command, *budget, "--json")
        assert refused.code == 6
        assert refused.document["error"]["kind"] == "SlowerError"
        assert refused.document["comparison"]["verdict"] == "slower"
        assert refused.document["macs"]["before"] > 0
        assert "the slim model is not shown to be faster than the dense one" in refused.err
        assert "(--allow-slower); nothing was written" in refused.err
        assert not output.exists()
    allowed = run(*command, "--ratio", 0.5, "--gate", "--allow-slower", "--json")
    assert allowed.code == 0
    assert allowed.document["latency"] == {"comparison": Comparison(0.9, 0.85, 0.95).to_dict()}
    assert output.exists()
    output.unlink()
    assert run(*command, "--latency", "60%", "--no-gate").code == 0
    assert run(*command, "--ratio", 0.5).code == 0


def test_eight_bits_come_on_top_of_a_latency(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    taking(monkeypatch, race, 2e-3, 0.5e-3)
    options: dict[str, Any] = {"precision": "int8-static", "calibration": digits_test().inputs[:32]}
    found = graphprune.optimize(digits_path(), budget="60%", threads=1, recipe="weights", **options)
    words = "the latency 60% was met in single precision; int8-static takes 0.5 ms, 25.0% of the dense model's 2 ms"
    assert words in found.to_dict()["notes"]


def test_an_unmet_latency_says_how_far_it_got(machine: Machine, run: Run, tmp_path: Path) -> None:
    answer = run("prune", digits_path(), "-o", tmp_path / "slim.onnx", "--latency", "1%", "--json")
    assert answer.code == 4
    assert answer.document["latency"]["rounds"]
    assert 0.01 < answer.document["latency"]["share"] < 1
    assert not (tmp_path / "slim.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--latency", "50"), "'50' is no latency"),
        (("--latency", "50%", "--ratio", "0.5"), "--ratio and --latency exclude each other"),
        (("--ratio", "0.5", "--round-to", "even"), "--round-to: 'even' is neither auto nor a whole number"),
        (("--latency", "50%", "--backend", "abacus"), "there is no backend 'abacus'"),
        (("--ratio", "0.5", "--backend", "abacus"), "there is no backend 'abacus'"),
        (("--ratio", "0.5", "--target", "moon"), "has no target 'moon'; it has: cpu, cuda"),
        (("--macs", "50%", "--rpc", "board:9090"), "rpc (--rpc) is for measuring, and nothing is measured"),
        (("--macs", "50%", "--measure-seconds", "3"), "measure_seconds (--measure-seconds) is for measuring"),
        (("--macs", "50%", "--target", "cuda"), "target cuda (--target) is for measuring, and nothing is measured"),
        (("--macs", "50%", "--allow-slower"), "allow_slower (--allow-slower) is for the gate"),
        (("--latency", "50%", "--scope", "local"), "scope local gives each group the same share"),
    ],
)
def test_options_that_make_no_sense(
    machine: Machine, run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    answer = run("prune", digits_path(), "-o", tmp_path / "o.onnx", *arguments)
    assert answer.code == 2
    assert message in answer.err


def test_round_to_auto_without_a_latency(machine: Machine) -> None:
    result = graphprune.prune(digits_path(), macs="60%", round_to="auto", threads=1)
    assert any(note.startswith("round-to auto:") for note in result.notes)
    assert result.macs.after <= 0.6 * result.macs.before
    assert result.latency is None


def test_the_gate_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, Comparison(1.0, 0.9, 1.1))
    with pytest.raises(SlowerError, match="nothing was written"):
        graphprune.prune(digits_path(), ratio=0.5, gate=True, threads=1)
    answers(monkeypatch, Comparison(1.5, 1.4, 1.6))
    found = graphprune.prune(digits_path(), ratio=0.5, gate=True, threads=1)
    assert found.speed == Comparison(1.5, 1.4, 1.6)


def test_it_is_measured_here(run: Run, tmp_path: Path) -> None:
    # No machine runs this network in a hundredth of its time, whatever else it does.
    arguments = ("--latency", "1%", "--threads", 1, "--measure-seconds", 2, "--json")
    answer = run("prune", digits_path(), "-o", tmp_path / "slim.onnx", *arguments)
    assert answer.code == 4, answer.err
    assert answer.document["latency"]["dense_ms"] > 0


@pytest.mark.torch
def test_modules_have_no_latency_of_their_own() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
    for options in ({"latency": "50%"}, {"ratio": 0.5, "gate": True}, {"ratio": 0.5, "round_to": "auto"}):
        with pytest.raises(UsageError, match="latency is measured of ONNX models: export the module first"):
            graphprune.prune(module, (torch.zeros(1, 8),), **options)


@needs_tvm
def test_tvm_measures_the_sizes_that_were_asked_for() -> None:
    stopwatch = LatencyStopwatch("tvm", threads=1, dims={"n": 1}, seconds=0)
    assert stopwatch._compiled(ir.load(digits_path())).fixed == {"n": 1}


def test_a_target_that_is_not_here_is_named(run: Run, tmp_path: Path) -> None:
    answer = run("prune", digits_path(), "-o", tmp_path / "o.onnx", "--latency", "50%", "--target", "cuda")
    assert answer.code == 2
    assert "onnxruntime-gpu" in answer.err

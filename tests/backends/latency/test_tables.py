"""Tables: interpolation, what is measured for them and for how long, and where it is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_machine import Machine, images, model_seconds

from graphprune import passes
from graphprune.backends.latency import store as stores
from graphprune.backends.latency.cliffs import Cliff, cliff_of, probes
from graphprune.backends.latency.kernels import Kernel, kernels_of
from graphprune.backends.latency.measuring import Measuring, OperatorTimer
from graphprune.backends.latency.operators import Single, nothing, single
from graphprune.backends.latency.store import Store
from graphprune.backends.latency.tables import Grid, level_widths, table_of
from graphprune.backends.onnxruntime.backend import OnnxRuntime
from graphprune.cost import CostModel
from graphprune.errors import ModelError
from graphprune.frontends.program import program_of

TEXT = """g (float[1, 3, 8, 8] x) => (float[1, 8, 8, 8] y) {
    a = Conv(x, w0)
    b = Relu(a)
    c = Conv(b, w1)
    d = Relu(c)
    y = Conv(d, w2)
}"""


def read(first: int = 128, second: int = 64) -> tuple[CostModel, list[Kernel]]:
    shapes = {"w0": (first, 3, 1, 1), "w1": (second, first, 1, 1), "w2": (8, second, 1, 1)}
    model = images(TEXT, **{name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    passes.canonicalize(model)
    program = program_of(model)
    cost = CostModel(program.read(), program.sizes())
    return cost, kernels_of(model, cost.structure, cost)


def test_products_of_widths_are_interpolated_exactly() -> None:
    cost, kernels = read()
    middle = kernels[1]

    def seconds(inputs: int, outputs: int) -> float:
        return 1.0 + 0.5 * inputs + 0.25 * outputs + 0.125 * inputs * outputs

    times = {widths: seconds(*widths) for widths in level_widths(middle, cost, 3)}
    assert len(times) == 16
    table = table_of(middle, cost, times)
    assert table is not None
    # The line goes on below the narrowest widths, where each call still takes its second.
    for widths in ((128, 64), (100, 50), (33, 7), (1, 1)):
        assert table.at(widths) == pytest.approx(seconds(*widths), rel=1e-12)


def test_a_table_that_is_not_whole_is_coarser() -> None:
    cost, kernels = read()
    middle = kernels[1]
    times = {widths: float(np.prod(widths)) for widths in level_widths(middle, cost, 1)}
    fine = level_widths(middle, cost, 2)
    table = table_of(middle, cost, {**times, fine[-1]: 1e9})
    assert isinstance(table, Grid)
    assert table.axes == ((64, 128), (32, 64))
    one = table_of(middle, cost, {middle.full: 8.0})
    assert one is not None
    assert one.at((64, 32)) == 2.0
    assert table_of(middle, cost, {}) is None


def test_times_are_measured_once_and_remembered(tmp_path: Path) -> None:
    cost, kernels = read()
    machine = Machine()
    first = Measuring(Store({"machine": 1}, tmp_path), machine.timer, {"": 17}, 1e9)
    tables = first.tables(kernels, cost)
    asked = machine.operators
    assert asked == first.measured == len(first.store.times)
    for kernel, table in zip(kernels, tables, strict=True):
        assert table is not None
        alone = model_seconds(single(kernel, kernel.full, {"": 17}).model)
        assert table.at(kernel.full) == pytest.approx(alone, rel=1e-6)  # without what calling takes
    again = Measuring(Store({"machine": 1}, tmp_path), machine.timer, {"": 17}, 0.0)
    assert [table.at(kernel.full) for table, kernel in zip(again.tables(kernels, cost), kernels, strict=True) if table]
    assert machine.operators == asked
    other = Measuring(Store({"machine": 2}, tmp_path), machine.timer, {"": 17}, 1e9)
    other.tables(kernels, cost)
    assert machine.operators == 2 * asked


def test_measuring_ends_when_its_time_is_over_and_goes_on_later(tmp_path: Path) -> None:
    cost, kernels = read()
    machine = Machine()
    ticks = count()

    def some() -> Measuring:
        return Measuring(Store({}, tmp_path), machine.timer, {"": 17}, 8.0, clock=lambda: float(next(ticks)))

    first = some()
    tables = first.tables(kernels, cost)
    assert all(table is not None for table in tables)  # the full widths are there whatever it takes
    assert first.measured == 8
    assert first.over
    assert first.left_out > 0
    left = [first.left_out]
    while left[-1]:
        later = some()
        later.tables(kernels, cost)
        assert later.measured <= 8
        left.append(later.left_out)
        assert left[-1] < left[-2]
    assert len(left) > 2


def test_an_operator_that_does_not_run_has_no_table(tmp_path: Path) -> None:
    cost, kernels = read()
    broken = kernels[1]

    def timer(model: Single) -> float | None:
        return None if model.model == single(broken, broken.full, {"": 17}).model else 1.0

    tables = Measuring(Store({}, tmp_path), timer, {"": 17}, 1e9).tables(kernels, cost)
    assert [table is None for table in tables] == [False, True, False]


def test_the_backend_takes_the_time_of_operators() -> None:
    timer = OperatorTimer(OnnxRuntime(), "cpu", 1)
    found = timer(nothing())
    assert found is not None
    assert found > 0
    refused = nothing()
    refused.model.graph.node[0].op_type = "NoSuchOperator"
    assert not timer.refusal
    assert timer(refused) is None
    assert "NoSuchOperator" in timer.refusal


# -- the store ----------------------------------------------------------------------------------------------------


def test_stores_of_one_machine_share_a_file(tmp_path: Path) -> None:
    first, second = Store({"cpu": "a"}, tmp_path), Store({"cpu": "a"}, tmp_path)
    first.put("Conv", 1.0)
    second.put("Gemm", 2.0)
    assert first.save()
    assert second.save()
    assert Store({"cpu": "a"}, tmp_path).times == {"Conv": 1.0, "Gemm": 2.0}
    assert Store({"cpu": "b"}, tmp_path).times == {}
    assert json.loads(first.path.read_text())["about"] == {"cpu": "a"}


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1, "about": {}, "seconds": [1]}', "\0"])
def test_a_damaged_store_is_empty(text: str, tmp_path: Path) -> None:
    store = Store({}, tmp_path)
    store.put("Conv", 1.0)
    store.save()
    store.path.write_text(text)
    assert Store({}, tmp_path).times == {}


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str, path: Any) -> None:
        raise ModelError("no space left")

    monkeypatch.setattr(stores, "write_text", refuse)
    store = Store({}, tmp_path)
    assert store.save()  # there is nothing to write
    store.put("Conv", 1.0)
    assert not store.save()
    assert store.times == {"Conv": 1.0}


# -- cliffs -------------------------------------------------------------------------------------------------------


def probed(seconds: Callable[[int], float]) -> Cliff:
    """The cliff of the channels that come out, where ``seconds`` tells the time of each width."""
    _, kernels = read()
    middle = kernels[1]
    outputs = middle.slots[1]
    asked: list[tuple[int, ...]] = []

    def measure(kernel: Kernel, widths: tuple[int, ...]) -> float:
        asked.append(widths)
        return seconds(widths[1])

    cliff = cliff_of(middle, outputs, measure)
    assert cliff is not None
    assert asked == [widths for _, widths in probes(middle, outputs)]
    assert [widths[1] for widths in asked] == [64, 63, 62, 60, 56, 48, 32]
    assert {widths[0] for widths in asked} == {128}
    assert (cliff.kind, cliff.role) == ("1x1 Conv", "out")
    return cliff


@pytest.mark.parametrize("vector", [1, 8, 16, 32])
def test_the_multiple_is_that_of_the_vectors(vector: int) -> None:
    cliff = probed(lambda width: 0.1 + -(-width // vector) * vector)
    assert cliff.multiple == vector
    assert cliff.factor(64) == 1.0
    # What is not filled is computed all the same, the less it is the wider a layer.
    assert cliff.factor(33) == pytest.approx((-(-33 // vector) * vector) / 33)
    assert cliff.factor(513) == pytest.approx((-(-513 // vector) * vector) / 513)
    assert ("fewer channels than the next multiple save no time" in cliff.text) == (vector > 1)


def test_another_way_for_odd_widths_is_a_cliff() -> None:
    cliff = probed(lambda width: 1.0 + width * (3 if width % 4 else 1))
    assert cliff.multiple == 4
    assert cliff.factor(34) == pytest.approx(3, rel=0.02)
    assert cliff.factor(36) == 1.0
    assert "1x1 Conv, channels that come out: multiples of 4, since others take up to 19" in cliff.text


def test_noise_is_no_cliff() -> None:
    noise = np.random.default_rng(0).uniform(0.98, 1.02, 65)
    assert probed(lambda width: (10 + width) * float(noise[width])).multiple == 1
    assert probed(lambda width: float(noise[width])).multiple == 1  # a width that hardly matters


def test_no_cliff_where_nothing_could_be_measured() -> None:
    _, kernels = read()
    assert cliff_of(kernels[1], kernels[1].slots[0], lambda kernel, widths: None) is None

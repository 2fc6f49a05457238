"""The schedule of what was not tuned: it computes the same on sizes that divide well and badly, and is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import parse
from tvm_programs import convolution, needs_tvm

from graphprune.backends.registry import backend
from graphprune.backends.tvm import building, importing, package, targets, tuning
from graphprune.backends.tvm.backend import Tvm

pytestmark = needs_tvm

GENERATOR = np.random.default_rng(3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("channels", "filters", "size", "options"),
    [
        (5, 7, 13, ""),
        (3, 16, 17, ", strides=[2, 2], pads=[1, 1, 1, 1]"),
        (4, 12, 4, ", dilations=[1, 1]"),
        (8, 8, 9, ", group=8"),
    ],
)
def test_convolutions(channels: int, filters: int, size: int, options: str, threads: int) -> None:
    text = f"""g (float[2, {channels}, {size}, {size}] x) => (float[a, b, c, d] y, float[a, b, 1, 1] m) {{
        y = Conv<kernel_shape=[3, 3]{options}>(x, w, bias)
        m = GlobalAveragePool(y)
    }}"""
    depth = 1 if "group" in options else channels
    weights = {"w": GENERATOR.standard_normal((filters, depth, 3, 3)), "bias": GENERATOR.standard_normal(filters)}
    model = parse(text, **{name: value.astype(np.float32) for name, value in weights.items()})
    feed = {"x": GENERATOR.standard_normal((2, channels, size, size)).astype(np.float32)}
    expected = backend("ort").compile(model, "cpu", threads=1, optimize="none")(feed)
    found = Tvm().compile(model, "cpu", threads=threads, verify=False)(feed)
    for name, value in expected.items():
        assert np.ptp(value) > 0.1
        assert np.allclose(found[name], value, rtol=1e-5, atol=1e-5)  # fp32


def test_open_sizes_stay_simple_loops() -> None:
    tvm = package.library()
    target = targets.description(tvm, targets.TARGETS["cpu"], None, 2)
    text = "g (float[n, m, 6] x) => (float[n, m, 8] y) { y = MatMul(x, w) }"
    model = parse(text, w=np.ones((6, 8), np.float32))
    module = building.scheduled(building.fused(importing.from_onnx(model, "g", None).module, target), target)
    assert 'scope="local"' not in module.script()
    assert "T.vectorized" not in module.script()


def test_loops_become_vectors_and_tiles() -> None:
    tvm = package.library()
    target = targets.description(tvm, targets.TARGETS["cpu"], None, 2)
    module = building.fused(importing.from_onnx(convolution(), "g", {"n": 1}).module, target)
    text = building.scheduled(module, target).script()
    for word in ("T.parallel", "T.vectorized(T.int64(8))", "T.unroll(T.int64(8))", 'scope="local"'):
        assert word in text
        assert word not in module.script()


def test_booleans_are_no_vectors() -> None:
    text = """g (float[2, 7] x, bool[2, 7] m) => (bool[2, 7] y) {
        c = Constant<value = float {0.0}>()
        a = Greater(x, c)
        y = And(a, m)
    }"""
    feed = {"x": GENERATOR.standard_normal((2, 7)).astype(np.float32), "m": GENERATOR.random((2, 7)) < 0.5}
    found = Tvm().compile(parse(text), "cpu", threads=1, verify=False)(feed)["y"]
    assert np.array_equal(found, (feed["x"] > 0) & feed["m"])


def test_tuning_keeps_the_plain_schedule_where_it_is_faster(tmp_path: Path) -> None:
    """The database gives the fastest record, and the plain schedule has one; its trace is the schedule."""
    from tvm.s_tir import Schedule
    from tvm.s_tir.meta_schedule.database import JSONDatabase
    from tvm_ffi import structural_equal

    options: dict[str, Any] = {"threads": 1, "dims": {"n": 1}, "tune": 2, "database": tmp_path}
    Tvm().compile(convolution(), "cpu", **options)
    (folder,) = (each for each in tmp_path.iterdir() if each.is_dir())
    records = JSONDatabase(*(str(folder / name) for name in tuning.FILES)).get_all_tuning_records()
    assert len(records) > 1
    target = targets.description(package.library(), targets.TARGETS["cpu"], None, 1)
    module = records[0].workload.mod
    plain = building.scheduled(module, target)["main"].body

    def scheduled(record: Any) -> Any:
        schedule = Schedule(module)
        record.trace.apply_to_schedule(schedule, remove_postproc=False)
        return schedule.mod["main"].body

    assert sum(structural_equal(scheduled(record), plain, map_free_vars=True) for record in records) == 1
    assert not structural_equal(module["main"].body, plain, map_free_vars=True)

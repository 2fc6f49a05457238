"""Sweeps: what they write, what they do not do twice, and what they refuse."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from command_line import Run
from onnx_models import parse, session

from graphprune import api
from graphprune.errors import ModelError, UsageError
from graphprune.sweep import sweep
from graphprune.sweep_points import Point, marked

NETWORK = """
g (float[N, 3, 8, 8] images) => (float[N, 10] logits) {
    a = Conv<pads=[1, 1, 1, 1]>(images, w0)
    b = Relu(a)
    c = Conv<pads=[1, 1, 1, 1]>(b, w1)
    d = Relu(c)
    p = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(d)
    e = Flatten(p)
    logits = MatMul(e, w2)
}
"""


@pytest.fixture
def run(run: Run) -> Run:
    """Runs the command in this process."""
    return partial(run, "sweep")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, four fifths of whose inner channels are nearly nothing."""
    generator = np.random.default_rng(0)
    shapes = (10, 3, 3, 3), (12, 10, 3, 3), (12 * 4 * 4, 10)
    weights = [generator.standard_normal(shape).astype(np.float32) for shape in shapes]
    weights[0][2:] *= 1e-3
    weights[1][3:] *= 1e-3
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    onnx.save(ir.to_proto(parse(NETWORK, **dict(zip(("w0", "w1", "w2"), weights, strict=True)))), path)
    return path


@pytest.fixture(scope="module")
def data(net: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and as labels what the network says of them."""
    images = np.random.default_rng(1).standard_normal((128, 3, 8, 8)).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    (logits,) = session(net).run(None, {"images": images})
    np.savez(path, images=images, labels=np.asarray(logits).argmax(1))
    return path


@pytest.fixture(scope="module")
def swept(net: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two points; copied by whoever changes it."""
    folder = tmp_path_factory.mktemp("swept") / "points"
    sweep(net, output=folder, macs=["60%", "5%"], evaluation=data, metric="accuracy", verify=False, plot=False)
    return folder


def counted_prunes(monkeypatch: pytest.MonkeyPatch, option: str = "macs") -> list[Any]:
    """What is asked for as ``option`` from now on."""
    prune, calls = api.prune, []

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs[option])
        return prune(*args, **kwargs)

    monkeypatch.setattr(api, "prune", counting)
    return calls


def test_a_sweep_writes_models_and_tables(swept: Path) -> None:
    document = json.loads((swept / "sweep.json").read_text())
    points = {point["amount"]: point for point in document["points"]}
    assert list(points) == ["60%", "5%"]
    for point in points.values():
        assert session(swept / point["file"]).get_inputs()[0].name == "images"
        assert point["evaluation"]["metric"]["dense"] == document["dense"]["metric"] == 1
    half, little = points["60%"], points["5%"]
    assert 0.5 < half["macs"][1] / half["macs"][0] <= 0.6
    assert half["evaluation"]["metric"]["slim"] > 0.95 > little["evaluation"]["metric"]["slim"]
    assert half["pareto"]
    assert little["pareto"]  # worse, but smaller
    rows = list(csv.DictReader((swept / "sweep.csv").read_text().splitlines()))
    assert [row["amount"] for row in rows] == ["60%", "5%"]
    assert float(rows[1]["metric_slim"]) == little["evaluation"]["metric"]["slim"]
    assert not [name for name in swept.iterdir() if name.name.startswith(".")]


def test_a_sweep_goes_on_where_it_stopped(
    net: Path, swept: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(swept, tmp_path / "points")
    calls = counted_prunes(monkeypatch)
    options: dict[str, Any] = {"evaluation": data, "metric": "accuracy", "verify": False, "plot": False}
    again = sweep(net, output=folder, macs=["60%", "5%"], **options)
    assert (calls, again.made, len(again.points)) == ([], 0, 2)
    more = sweep(net, output=folder, macs=["60%", "30%"], **options)
    assert (calls, more.made, [point.amount for point in more.points]) == (["30%"], 1, ["60%", "30%"])
    assert {point["amount"] for point in json.loads((folder / "sweep.json").read_text())["points"]} == {
        "60%",
        "5%",
        "30%",
    }
    (folder / "net-macs-60.onnx").unlink()
    assert sweep(net, output=folder, macs=["60%"], **options).made == 1


def test_points_of_something_else_are_not_mixed_in(net: Path, swept: Path, data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(swept, tmp_path / "points")
    options: dict[str, Any] = {"evaluation": data, "metric": "accuracy", "verify": False, "plot": False}
    with pytest.raises(UsageError, match=r"sweep.json: has points of other options; name another folder, or .*--fresh"):
        sweep(net, output=folder, macs=["60%"], **{**options, "criterion": "l2"})
    with pytest.raises(UsageError, match="has points of other evaluation data, other options"):
        sweep(net, output=folder, macs=["60%"], verify=False, plot=False)
    (folder / "sweep.json").write_text("{")
    with pytest.raises(ModelError, match=r"sweep.json: cannot be read .*; start over with --fresh"):
        sweep(net, output=folder, macs=["60%"], **options)
    assert sweep(net, output=folder, macs=["60%"], fresh=True, **options).made == 1


def test_calibrated_points_have_their_control(net: Path, data: Path, tmp_path: Path) -> None:
    found = sweep(net, output=tmp_path, macs=["30%"], calibration=data, metric="accuracy", verify=False, plot=False)
    (point,) = found.points
    assert point.evaluation is not None
    metric = point.evaluation["metric"]
    assert metric["origin"] == metric["dense"] == 1 >= metric["slim"]
    assert "measured on the inputs that it was calibrated on" in found.notes[-1]


def test_curves_are_measured_once_for_all_budgets(
    net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted_prunes(monkeypatch, "curves")
    options: dict[str, Any] = {"calibration": data, "recipe": "best", "criterion": "l1", "verify": False, "plot": False}
    sweep(net, output=tmp_path, macs=["60%", "40%"], **options)
    assert calls[0] is calls[1] is not None
    assert (tmp_path / "curves.json").exists()


def test_the_command_shows_the_table(run: Run, net: Path, swept: Path, data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(swept, tmp_path / "points")
    arguments = ("--macs", "60%,5%", "--eval", data, "--metric", "accuracy", "--no-verify", "-o", folder)
    answer = run(net, *arguments)
    assert (answer.code, answer.err) == (0, "")
    assert "measured on 128 samples" in answer.out
    assert "0 made, 2 there already" in answer.out
    lines = [line.split() for line in answer.out.splitlines() if line.strip().startswith("macs")]
    assert [line[:2] for line in lines] == [["macs", "60%"], ["macs", "5%"]]
    document = run(net, *arguments, "--json").document
    assert document["status"] == "swept"
    assert [point["amount"] for point in document["points"]] == ["60%", "5%"]


def test_without_data_synthetic_inputs_are_used_and_said(run: Run, net: Path, tmp_path: Path) -> None:
    answer = run(net, "--ratio", "0.2", "--no-verify", "-o", tmp_path / "new" / "folder")
    assert answer.code == 0
    assert "SYNTHETIC" in answer.out
    assert (tmp_path / "new" / "folder" / "net-ratio-0.2.onnx").exists()


def test_a_budget_out_of_reach_is_a_row_and_all_of_them_an_error(run: Run, net: Path, tmp_path: Path) -> None:
    answer = run(net, "--params", "50%,3", "--no-verify", "-o", tmp_path)
    assert answer.code == 0
    assert "out of reach" in answer.out
    refused = run(net, "--params", "3", "--no-verify", "-o", tmp_path)
    assert refused.code == 4
    assert refused.err.startswith("graphprune: no budget can be reached: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "which budgets? Give one list, as --macs 80%,60%,40%"),
        ("--macs 50% --ratio 0.5", "--macs and --ratio exclude each other"),
        ("--macs , -o DIR", "',' names no budget"),
        ("--ratio 2 -o DIR", "'2' is not a share"),
        ("--macs 50%", "where to? Give --output DIR"),
        ("--macs 50% -o DIR --calib-limit 5", "--calib-limit says how to read data and there are none"),
        ("--macs 50% -o DIR --metric bleu", "no metric is called 'bleu'"),
        ("--macs 50% -o DIR --metric nowhere:f", "cannot be imported"),
        ("--macs 50% -o DIR --metric json:__name__", "is a str, not a function"),
        ("--macs 50% -o DIR --calib synthetic --preprocess image", "--preprocess: 'image' is none of"),
        ("--macs 50% -o FILE", "is a file; a sweep writes a folder"),
    ],
)
def test_usage(run: Run, net: Path, tmp_path: Path, arguments: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    words = arguments.replace("DIR", str(tmp_path / "dir")).replace("FILE", str(tmp_path / "file")).split()
    answer = run(net, *words)
    assert answer.code == 2
    assert message in answer.err
    assert not list(tmp_path.glob("dir/*.onnx"))


def test_a_function_of_your_own_is_a_metric(
    run: Run, net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_metrics.py").write_text("def spread(outputs, targets):\n    return float(outputs[0].std())\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    answer = run(
        *(net, "--macs", "50%", "--no-verify", "--metric", "own_metrics:spread", "--eval", data, "-o", "d", "--json")
    )
    assert answer.document["points"][0]["evaluation"]["metric"]["name"] == "spread"


def test_a_point_is_best_where_none_is_smaller_and_better() -> None:
    def point(amount: str, macs: int, accuracy: float) -> Point:
        metric = {"name": "accuracy", "dense": 1.0, "slim": accuracy, "origin": None, "higher_is_better": True}
        return Point("macs", amount, "pruned", macs=(10, macs), evaluation={"metric": metric})

    points = [
        point("a", 9, 0.9),
        point("b", 8, 0.9),
        point("c", 5, 0.95),
        point("d", 2, 0.5),
        Point("macs", "e", "refused"),
    ]
    assert [own.pareto for own in marked(points)] == [False, False, True, True, False]


def test_the_plot_is_drawn(swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune.sweep_plot import draw

    points = [Point.from_dict(entry) for entry in json.loads((swept / "sweep.json").read_text())["points"]]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "matplotlib.figure", None)
        assert draw(tmp_path / "sweep.png", points) is None
    pytest.importorskip("matplotlib")
    assert draw(tmp_path / "sweep.png", points) == tmp_path / "sweep.png"
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")

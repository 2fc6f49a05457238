"""Statistics are those that PyTorch would store, and channels of layers get the dense ones' moments, in both hosts."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from graphprune.calibration.observe import Calibration
from graphprune.errors import UsageError
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.weight_access import get_weight, set_weight
from graphprune.passes import Context, Recalibrate, canonicalize, run_passes
from graphprune.passes.prune import cut
from graphprune.selection import Selection

RNG = np.random.default_rng(0)


def _onnx(weights: dict[str, np.ndarray], body: str) -> ir.Model:
    stored = ", ".join(f"float[{','.join(map(str, a.shape))}] {name}" for name, a in weights.items())
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,8,8] x, {stored}) => (float[N,M] y) {{ {body} }}"""
    )
    model.graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items())
    read_in = ir.from_proto(model)
    canonicalize(read_in)
    return read_in


def _cut(model: Any, structure: Any, tensor: str, kept: list[int], feeds: list[Any]) -> Context:
    (leaf,) = structure.leaves(structure.axis(tensor, 0))
    mask = np.zeros(int(leaf.size), np.bool_)
    mask[kept] = True
    context = Context(data={"calibration": feeds})
    assert cut(model, context, structure, Selection(structure.space, {leaf: mask}), "prune")
    return context


def _images(count: int = 4) -> list[np.ndarray]:
    return [(RNG.normal(size=(16, 3, 8, 8)) + 1).astype(np.float32) for _ in range(count)]


FOLDED = """h = Conv<pads=[1,1,1,1]>(x, w, b) a = Relu(h) e = Conv(a, v, c) r = Relu(e)
    m = GlobalAveragePool(r) f = Flatten(m) y = Gemm<transB=1>(f, u, t)"""


def _folded() -> dict[str, np.ndarray]:
    return {
        "w": RNG.normal(size=(12, 3, 3, 3)),
        "b": RNG.normal(size=12),
        "v": RNG.normal(size=(6, 12, 3, 3)),
        "c": RNG.normal(size=6),
        "u": RNG.normal(size=(10, 6)),
        "t": RNG.normal(size=10),
    }


def test_channels_behind_a_cut_get_the_moments_of_the_dense_ones() -> None:
    model = _onnx(_folded(), FOLDED)
    feeds = [{"x": image} for image in _images()]
    context = _cut(model, read(model), "w", [0, 2, 3, 5, 7, 8, 11], feeds)
    slim = model.clone()
    report = Recalibrate(holdout=0).run(model, context)
    assert report.modified
    assert report.counts == {"normalisations": 0, "layers": 3}

    def moments(host: Any) -> tuple[np.ndarray, np.ndarray]:
        e = np.concatenate([values["e"] for values in Calibration(host, feeds).observe(["e"])])
        return e.mean((0, 2, 3)), e.std((0, 2, 3))

    (mean, deviation), (own_mean, own_deviation) = moments(context.decisions[0].before), moments(model)
    cut_mean, cut_deviation = moments(slim)
    assert np.abs(cut_mean - mean).max() > 0.1
    assert np.abs(cut_deviation / deviation - 1).max() > 0.1
    assert np.abs(own_mean - mean).max() < 1e-3  # float32
    assert np.abs(own_deviation / deviation - 1).max() < 1e-3


def test_what_does_not_help_on_held_out_batches_is_taken_back() -> None:
    model = _onnx(_folded(), FOLDED)
    feeds = [{"x": image} for image in _images()]
    context = _cut(model, read(model), "w", [0, 2, 3, 5, 7, 8, 11], feeds)
    far = [{"x": 1000 * feed["x"]} for feed in feeds[:3]]
    context.data["calibration"] = [*far, feeds[3]]
    before = {name: get_weight(model, name) for name in ("w", "b", "v", "c")}
    report = Recalibrate().run(model, context)
    assert not report.modified
    assert report.notes[0].startswith("recalibration was taken back")
    assert len(context.decisions) == 1
    assert all(np.array_equal(get_weight(model, name), value) for name, value in before.items())


def test_stored_statistics_of_onnx_become_those_of_what_is_normalised() -> None:
    weights = {
        "w": RNG.normal(size=(6, 3, 3, 3)),
        "v": RNG.normal(size=(5, 6, 3, 3)),
        "s": RNG.uniform(0.5, 2, 5),
        "o": RNG.normal(size=5),
        "n": np.zeros(5),
        "q": np.ones(5),
        "z": RNG.normal(size=(4, 5)),
    }
    body = """h = Conv(x, w) i = Relu(h) e = Conv(i, v) p = Sigmoid(e) k = BatchNormalization(p, s, o, n, q) r = Relu(k)
        m = GlobalAveragePool(r) f = Flatten(m) y = Gemm<transB=1>(f, z)"""
    model = _onnx(weights, body)
    feeds = [{"x": image} for image in _images(2)]

    def statistics(host: Any) -> tuple[np.ndarray, np.ndarray]:
        p = np.concatenate([values["p"] for values in Calibration(host, feeds).observe(["p"])])
        return p.mean((0, 2, 3)), p.var((0, 2, 3), ddof=1)

    for name, value in zip("nq", statistics(model), strict=True):
        set_weight(model, name, value)
    context = _cut(model, read(model), "w", [0, 1, 3], feeds)
    stale = get_weight(model, "n")
    report = Recalibrate(holdout=0).run(model, context)
    assert report.counts == {"normalisations": 1, "layers": 0}
    mean, variance = statistics(model)
    assert np.abs(stale - mean).max() > 0.02
    assert np.allclose(get_weight(model, "n"), mean, atol=1e-5)
    assert np.allclose(get_weight(model, "q"), variance, rtol=1e-4)


def test_it_needs_inputs_and_a_cut() -> None:
    model = _onnx(_folded(), FOLDED)
    with pytest.raises(UsageError, match="needs 'prune' before it"):
        run_passes(model, [Recalibrate()])
    with pytest.raises(UsageError, match="needs calibration inputs"):
        Recalibrate().run(model, Context())
    with pytest.raises(UsageError, match="comes after a cut"):
        Recalibrate().run(model, Context(data={"calibration": [{}]}))
    with pytest.raises(UsageError, match="not a share"):
        Recalibrate(holdout=1.5).run(model, Context())


@pytest.mark.torch
def test_normalisations_of_a_module_get_what_pytorch_would_store() -> None:
    torch = pytest.importorskip("torch")
    from torch import nn

    from graphprune.frontends.torch_program import capture

    torch.manual_seed(0)

    def network(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 5, 3), nn.BatchNorm2d(5),
            nn.ReLU(), nn.Flatten(), nn.Linear(80, 4),
        )  # fmt: skip

    module = network(8)
    x = torch.randn(64, 3, 8, 8) + 1
    with torch.no_grad():
        for norm in (module[1], module[4]):
            norm.momentum = None
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
        for _ in range(2):
            module.train()(x)
    module.eval()
    program = capture(module, (x,))
    context = _cut(program, program.read(), "0.weight", [0, 2, 3, 6], [(x,)])
    stale = get_weight(program, "4.running_var")
    report = Recalibrate(match=False).run(program, context)
    assert report.counts == {"normalisations": 2, "layers": 0}

    slim = network(4)
    slim.load_state_dict({name: torch.from_numpy(get_weight(program, name)) if "num" not in name else value
                          for name, value in network(4).state_dict().items()})  # fmt: skip
    with torch.no_grad():
        for norm in (slim[1], slim[4]):
            norm.reset_running_stats()
            norm.momentum = None
        slim.train()(x)
    for name in ("1.running_mean", "1.running_var", "4.running_mean", "4.running_var"):
        own, torchs = get_weight(program, name), slim.state_dict()[name].numpy()
        assert np.allclose(own, torchs, rtol=2e-3, atol=2e-3), name  # stored variance is unbiased, a batch's is not
    assert np.abs(get_weight(program, "4.running_var") / stale - 1).max() > 0.1
    assert torch.equal(module[4].running_var, torch.from_numpy(stale))

"""Random programs: canonicalising keeps their results, and removing random positions equals feeding zeros there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from random_graphs import Recipe, build, random_inputs, random_model, recipes

from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_slice import slice_model
from graphprune.passes import canonicalize
from graphprune.proof import verify
from graphprune.selection import Selection
from graphprune.structure import Structure

SEEDS = 600
BATCH = 50
REACH = 0.65  # mean share of the parameters that some group touches, in each batch; it may only rise


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one program."""

    problem: str
    visible: bool
    reach: float


def outputs(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def random_selection(structure: Structure, seed: int) -> Selection:
    """Keep about 60 % of the positions of every group, at least one each."""
    rng = np.random.default_rng(seed)
    keep = {}
    for group in structure.groups:
        kept = rng.random(group.size) < 0.6
        kept[rng.integers(group.size)] = True
        keep[group.leaf] = kept
    return Selection(structure.space, keep)


def reach(structure: Structure) -> float:
    touched = {place.tensor for group in structure.groups for place in group.slices}
    total = sum(parameter.elements for parameter in structure.counted)
    return sum(parameter.elements for parameter in structure.counted if parameter.name in touched) / max(total, 1)


def attempt(proto: onnx.ModelProto, seed: int) -> Trial:
    """Canonicalise, cut at random, and compare with the masked original."""
    inputs = random_inputs(proto)
    before = outputs(proto, inputs)
    model = ir.from_proto(proto)
    canonicalize(model)
    for old, new in zip(before, outputs(ir.to_proto(model), inputs), strict=True):
        # float32, a few dozen operators: rounding in another order stays well below a thousandth of the largest value
        if not np.allclose(old, new, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(old).max()))):
            return Trial(f"canonicalize changed the result by {np.abs(old - new).max():.3g}", False, 0.0)
    structure = read(model)
    selection = random_selection(structure, seed)
    slim = model.clone()
    if not slice_model(slim, structure, selection):
        return Trial("", False, reach(structure))
    found = verify(model, slim, structure, selection, seed=seed, inputs=inputs)
    wrong = not found.max_error <= found.tolerance
    return Trial(found.reason or "results differ" if wrong else "", found.visible_ok, reach(structure))


@pytest.mark.parametrize("start", range(0, SEEDS, BATCH))
def test_erase_equals_zero(start: int) -> None:
    trials = {}
    for seed in range(start, start + BATCH):
        try:
            trials[seed] = attempt(random_model(seed), seed)
        except Exception as error:  # whatever breaks is reported with its seed
            trials[seed] = Trial(f"{type(error).__name__}: {error}", False, 0.0)
    problems = {seed: trial.problem for seed, trial in trials.items() if trial.problem}
    assert not problems
    assert np.mean([trial.visible for trial in trials.values()]) > 0.7  # the others have no group, or are insensitive
    assert np.mean([trial.reach for trial in trials.values()]) > REACH


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(recipes())
def test_erase_equals_zero_on_what_hypothesis_draws(recipe: Recipe) -> None:
    assert not attempt(build(recipe), 0).problem

"""Random PyTorch modules: pruning any of them is proved or refused for a true reason, and what comes back trains."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from random_modules import BLOCKS, Outcome, check, random_case  # noqa: E402
from torch_returned import NETWORKS  # noqa: E402

from graphprune.frontends.torch_program import TorchProgram, capture  # noqa: E402
from graphprune.proof.torch_proof import verify_program  # noqa: E402
from graphprune.selection import Selection  # noqa: E402
from graphprune.structure import Structure  # noqa: E402

pytestmark = pytest.mark.torch

SEEDS = 154
BATCH = 14
REACH = 0.9  # mean share of the parameters that some group touches, in each batch; it may only rise
CLASSES = 0.25  # least share of a batch that comes back as its own class, of those not asked for as graphs
ONNX = 40  # every so many seeds also export to ONNX, which is slow


case = cache(random_case)


def outcome(seed: int) -> Outcome:
    return check(case(seed), seed, onnx=seed % ONNX == 3)


def test_all_blocks_have_their_turn() -> None:
    assert len(BLOCKS) <= SEEDS
    assert all(any(name in case(seed).blocks for seed in range(SEEDS)) for name in BLOCKS)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, SEEDS, BATCH))
def test_modules_are_pruned_and_proved(start: int) -> None:
    found = {seed: outcome(seed) for seed in range(start, start + BATCH)}
    assert not {seed: each.problems for seed, each in found.items() if each.problems}
    pruned = [each for each in found.values() if each.status == "pruned"]
    assert len(pruned) > 0.7 * BATCH
    assert np.mean([each.reach for each in found.values()]) > REACH
    asked = [each for each in pruned if each.reason != "the graph was asked for"]
    assert sum(each.way == "module" for each in asked) > CLASSES * len(asked)


@cache
def captured(name: str) -> tuple[TorchProgram, Structure]:
    torch.manual_seed(0)
    make, example = NETWORKS[name]
    program = capture(make().eval(), (example(),))
    return program, program.read()


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_positions_may_go(data: st.DataObject) -> None:
    program, structure = captured(data.draw(st.sampled_from(sorted(NETWORKS))))
    groups = data.draw(st.lists(st.sampled_from(structure.groups), min_size=1, max_size=4, unique_by=lambda g: g.name))
    keep = {}
    for group in groups:
        kept = data.draw(st.sets(st.integers(0, group.size - 1), min_size=1))
        keep[group.leaf] = np.isin(np.arange(group.size), list(kept))
    slim, selection = program.clone(), Selection(structure.space, keep)
    changed = slim.write(structure, selection)
    assert changed == any(not mask.all() for mask in keep.values())
    if changed:
        found = verify_program(program, slim, structure, selection, runs=1)
        assert found.max_error <= found.tolerance, found.reason

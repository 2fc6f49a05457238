"""Erase equals zero, through the front door: random graphs are pruned as a user would and proved.

Each graph is pruned as a user would, with another ratio, criterion and scope from seed to seed, and proved by ONNX
Runtime on random inputs. The proof itself is tested in ``tests/proof``.
"""

from __future__ import annotations

import random

import onnx_ir as ir
import pytest
from random_graphs import random_model

import graphprune

SEEDS = 200
BATCH = 25


def _prune(seed: int) -> graphprune.PruneResult | str:
    """Prune the graph of ``seed``; otherwise "nothing to cut", or "hidden" where its output hides any cut."""
    choice = random.Random(seed)
    try:
        return graphprune.prune(
            random_model(seed),
            ratio=choice.choice((0.3, 0.5, 0.7)),
            criterion=choice.choice(("l1", "l2", "random")),
            scope=choice.choice(("local", "global")),
            seed=seed,
        )
    except graphprune.TargetError:
        return "nothing to cut"
    except graphprune.VerificationError as error:
        if "nothing was shown" in str(error):
            return "hidden"
        raise


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_slim_equals_masked_original(first: int) -> None:
    pruned = hidden = 0
    for seed in range(first, first + BATCH):
        result = _prune(seed)
        if isinstance(result, str):
            hidden += result == "hidden"
            continue
        pruned += 1
        assert result.verified, f"seed {seed}"
        assert result.params.after < result.params.before, f"seed {seed}"
        assert not result.undeclared, f"seed {seed}: {result.undeclared}"
        stored = sum(
            value.const_value.size  # type: ignore[union-attr]
            for graph in result.model.graphs()
            for value in graph.initializers.values()
            if value.dtype not in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
        )
        assert stored == result.params.after, f"seed {seed}"
    assert pruned > BATCH // 2
    assert hidden <= 2

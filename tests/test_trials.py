"""The recipe that tries shares by curves and by scores: what is held out, and what decides."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import graphprune
from graphprune import trials
from graphprune.calibration.data import Batches
from graphprune.curves import Curve, Curves
from graphprune.errors import UsageError
from graphprune.models import digits_path, digits_test
from graphprune.passes import prune

IMAGES = digits_test().inputs


def calibration(samples: int = 96) -> list[dict[str, np.ndarray]]:
    return [{"images": IMAGES[start : start + 16]} for start in range(0, samples, 16)]


def told(result: Any) -> str:
    (note,) = [note for note in result.notes if note.startswith("shares of groups by")]
    return note


def test_nothing_held_out_is_known() -> None:
    batches = Batches([f"feed {number}" for number in range(8)], samples=36, counts=tuple(range(1, 9)))
    known, held = trials.held_out(batches, 3)  # type: ignore[misc]
    assert sorted((*known.feeds, *held.feeds)) == batches.feeds
    assert len(held) == 2
    assert known.samples + held.samples == 36
    assert trials.held_out(batches, 3) == (known, held)
    assert trials.held_out(batches.part([0])) is None
    one, other = trials.held_out(batches.part([0, 1]))  # type: ignore[misc]
    assert len(one) == len(other) == 1


def test_the_nearer_way_is_taken() -> None:
    found = graphprune.prune(digits_path(), macs="40%", recipe="best", calibration=calibration())
    plain = graphprune.prune(digits_path(), macs="40%", recipe="calibrated", calibration=calibration())
    by_curves, by_scores = map(float, re.findall(r"([\d.e-]+)(?: from| by scores)", told(found)))
    assert f"by {'measured curves' if by_curves <= by_scores else 'scores alone'}: tried on 32 held-out" in told(found)
    assert found.plan is not None
    assert plain.plan is not None
    assert (found.plan.cuts == plain.plan.cuts) == (by_scores < by_curves)
    assert found.macs.after <= 0.4 * found.macs.before


def test_curves_that_mislead_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = trials.curves_of

    def wrong(*arguments: Any, **options: Any) -> Curves:
        """Say of every group that it is worth the less the more it is."""
        found = measured(*arguments, **options)
        worst = max(max(curve.loss) for curve in found.curves)
        turned = tuple(Curve(c.groups, c.removed, tuple(worst - each for each in c.loss)) for c in found.curves)
        return Curves(turned, found.mark, found.about)

    monkeypatch.setattr(trials, "curves_of", wrong)
    found = graphprune.prune(digits_path(), macs="40%", recipe="best", calibration=calibration())
    plain = graphprune.prune(digits_path(), macs="40%", recipe="calibrated", calibration=calibration())
    assert "by scores alone" in told(found)
    assert found.plan is not None
    assert plain.plan is not None
    assert found.plan.cuts == plain.plan.cuts


def test_a_single_batch_leaves_nothing_to_try_on() -> None:
    found = graphprune.prune(digits_path(), macs="50%", recipe="best", calibration=calibration(16))
    assert not any("held-out samples, outputs" in note for note in found.notes)
    assert found.macs.after <= 0.5 * found.macs.before


@pytest.mark.parametrize("recipe", ["best", "calibrated"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"exclude": "no-such-layer"}, "pattern 'no-such-layer' matches no tensor"),
        ({"per_group": {"no-such-layer": 0.5}}, "pattern 'no-such-layer' matches no tensor"),
        ({"units": "head"}, "no group has the role 'head'"),
    ],
)
def test_what_is_misspelt_is_told_before_anything_is_measured(
    recipe: Any, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((trials, "curves_of"), (prune, "evidence_for")):
        monkeypatch.setattr(module, name, lambda *arguments, **options: pytest.fail("measured"))
    with pytest.raises(UsageError, match=words):
        graphprune.prune(digits_path(), macs="50%", recipe=recipe, calibration=calibration(), **options)


@pytest.mark.parametrize("recipe", ["best", "calibrated"])
@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({"images": IMAGES[:8]}, "--metric accuracy needs labels"),
        ({"images": IMAGES[:8], "labels": np.full(8, 10)}, "a label is 10 and the output has 10 classes"),
        ({"images": IMAGES[:8], "labels": np.zeros(7, np.int64)}, "8 samples"),
    ],
)
def test_labels_that_do_not_fit_are_told_before_anything_is_measured(
    recipe: Any, evaluation: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((trials, "curves_of"), (prune, "evidence_for")):
        monkeypatch.setattr(module, name, lambda *arguments, **options: pytest.fail("measured"))
    options: dict[str, Any] = {"calibration": calibration(), "evaluation": evaluation, "metric": "accuracy"}
    with pytest.raises(UsageError, match=words):
        graphprune.prune(digits_path(), macs="50%", recipe=recipe, **options)

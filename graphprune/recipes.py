"""Recipes: which criterion, normaliser and recovery suit the data that there are.

============== ====================================================================================================
``weights``    weights alone; the slim model is the masked original, bit by bit of what is left
``no-data``    as ``calibrated``, on inputs that are made up
``calibrated`` inputs without labels: the least-squares cost of each position, and new weights for what is left
``best``       as ``calibrated``, with shares by measured sensitivity curves where that is nearer; slower
============== ====================================================================================================

Without a recipe the best that the data allow is taken: ``calibrated`` with calibration inputs, otherwise ``weights``.
Inputs are made up only where that is asked for, since nobody but the user knows on which scale a network reads them.
What a call says itself goes before what its recipe says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from graphprune.cost import CostModel
from graphprune.errors import UsageError
from graphprune.frontends.program import Host, program_of
from graphprune.passes.base import Pass
from graphprune.passes.pipeline import parse_pipeline
from graphprune.passes.prune import Prune
from graphprune.score.normalize import LOSSES

__all__ = [
    "COMPENSATIONS",
    "MADE_UP",
    "Compensation",
    "Recipe",
    "RecipeName",
    "calibrated",
    "recipe_for",
    "recovery",
    "steps_by",
]

MADE_UP = "made up"
"""Stands for inputs that are to be made up, as many as the network's size allows."""

LEAST, MOST = 32, 512
"""Of samples that are made up."""
WORK = 4 * 10**11
"""Multiply-accumulates that one run on made-up inputs may take."""

RecipeName: TypeAlias = Literal["weights", "no-data", "calibrated", "best"]
Compensation: TypeAlias = Literal["none", "least-squares", "bias", "merge", "recalibrate"]

COMPENSATIONS: Mapping[str, str] = {
    "none": "",
    "least-squares": "compensate",
    "bias": "compensate{method=bias}",
    "merge": "merge",
    "recalibrate": "recalibrate",
}
"""What is done to the weights after a cut, as a pipeline."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A criterion, how its scores are made comparable where groups compete, and what is done to the weights after.

    ``measured`` tells that sensitivity curves decide how much of each group goes, ``made_up`` that inputs may be.
    """

    criterion: str
    normalize: str
    compensate: Compensation
    measured: bool = False
    made_up: bool = False


RECIPES: Mapping[str, Recipe] = {
    "weights": Recipe("l1", "max", "none"),
    "no-data": Recipe("obs", LOSSES, "least-squares", made_up=True),
    "calibrated": Recipe("obs", LOSSES, "least-squares"),
    "best": Recipe("obs", LOSSES, "least-squares", measured=True),
}


def recipe_for(name: str | None, *, data: bool) -> Recipe:
    """The recipe called ``name``, or the one that suits the data.

    Raises:
        UsageError: there is none of that name, or it needs data that are not there.
    """
    if name is None:
        return RECIPES["calibrated" if data else "weights"]
    if name not in RECIPES:
        raise UsageError(f"no recipe is called '{name}'; there are: {', '.join(get_args(RecipeName))}")
    recipe = RECIPES[name]
    if not data and name in ("calibrated", "best"):
        raise UsageError(f"recipe '{name}' needs calibration inputs: give --calib PATH, or --calib synthetic")
    return recipe


def recovery(name: str) -> list[Pass]:
    """The passes that a compensation stands for.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in COMPENSATIONS:
        raise UsageError(f"no compensation is called '{name}'; there are: {', '.join(COMPENSATIONS)}")
    text = COMPENSATIONS[name]
    return parse_pipeline(text) if text else []


def steps_by(
    recipe: Recipe, asked: Prune, criterion: str | None, normalize: str | None, compensate: str | None
) -> list[Pass]:
    """``asked`` and the recovery behind it, by the recipe where a call says nothing of its own.

    The recipe's normaliser goes with its criterion: another one's scores may be no losses that add up.

    Raises:
        UsageError: there is no such compensation.
    """
    own = recipe.normalize if criterion in (None, recipe.criterion) else asked.normalize
    pruned = replace(asked, criterion=criterion or recipe.criterion, normalize=normalize or own)
    return [pruned, *recovery(compensate or recipe.compensate)]


def calibrated(data: Mapping[str, object], host: Host, seed: int, dims: Mapping[str, int] | None) -> dict[str, object]:
    """``data`` for a context, with the calibration inputs read and checked against the program."""
    found, source = dict(data), data.get("calibration")
    if source is None:
        return found
    from graphprune.calibration.data import SYNTHETIC, load_batches

    if source is MADE_UP:
        found["calibration"] = load_batches(SYNTHETIC, host, limit=_samples(host, dims), seed=seed, dims=dims)
    else:
        found["calibration"] = load_batches(source, host, seed=seed, dims=dims)
    return found


def _samples(host: Host, dims: Mapping[str, int] | None) -> int:
    """How many samples are made up: as many as help, fewer for networks that take long to run."""
    program = program_of(host)
    macs = CostModel(program.read(), program.sizes(dims)).total.macs
    return max(LEAST, min(MOST, WORK // max(macs, 1)))

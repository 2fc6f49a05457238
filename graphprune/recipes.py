"""Recipes: which criterion, normaliser and recovery suit the data that there are.

=============  =====================================================================================================
``no-data``    weights alone: nothing is known of what runs through the network
``calibrated`` inputs without labels: the least-squares cost of each position, and new weights for what is left
``best``       as ``calibrated``, with the share of each group found from measured sensitivity curves; slower
=============  =====================================================================================================

Without a recipe the best that the data allow is taken: ``calibrated`` with calibration inputs, otherwise ``no-data``.
What a call says itself goes before what its recipe says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from graphprune.errors import UsageError
from graphprune.passes.base import Pass
from graphprune.passes.pipeline import parse_pipeline
from graphprune.passes.prune import Prune

if TYPE_CHECKING:
    from graphprune.calibration.data import Batches

__all__ = ["COMPENSATIONS", "Compensation", "Recipe", "RecipeName", "calibrated", "recipe_for", "recovery"]

RecipeName: TypeAlias = Literal["no-data", "calibrated", "best"]
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

    ``measured`` tells that sensitivity curves decide how much of each group goes.
    """

    criterion: str
    normalize: str
    compensate: Compensation
    measured: bool = False

    def normalizer(self, asked: Prune) -> str:
        """The normaliser for a budget: scores by cost are by the cost that is asked for."""
        if self.normalize != "macs" or asked.macs is not None:
            return self.normalize
        return next((name for name in ("params", "bytes") if getattr(asked, name) is not None), self.normalize)


RECIPES: Mapping[str, Recipe] = {
    "no-data": Recipe("l1", "max", "none"),
    "calibrated": Recipe("obs", "macs", "least-squares"),
    "best": Recipe("obs", "macs", "least-squares", measured=True),
}


def recipe_for(name: str | None, *, data: bool) -> Recipe:
    """The recipe called ``name``, or the one that suits the data.

    Raises:
        UsageError: there is none of that name, or it needs data that are not there.
    """
    if name is None:
        return RECIPES["calibrated" if data else "no-data"]
    if name not in RECIPES:
        raise UsageError(f"no recipe is called '{name}'; there are: {', '.join(get_args(RecipeName))}")
    if not data and name != "no-data":
        raise UsageError(f"recipe '{name}' needs calibration inputs: give --calib PATH, or --calib synthetic")
    return RECIPES[name]


def recovery(name: str) -> list[Pass]:
    """The passes that a compensation stands for.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in COMPENSATIONS:
        raise UsageError(f"no compensation is called '{name}'; there are: {', '.join(COMPENSATIONS)}")
    text = COMPENSATIONS[name]
    return parse_pipeline(text) if text else []


def calibrated(data: Mapping[str, object], host: Any, seed: int, dims: Mapping[str, int] | None) -> dict[str, object]:
    """``data`` for a context, with the calibration inputs read and checked against the program."""
    found = dict(data)
    if data.get("calibration") is not None:
        found["calibration"] = _batches(data["calibration"], host, seed, dims)
    return found


def _batches(source: Any, host: Any, seed: int, dims: Mapping[str, int] | None) -> Batches:
    from graphprune.calibration.data import load_batches

    return load_batches(source, host, seed=seed, dims=dims)

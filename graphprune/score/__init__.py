"""Criteria: how much each position of each group matters."""

from __future__ import annotations

from graphprune.score.base import (
    Block,
    Criterion,
    Evidence,
    FunctionCriterion,
    Judge,
    Scores,
    Weights,
    blocks,
    criteria,
    criterion,
    register,
)
from graphprune.score.bn_scale import NormScale
from graphprune.score.fpgm import Fpgm
from graphprune.score.group_norm import GroupNorm
from graphprune.score.lamp import Lamp
from graphprune.score.magnitude import Magnitude
from graphprune.score.normalize import NORMALIZERS, normalize
from graphprune.score.random_score import Random
from graphprune.score.reduction import Reduction
from graphprune.score.similarity import Similarity

__all__ = [
    "NORMALIZERS",
    "Block",
    "Criterion",
    "Evidence",
    "Fpgm",
    "FunctionCriterion",
    "GroupNorm",
    "Judge",
    "Lamp",
    "Magnitude",
    "NormScale",
    "Random",
    "Reduction",
    "Scores",
    "Similarity",
    "Weights",
    "blocks",
    "criteria",
    "criterion",
    "normalize",
    "register",
]

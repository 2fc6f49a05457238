"""Criteria: how much each position of each group matters."""

from __future__ import annotations

from graphprune.score.apoz import Apoz
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
from graphprune.score.chip import Chip
from graphprune.score.entropy import Entropy
from graphprune.score.fidelity import Fidelity
from graphprune.score.flap import Flap
from graphprune.score.fpgm import Fpgm
from graphprune.score.grasp import Grasp
from graphprune.score.group_fisher import GroupFisher
from graphprune.score.group_norm import GroupNorm
from graphprune.score.hrank import HRank
from graphprune.score.hutchinson import Hutchinson
from graphprune.score.l2_activation import L2Activation
from graphprune.score.lamp import Lamp
from graphprune.score.magnitude import Magnitude
from graphprune.score.mean_activation import MeanActivation
from graphprune.score.normalize import NORMALIZERS, normalize
from graphprune.score.obd import Obd
from graphprune.score.random_score import Random
from graphprune.score.reduction import Reduction
from graphprune.score.second_order import SecondOrder
from graphprune.score.similarity import Similarity
from graphprune.score.snip import Snip
from graphprune.score.synflow import SynFlow
from graphprune.score.taylor import Taylor, TaylorActivation, TaylorGate
from graphprune.score.thinet import ThiNet
from graphprune.score.wanda import Wanda

__all__ = [
    "NORMALIZERS",
    "Apoz",
    "Block",
    "Chip",
    "Criterion",
    "Entropy",
    "Evidence",
    "Fidelity",
    "Flap",
    "Fpgm",
    "FunctionCriterion",
    "Grasp",
    "GroupFisher",
    "GroupNorm",
    "HRank",
    "Hutchinson",
    "Judge",
    "L2Activation",
    "Lamp",
    "Magnitude",
    "MeanActivation",
    "NormScale",
    "Obd",
    "Random",
    "Reduction",
    "Scores",
    "SecondOrder",
    "Similarity",
    "Snip",
    "SynFlow",
    "Taylor",
    "TaylorActivation",
    "TaylorGate",
    "ThiNet",
    "Wanda",
    "Weights",
    "blocks",
    "criteria",
    "criterion",
    "normalize",
    "register",
]

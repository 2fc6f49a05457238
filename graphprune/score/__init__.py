"""Criteria: how much each position of each group matters."""

from __future__ import annotations

from graphprune.score.base import Block, Criterion, Evidence, Scores, Weights, blocks, criteria, criterion, register
from graphprune.score.magnitude import Magnitude
from graphprune.score.normalize import NORMALIZERS, normalize
from graphprune.score.random_score import Random

__all__ = [
    "NORMALIZERS",
    "Block",
    "Criterion",
    "Evidence",
    "Magnitude",
    "Random",
    "Scores",
    "Weights",
    "blocks",
    "criteria",
    "criterion",
    "normalize",
    "register",
]

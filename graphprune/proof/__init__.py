"""The proof that a slim model computes what the original computes with the removed positions erased."""

from __future__ import annotations

from graphprune.proof.agreement import Incomparable, disagreement
from graphprune.proof.mask import masked_original
from graphprune.proof.verification import Verification, verify

__all__ = ["Incomparable", "Verification", "disagreement", "masked_original", "verify"]

"""Random PyTorch modules: chains and branches of the blocks that networks are made of, in the forms that people write.

``random_case(seed)`` is deterministic. A new block is one decorated class in the ``blocks_*`` file of its family;
:mod:`~random_modules.check` holds what must be true of pruning any of them.
"""

from __future__ import annotations

from random_modules.check import Outcome, check
from random_modules.choice import BLOCKS
from random_modules.network import Case, random_case

__all__ = ["BLOCKS", "Case", "Outcome", "check", "random_case"]

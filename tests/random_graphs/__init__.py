"""Random valid ONNX graphs: chains and branches of the blocks that networks are made of.

``random_model(seed)`` is deterministic and takes a few milliseconds; ``recipes()`` is the hypothesis strategy that
shrinks by dropping steps, ``build(recipe)`` turns what it draws into a model. A new block is one decorated function in
the ``blocks_*`` file of its family.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import strategies as st

from random_graphs.inputs import random_inputs
from random_graphs.recipe import HEADS, OPSETS, SOURCES, WRAPS, Recipe, Step, build, random_recipe
from random_graphs.tape import BLOCKS

__all__ = ["BLOCKS", "Recipe", "Step", "build", "random_inputs", "random_model", "random_recipe", "recipes"]


def random_model(seed: int, dtype: npt.DTypeLike = np.float32) -> onnx.ModelProto:
    """Return the model of ``seed``, with weights of ``dtype`` (float32 or float16)."""
    return build(random_recipe(seed), dtype)


def recipes() -> st.SearchStrategy[Recipe]:
    """Draw recipes; build them with ``build``."""
    seeds = st.integers(0, 2**32 - 1)
    steps = st.builds(Step, st.sampled_from(sorted(BLOCKS)), st.sampled_from(WRAPS), seeds)
    return st.builds(
        Recipe,
        opset=st.sampled_from(OPSETS),
        source=st.sampled_from(sorted(SOURCES)),
        batch=st.sampled_from([1, 2, "batch"]),
        steps=st.lists(steps, min_size=1, max_size=5).map(tuple),
        head=st.sampled_from(sorted(set(HEADS))),
        seed=seeds,
        share_constants=st.booleans(),
        constant_nodes=st.booleans(),
    )

"""Patterns of well-known networks: what is coupled, and that a cut at random equals zeroing.

What is together and what stays is listed in ``torch_patterns.txt``; run with ``GRAPHPRUNE_GOLDEN=1`` to write it anew.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from frontends.torch_patterns import PATTERNS  # noqa: E402
from torch_models import random_selection  # noqa: E402

from graphprune.frontends.torch_program import TorchProgram, capture  # noqa: E402
from graphprune.proof.torch_proof import verify_program  # noqa: E402
from graphprune.structure import Structure  # noqa: E402

pytestmark = pytest.mark.torch

GOLDEN = Path(__file__).with_name("torch_patterns.txt")


@cache
def example(name: str, batch: int = 2) -> Any:
    """An input of a pattern."""
    pattern, generator = PATTERNS[name], torch.Generator().manual_seed(batch)
    shape = (batch, *pattern.shape[1:])
    if pattern.integers:
        return torch.randint(pattern.integers, shape, generator=generator)
    return torch.randn(shape, generator=generator)


@cache
def captured(name: str, dynamic: bool = False) -> tuple[TorchProgram, Structure]:
    torch.manual_seed(0)
    shapes = ({0: torch.export.Dim.AUTO},) if dynamic else None
    program = capture(PATTERNS[name].make().eval(), (example(name),), dynamic_shapes=shapes)
    return program, program.read()


def lines(structure: Structure) -> Iterator[str]:
    """The groups of a structure, statistics of normalisations and kernels left out, and the rest."""
    shown = [name for name in structure.parameters if "running_" not in name and "num_batches" not in name]
    for group in structure.groups:
        slices = [str(place) for place in group.slices if place.tensor in shown]
        yield f"    {group.size}{'' if group.exact else ' inexact'}: {' '.join(slices)}"
    places = [
        f"{name}:{dim}"
        for name in shown
        for dim, axis in enumerate(structure.tensors[name] or ())
        if dim < 2 and axis.size != 1 and any(leaf.pinned for leaf in structure.leaves(axis))
    ]
    yield f"    pinned, in part at least: {' '.join(places)}"


def test_golden() -> None:
    found = "".join("\n".join([name, *lines(captured(name)[1])]) + "\n" for name in PATTERNS)
    if os.environ.get("GRAPHPRUNE_GOLDEN"):
        GOLDEN.write_text(found)
    expected = GOLDEN.read_text()
    diff = difflib.unified_diff(expected.splitlines(), found.splitlines(), GOLDEN.name, "now", n=1, lineterm="")
    assert found == expected, "\n".join(diff)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_symbolic_batch_couples_nothing_more(name: str) -> None:
    assert list(lines(captured(name)[1])) == list(lines(captured(name, dynamic=True)[1]))


@pytest.mark.parametrize("name", PATTERNS)
def test_erased_equals_zeroed(name: str) -> None:
    program, structure = captured(name, dynamic=True)
    assert not structure.undeclared
    inputs = [((example(name, 5),), {})]
    for seed in range(2):
        selection = random_selection(structure, seed)
        slim = program.clone()
        assert slim.write(structure, selection)
        result = verify_program(program, slim, structure, selection, inputs=inputs)
        assert result.ok, result.reason
        again = slim.read()
        assert not again.undeclared
        assert sum(group.size for group in again.groups) <= sum(group.size for group in structure.groups)

"""Golden dumps: the groups of each reference network as text, so that a change of a rule shows as a readable diff.

``scripts/golden`` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import graphprune
from graphprune.models.reference import REFERENCE
from graphprune.views import dump

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", REFERENCE)
def test_groups_of_reference_networks(name: str) -> None:
    text = dump(graphprune.inspect(REFERENCE[name](tiny=True)).structure)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GRAPHPRUNE_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")

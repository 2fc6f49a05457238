"""The module and its ONNX export give the same partition of the parameters that they share."""

from __future__ import annotations

import functools
import warnings
from collections import Counter, defaultdict
from typing import Any

import pytest
from exported import export

from graphprune.correspondence import Link, Matcher, Side
from graphprune.models.reference import REFERENCE as NAMES
from graphprune.selection import occurrences
from graphprune.sides import model_side, module_side
from graphprune.structure import Structure

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

Place = tuple[int, int, int]
"""Link, joint and position."""

LONG = frozenset({"llama"})
"""Networks of any length: of a given length the rotary angles are small constants, of which each use in ONNX gets its
own, whereas a module has the one table that its buffers hold."""

COARSER = frozenset({("lstm_tagger", "legacy")})
"""Where the module couples more, and must, so that each unit of the export lies within one of the module: all layers
are one operator with one state there, and an operator each in the export."""


def partition(structure: Structure, links: list[Link], own: str) -> set[frozenset[Place]]:
    """What stands or falls together, in the positions of the links' targets; pinned ones are left out."""
    units: defaultdict[tuple[int, int], set[Place]] = defaultdict(set)
    for number, link in enumerate(links):
        for index, joint in enumerate(link.joints):
            axis = structure.axis(getattr(link, own), getattr(joint, own))
            place = range(int(axis.size))
            if own == "source" and joint.order is not None:
                place = {int(position): there for there, position in enumerate(joint.order)}
            for occurrence in occurrences(structure.space, axis):
                if not occurrence.leaf.pinned:
                    for at, position in zip(occurrence.index.tolist(), occurrence.position.tolist(), strict=True):
                        units[id(occurrence.leaf), position].add((number, index, place[at]))
    return {frozenset(unit) for unit in units.values()}


def links_between(matcher: Matcher) -> list[Link]:
    """All that can be linked: by names, and matrices that have no counterpart then by contents."""
    links = matcher.by_names()
    named = {link.source for link in links}
    for names in matcher.source.weights_by_shape.values():
        for name in names:
            if name not in named:
                links.extend(matcher.by_contents(name))
    return links


@functools.cache
def read(name: str) -> tuple[Any, Any, tuple[Any, ...], Side]:
    """A tiny reference network, its exported program, arguments for it, and how it is read."""
    from graphprune.frontends.torch_program import capture
    from graphprune.models.torch_reference import REFERENCE

    module, args = REFERENCE[name](tiny=True)
    length = ({1: torch.export.Dim("length", min=2, max=32)},) if name in LONG else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about the flat weights of its LSTM
        program = torch.export.export(module, args, dynamic_shapes=length, strict=False)
    return module, program, args, module_side(capture(program, args))


def compared(name: str, exporter: str) -> tuple[set[frozenset[Place]], set[frozenset[Place]], list[Link]]:
    """The partitions of the module and of its export, and what both are told in."""
    module, program, args, torch_side = read(name)
    names = {"input_names": ["ids"], "dynamic_axes": {"ids": {1: "length"}}}
    if exporter == "legacy":
        model = export(module, args, exporter, **(names if name in LONG else {}))
    else:
        model = export(program, args, exporter)
    onnx_side = model_side(model)
    links = links_between(Matcher(onnx_side, torch_side))
    matrices = {parameter for parameter, tensor in module.named_parameters() if tensor.ndim > 1}
    # the rest are tables that an exporter has looked up: positions, Swin's biases
    assert len(matrices & {link.target for link in links}) >= 0.8 * len(matrices)
    ours = partition(torch_side.structure, links, "target")
    assert ours
    return ours, partition(onnx_side.structure, links, "source"), links


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
@pytest.mark.parametrize("name", NAMES)
def test_front_ends_agree(name: str, exporter: str) -> None:
    if exporter == "dynamo":
        pytest.importorskip("onnxscript")
    ours, theirs, links = compared(name, exporter)
    if (name, exporter) in COARSER:
        assert all(any(unit <= whole for whole in ours) for unit in theirs)
    else:
        assert ours == theirs, difference(ours, theirs, links)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_has_the_groups_of_its_twin_in_plain_onnx(name: str) -> None:
    _, _, _, torch_side = read(name)
    ours, theirs = (
        Counter((group.size, group.role, group.exact) for group in structure.groups)
        for structure in (torch_side.structure, model_side(NAMES[name](tiny=True)).structure)
    )
    if name == "lstm_tagger":
        theirs[8, "hidden unit", True] -= 1  # both layers of the module share their state
    assert ours == theirs


def difference(ours: set[frozenset[Place]], theirs: set[frozenset[Place]], links: list[Link]) -> str:
    """The dimensions whose units differ, for a reader."""

    def told(units: set[frozenset[Place]]) -> list[str]:
        found = {
            tuple(sorted({f"{links[link].target}:{links[link].joints[joint].target}" for link, joint, _ in unit}))
            for unit in units
        }
        return [" ".join(each[:8]) for each in sorted(found)[:6]]

    return f"only in the module: {told(ours - theirs)}; only in its export: {told(theirs - ours)}"

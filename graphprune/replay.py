"""Carries a plan over to another program of the same network: from an ONNX export to its module, and back.

The positions to keep are read on the program that the plan was made for, follow the tensors that correspond (see
:mod:`graphprune.correspondence`), and are extended on the other program by its own couplings. What cannot be carried
over without a doubt is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from graphprune.axes import Leaf
from graphprune.correspondence import Joint, Link, Matcher, Namer, Side, straight, transposed
from graphprune.errors import UsageError
from graphprune.plan import Cut, Plan
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["replay", "translate"]

Cuts = dict[str, dict[int, Cut]]


def replay(plan: Plan, target: Side, source: Side | None = None) -> Plan:
    """The plan that does to ``target`` what ``plan`` does to the program it was made for.

    ``source`` is that program; without it only names can be followed, which is enough where an exporter kept them.

    Raises:
        UsageError: something that is cut has no counterpart, or is pinned or coupled otherwise in ``target``.
    """
    return _by_names(plan, target) if source is None else translate(plan, source, target)


def translate(plan: Plan, source: Side, target: Side, links: Iterable[Link] | None = None) -> Plan:
    """See :func:`replay`; ``links`` are used in place of those that are found by names."""
    selection = plan.selection(source.structure)
    matcher = Matcher(source, target)
    found = matcher.by_names() if links is None else list(links)
    _complete(plan, selection, matcher, found)
    cuts: Cuts = {}
    for link in found:
        for joint in link.joints:
            mask = selection.mask(source.structure.axis(link.source, joint.source))
            if joint.order is not None:
                mask = mask[joint.order]
            if not mask.all():
                _put(cuts, target, link.target, joint.target, Cut(len(mask), tuple(np.flatnonzero(mask).tolist())))
    carried = _selected(replace(plan, cuts=cuts), target)
    for link in found:
        for joint in link.joints:
            _check(link, joint, selection, carried, source, target)
    _account(selection, carried, source, target)
    return _finished(plan, carried, target)


def _finished(plan: Plan, selection: Selection, target: Side) -> Plan:
    return Plan.of(
        target.structure, selection, fingerprint=target.fingerprint, options=plan.options, versions=plan.versions
    )


# -- with the program that the plan was made for ------------------------------------------------------------------


def _complete(plan: Plan, selection: Selection, matcher: Matcher, links: list[Link]) -> None:
    """Add links by contents to tensors that are cut and have none, and by shape where a leaf has no counterpart yet.

    A tensor whose positions are those of another that has a counterpart needs none of its own.
    """
    structure = matcher.source.structure
    carried: set[Leaf] = set()
    linked = {link.source for link in links}
    for link in links:
        carried |= _leaves(structure, link)
    rest = [name for name in plan.cuts if name not in linked]
    for find in (matcher.by_contents, lambda name: matcher.by_shape(name, {link.target for link in links})):
        for name in rest:
            for link in find(name):
                links.append(link)
                carried |= _leaves(structure, link)
        rest = [name for name in rest if not _cut_leaves(plan, selection, structure, name) <= carried]
    if rest:
        raise _unmatched(rest[0], matcher)


def _leaves(structure: Structure, link: Link) -> set[Leaf]:
    return {leaf for joint in link.joints for leaf in structure.leaves(structure.axis(link.source, joint.source))}


def _cut_leaves(plan: Plan, selection: Selection, structure: Structure, name: str) -> set[Leaf]:
    leaves = (leaf for dim in plan.cuts[name] for leaf in structure.leaves(structure.axis(name, dim)))
    return {leaf for leaf in leaves if selection.cuts(leaf)}


def _unmatched(name: str, matcher: Matcher) -> UsageError:
    shape = "x".join(map(str, matcher.source.shape(name) or ()))
    target = matcher.target.title
    blind = [side.title for side in (matcher.source, matcher.target) if side.weights is None]
    if name in matcher.source.shared:
        why = "an exporter has merged it with others that hold the same"
    elif blind:
        why = f"no tensor has that name, and contents cannot be compared because {blind[0]} has none"
    else:
        why = "no single tensor has that name or holds the same, transposed, scaled or packed otherwise"
    return UsageError(
        f"plan: cannot be replayed: '{name}' ({shape}) has no counterpart in {target}: {why}; "
        f"give the weights that were exported, or make the plan on {target}"
    )


def _put(cuts: Cuts, target: Side, name: str, dim: int, cut: Cut) -> None:
    known = cuts.setdefault(name, {}).setdefault(dim, cut)
    if known != cut:
        raise UsageError(
            f"plan: cannot be replayed: '{name}' dimension {dim} of {target.title} would keep two sets of positions"
        )


def _selected(plan: Plan, target: Side) -> Selection:
    """The selection on the target.

    Raises:
        UsageError: what the plan cuts is pinned there, or coupled otherwise.
    """
    structure = target.structure
    for name, dims in plan.cuts.items():
        for dim in dims:
            axis = structure.axis(name, dim)
            if not structure.free([axis]):
                reasons = "; ".join(map(str, structure.pins(axis)))
                raise UsageError(
                    f"plan: cannot be replayed: '{name}' dimension {dim} is pinned in {target.title}: {reasons}"
                )
    try:
        return plan.selection(structure)
    except UsageError as error:
        raise UsageError(
            f"plan: cannot be replayed: {target.title} couples its layers otherwise, so make the plan on it; {error}"
        ) from None


def _check(link: Link, joint: Joint, selection: Selection, carried: Selection, source: Side, target: Side) -> None:
    """What is linked must keep the same positions on both sides."""
    mask = selection.mask(source.structure.axis(link.source, joint.source))
    if joint.order is not None:
        mask = mask[joint.order]
    if not np.array_equal(mask, carried.mask(target.structure.axis(link.target, joint.target))):
        raise UsageError(
            f"plan: cannot be replayed: '{link.target}' dimension {joint.target} is coupled with more in "
            f"{target.title} than '{link.source}' is in {source.title}; make the plan on {target.title}"
        )


def _account(selection: Selection, carried: Selection, source: Side, target: Side) -> None:
    """Weights of each shape that both sides have the same number of must shrink to the same shapes."""
    ours, theirs = _outcome(selection, source), _outcome(carried, target)
    for shape, results in ours.items():
        others = theirs.get(shape)
        if others is not None and others.total() == results.total() and others != results:
            after = next(iter(results - others))
            before, becomes = ("x".join(map(str, sizes)) for sizes in (shape, after))
            raise UsageError(
                f"plan: cannot be replayed: {results[after]} of the weights {before} become {becomes} in "
                f"{source.title}, but {others[after]} would in {target.title}, whose layers are coupled otherwise; "
                f"make the plan on {target.title}"
            )


def _outcome(selection: Selection, side: Side) -> dict[tuple[int, ...], Counter[tuple[int, ...]]]:
    return {
        shape: Counter(
            tuple(sorted(int(selection.count(axis)) for axis in side.structure.tensors[name] or ()))  # type: ignore[arg-type]
            for name in names
        )
        for shape, names in side.weights_by_shape.items()
    }


# -- by names alone -----------------------------------------------------------------------------------------------


def _by_names(plan: Plan, target: Side) -> Plan:
    """Follow names; what has none must be explained by what the others bring about.

    A matrix without a name must shrink as one on the target does that no name leads to. A vector rides on the axis of
    a matrix, so that it is enough if one with a name shrinks alike.
    """
    namer = Namer(plan.cuts, target.structure.parameters)
    cuts: Cuts = {}
    rest: list[str] = []
    for name, dims in plan.cuts.items():
        found = namer(name)
        link = None if found is None else _fitting(name, found, dims, target)
        if link is None:
            rest.append(name)
            continue
        for joint in link.joints:
            if joint.source in dims:
                _put(cuts, target, link.target, joint.target, dims[joint.source])
    if not cuts and plan.cuts:
        raise _nameless(rest[0], target)
    selection = _selected(replace(plan, cuts=cuts), target)
    matched = {cut for dims in cuts.values() for cut in dims.values()}
    finished = _finished(plan, selection, target)
    spare = [sorted(dims.values(), key=repr) for name, dims in finished.cuts.items() if name not in cuts]
    for name in rest:
        wanted = sorted(plan.cuts[name].values(), key=repr)
        if wanted in spare:
            spare.remove(wanted)
        elif set(plan.cuts[name]) != {0} or wanted[0] not in matched:
            raise _nameless(name, target)
    return finished


def _fitting(name: str, found: str, dims: Mapping[int, Cut], target: Side) -> Link | None:
    """The link between two tensors of one name as far as the sizes of the cut dimensions allow."""
    shape = target.shape(found)
    if shape is None or max(dims) >= len(shape):
        return None
    if all(shape[dim] == cut.size for dim, cut in dims.items()):
        return straight(name, found, len(shape))
    if len(shape) == 2 and all(shape[1 - dim] == cut.size for dim, cut in dims.items()):
        return transposed(name, found)
    return None


def _nameless(name: str, target: Side) -> UsageError:
    return UsageError(
        f"plan: cannot be replayed: '{name}' has no counterpart by name in {target.title}; "
        "give the model that the plan was made on as the source, so that contents can be compared"
    )

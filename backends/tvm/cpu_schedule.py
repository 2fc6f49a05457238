"""A schedule for loops on a CPU that were not tuned: sums kept in registers, vectors along the last axis.

TVM leaves such loops as they are. A convolution then adds up one number at a time, and a compiler must not turn that
into vectors, because it would change the order of the sum. Here a tile of rows and of a strip of the last axis is
summed together, each number still in its own order::

    for n, f tiles, y, x strips (parallel)
        for c, ky, kx
            for f in tile (unrolled)  for x in strip (vectorized)  sums[f, x] += ...
        out[n, f tile, y, x strip] = sums

It is the plain form of what the register tiles of BLIS do (Van Zee and van de Geijn, 2015), without packing.
"""

from __future__ import annotations

from typing import Any

__all__ = ["PlainCpu", "arranged", "rows", "strip"]

LONGEST = 16
"""The longest strip, of 32-bit numbers; with the most rows it fills the registers of vectors that a processor has."""

SHORTEST = 4
MOST_ROWS = 8


class PlainCpu:
    """A rule as dlight's: gives the schedule of a function, or None where it is of no use."""

    def apply(self, function: Any, target: Any, _tunable: bool) -> Any:
        """See the class; C sources, which have no vectors, stay as they are."""
        from tvm import s_tir, tirx

        if not isinstance(function, tirx.PrimFunc):
            return None
        schedule = s_tir.Schedule(function)
        return schedule if arranged(schedule, target) else None


def arranged(schedule: Any, target: Any) -> bool:
    """Arrange the loops of a function that nothing was done to yet; whether there were any to arrange."""
    from tvm.s_tir.dlight.analysis import normalize_prim_func

    blocks = normalize_prim_func(schedule) if target.kind.name == "llvm" else None
    for info in blocks or ():
        _arrange(schedule, info, is_parallel=int(target.attrs.get("num-cores", 1)) > 1)
    return bool(blocks)


def strip(extent: int) -> int:
    """How long the strips of an axis are: its largest divisor up to ``LONGEST``; 1 if that is too short to be of use.

    >>> strip(64), strip(28), strip(75), strip(67), strip(3)
    (16, 14, 15, 1, 1)
    """
    best = _divisor(extent, LONGEST)
    return best if best >= SHORTEST else 1


def rows(extent: int) -> int:
    """How many positions of another axis a tile takes: its largest divisor up to ``MOST_ROWS``.

    >>> rows(64), rows(20), rows(7), rows(11)
    (8, 5, 7, 1)
    """
    return _divisor(extent, MOST_ROWS)


def _arrange(schedule: Any, info: Any, *, is_parallel: bool) -> None:
    """Order, divide and mark the loops of one block; those that are no plain nest stay as they are.

    So do those with an open extent: TVM finds a wrong size for the sums of a tile there, and writes beyond them.
    """
    kinds = info.dom_kind()
    loops = schedule.get_loops(info.block_rv)
    if len(loops) != len(kinds) or "S" not in kinds or set(kinds) - {"S", "R"}:
        return
    if any(_extent(schedule, loop) is None for loop in loops):
        return
    outer = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == "S"]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == "R"]
    last = outer.pop()
    tile: list[Any] = []
    width = 1 if _has_bools(schedule, info.block_rv) else strip(_extent(schedule, last) or 1)
    if width > 1:
        last, lane = schedule.split(last, [None, width])
        tile = [*(_rows_of(schedule, outer) if reduced else ()), lane]
    schedule.reorder(*outer, last, *reduced, *tile)
    place = schedule.fuse(*outer, last) if outer else last
    if is_parallel:
        schedule.parallel(place)
    if not tile:
        return
    if reduced:
        stored = schedule.cache_write(info.block_rv, 0, "local")
        schedule.reverse_compute_at(stored, place)
        schedule.vectorize(schedule.get_loops(stored)[-1])
    _mark(schedule, tile)
    if reduced:
        zeroed = schedule.decompose_reduction(info.block_rv, reduced[0])
        _mark(schedule, schedule.get_loops(zeroed)[-len(tile) :])


def _has_bools(schedule: Any, block: Any) -> bool:
    """Whether a block reads or writes booleans, of which LLVM gets vectors of one and of eight bits mixed."""
    found = schedule.get(block)
    return any(str(region.source.dtype) == "bool" for region in (*found.reads, *found.writes))


def _rows_of(schedule: Any, outer: list[Any]) -> list[Any]:
    """The loop over the rows of a tile, divided off the first axis that has any; that one is changed in place."""
    for index, loop in enumerate(outer):
        number = rows(_extent(schedule, loop) or 1)
        if number > 1:
            outer[index], row = schedule.split(loop, [None, number])
            return [row]
    return []


def _mark(schedule: Any, tile: list[Any]) -> None:
    for loop in tile[:-1]:
        schedule.unroll(loop)
    schedule.vectorize(tile[-1])


def _extent(schedule: Any, loop: Any) -> int | None:
    """The extent of a loop; None where it is not a number yet."""
    from tvm import tirx

    extent = schedule.get(loop).extent
    return int(extent) if isinstance(extent, tirx.IntImm) else None


def _divisor(extent: int, largest: int) -> int:
    return max(size for size in range(1, min(extent, largest) + 1) if extent % size == 0)

"""The tables of accuracies, for the terminal and for the documentation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.table import Table

__all__ = ["markdown", "table"]

Row = dict[str, Any]
COLUMNS = ("row", "kind", "MACs kept", "parameters kept", "result", "lost", "same as dense", "KL", "s")
KINDS = ("dense", "magnitude", "no data", "calibrated", "calibrated, compensated", "criterion", "Torch-Pruning")
CRITERIA = ("criterion", "same share", "groups compete", "same share, compensated", "s to score")
TRAINED = ("row", "on", "MACs kept", "parameters kept", "before", "after pruning", "after training", "options")
MEMORY = ("row", "images", "peak", "s", "lines of progress")


def table(rows: Sequence[Row]) -> Table:
    """Return the rows of networks that are pruned and evaluated, as a table for the terminal."""
    view = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        view.add_column(column, justify="left" if column in ("row", "kind") else "right")
    for cells in _cells([row for row in rows if "kind" in row]):
        view.add_row(*cells)
    return view


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as tables of Markdown: one for each network and budget, then those of the other parts."""
    lines: list[str] = []
    compared = [row for row in rows if "kind" in row and row["part"] != "criteria"]
    for network in dict.fromkeys(row["network"] for row in compared):
        mine = [row for row in compared if row["network"] == network]
        for keep in sorted({row["keep"] for row in mine if row["keep"] < 100}, reverse=True):
            chosen = [row for row in mine if row["keep"] in (keep, 100)]
            lines += [f"### {network}, {100 - keep} % fewer multiply-accumulates", ""]
            lines += _written(COLUMNS, _cells(chosen), 2)
    parts: tuple[tuple[str, str, Sequence[str], Callable[[list[Row]], Iterator[tuple[str, ...]]], int], ...] = (
        ("criteria", "All criteria", CRITERIA, _criteria, 1),
        ("finetune", "Fine-tuning", TRAINED, _trained, 2),
        ("memory", "Memory", MEMORY, _memory, 1),
    )
    for part, title, columns, cells, left in parts:
        mine = [row for row in rows if row["part"] == part]
        if mine:
            lines += [f"### {title}", "", *_written(columns, cells(mine), left)]
    return "\n".join(lines)


def _written(columns: Sequence[str], rows: Iterator[tuple[str, ...]], left: int) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * left + "--:|" * (len(columns) - left)
    for cells in rows:
        yield f"| {' | '.join((f'`{cells[0]}`', *cells[1:]))} |"
    yield ""


def _cells(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    dense = {(row["network"], row["seed"]): row for row in rows if row["method"] == "dense"}

    def order(row: Row) -> tuple[Any, ...]:
        figures = row.get("figures", {})
        quality = figures.get("accuracy", -figures.get("perplexity", 0.0))
        return row["network"], -row["keep"], KINDS.index(row["kind"]), -quality

    for row in sorted(rows, key=order):
        figures = row.get("figures")
        if figures is None:
            said = f"{row['status']}: {' '.join(row.get('reason', '').split())}".replace("|", "/")[:120]
            yield (row["name"], row["kind"], "", "", said, *[""] * 4)
            continue
        perplexity = "perplexity" in figures
        result = figures["perplexity" if perplexity else "accuracy"]
        origin = dense.get((row["network"], row["seed"]))
        lost = ""
        if origin is not None:
            base = origin["figures"]["perplexity" if perplexity else "accuracy"]
            lost = f"x {result / base:.2f}" if perplexity else f"{100 * (base - result):.1f}"
        yield (
            row["name"],
            row["kind"],
            _share(row.get("macs")),
            _share(row.get("params")),
            f"{result:.2f}" if perplexity else _percent(result),
            lost,
            _percent(figures["agreement"]),
            f"{figures['kl']:.3f}",
            "" if "seconds" not in row else f"{row['seconds']:.1f}",
        )


def _criteria(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["method"].startswith("criterion-"):
            name = row["method"].removeprefix("criterion-").removesuffix("-ls")
            name, _, scope = name.rpartition("-")
            found.setdefault(name, {})["ls" if row["method"].endswith("-ls") else scope] = row

    def figure(row: Row | None) -> float:
        return row["figures"]["accuracy"] if row and "figures" in row else -1.0

    for name, own in sorted(found.items(), key=lambda item: -figure(item[1].get("ls"))):
        results = [figure(own.get(way)) for way in ("local", "global", "ls")]
        seconds = own.get("local", {}).get("stages", {}).get("score")
        shown = ["" if result < 0 else _percent(result) for result in results]
        yield (name, *shown, "" if seconds is None else f"{seconds:.1f}")


def _trained(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        options = f"--epochs {row['first_epochs'] if row['stage'] == 'adapt' else row['epochs']}"
        for name, usual in (("batch", 256), ("rate", 0.05), ("distill", 0.0)):
            if row.get(name, usual) != usual:
                options += f" --{name} {row[name]:g}"
        if row.get("options"):
            options += f" --options '{json.dumps(row['options'])}'"
        yield (
            row["name"],
            row["device"],
            _share(row.get("macs")),
            _share(row.get("params")),
            _percent(row["origin"] if row["stage"] == "adapt" else row["adapted"]),
            _percent(row["untrained"]) if "untrained" in row else "",
            f"{100 * row['accuracy']:.2f} %",
            f"`{options}`",
        )


def _memory(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        peak = f"{row['memory'] / 1e9:.2f} GB"
        yield row["name"], str(row["images"]), peak, f"{row['wall']:.0f}", str(row["progress"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _share(change: Sequence[int] | None) -> str:
    return f"{100 * change[1] / change[0]:.1f} %" if change else ""

"""The table of accuracies, for the terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

__all__ = ["markdown", "table"]

Row = dict[str, Any]
COLUMNS = ("row", "kind", "MACs kept", "parameters kept", "result", "dense", "lost", "same as dense", "KL", "s")
KINDS = ("dense", "magnitude", "no data", "calibrated", "calibrated, compensated", "Torch-Pruning")


def table(rows: Sequence[Row]) -> Table:
    """Return the rows as a table for the terminal."""
    view = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        view.add_column(column, justify="left" if column in ("row", "kind") else "right")
    for cells in _cells(rows):
        view.add_row(*cells)
    return view


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as tables of Markdown, a network and budget each."""
    lines: list[str] = []
    for network in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == network]
        for keep in sorted({row["keep"] for row in mine if row["keep"] < 100}, reverse=True):
            lines += [f"### {network}, {100 - keep} % fewer multiply-accumulates", ""]
            lines += [f"| {' | '.join(COLUMNS)} |", "|---|---|" + "--:|" * (len(COLUMNS) - 2)]
            chosen = [row for row in mine if row["keep"] in (keep, 100)]
            lines += [f"| {' | '.join((f'`{cells[0]}`', *cells[1:]))} |" for cells in _cells(chosen)]
            lines.append("")
    return "\n".join(lines)


def _cells(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    dense = {(row["network"], row["seed"]): row for row in rows if row["method"] == "dense"}

    def order(row: Row) -> tuple[Any, ...]:
        figures = row.get("figures", {})
        quality = figures.get("accuracy", -figures.get("perplexity", 0.0))
        return row["network"], -row["keep"], KINDS.index(row["kind"]), -quality

    for row in sorted(rows, key=order):
        figures = row.get("figures")
        if figures is None:
            yield (
                row["name"],
                row["kind"],
                "",
                "",
                f"{row['status']}: {row.get('reason', '')}"[:120],
                "",
                "",
                "",
                "",
                "",
            )
            continue
        origin = dense.get((row["network"], row["seed"]), row)["figures"]
        perplexity = "perplexity" in figures
        result, base = (found["perplexity" if perplexity else "accuracy"] for found in (figures, origin))
        show = f"{result:.2f}" if perplexity else f"{100 * result:.2f} %"
        yield (
            row["name"],
            row["kind"],
            _share(row.get("macs")),
            _share(row.get("params")),
            show,
            f"{base:.2f}" if perplexity else f"{100 * base:.2f} %",
            f"x {result / base:.2f}" if perplexity else f"{100 * (base - result):.2f}",
            f"{100 * figures['agreement']:.2f} %",
            f"{figures['kl']:.3f}",
            "" if "seconds" not in row else f"{row['seconds']:.1f}",
        )


def _share(change: Sequence[int] | None) -> str:
    return f"{100 * change[1] / change[0]:.1f} %" if change else ""

"""The tables and the plot of measured latencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["markdown", "plot"]

Row = dict[str, Any]

SPEED = ("network", "by", "MACs kept", "ms", "faster by", "95 % interval", "of the MAC ratio")
ASKED = ("network", "asked", "measured", "off by", "rounds", "s")
CURVE = ("network", "MACs removed", "MACs kept", "faster by", "95 % interval", "verdict")
INT8 = ("network", "MACs kept", "precision", "size", "ms", "faster by", "accuracy", "agreement with slim fp32")


def markdown(rows: Sequence[Row]) -> str:
    """All rows as tables of Markdown, failures last."""
    lines: list[str] = []
    parts = (
        ("speed", "Speed at equal MACs", SPEED, _speed),
        ("asked", "Latency that was asked for", ASKED, _asked),
        ("curve", "Never slower than dense", CURVE, _curve),
        ("int8", "Eight bits after pruning", INT8, _int8),
    )
    for part, title, columns, cells in parts:
        mine = [row for row in rows if row["part"] == part and row["status"] == "done"]
        if mine:
            lines += [f"### {title}", "", f"| {' | '.join(columns)} |", "|---|---|" + "--:|" * (len(columns) - 2)]
            lines += [f"| {' | '.join(each)} |" for row in mine for each in cells(row)]
            lines.append("")
    failed = [row for row in rows if row["status"] != "done"]
    lines += [f"- `{row['name']}`: {row['reason']}" for row in failed]
    return "\n".join(lines) + "\n"


def _compared(found: Mapping[str, Any]) -> tuple[str, str]:
    return f"{found['ratio']:.2f}x", f"{found['low']:.2f}-{found['high']:.2f}"


def _speed(row: Row) -> Iterator[tuple[str, ...]]:
    macs = row["macs_before"] / row["macs_after"]
    ratio, interval = _compared(row["comparison"])
    kept = f"{1 / macs:.1%}"
    share = f"{row['comparison']['ratio'] / macs:.0%}"
    yield row["network"], row["method"], kept, f"{row['slim_ms']:.2f}", ratio, interval, share


def _asked(row: Row) -> Iterator[tuple[str, ...]]:
    wanted = row["asked"] / 100
    off = f"{row['share'] / wanted - 1:+.1%}"
    yield row["network"], f"{wanted:.0%}", f"{row['share']:.1%}", off, str(row["rounds"]), f"{row['seconds']:.0f}"


def _curve(row: Row) -> Iterator[tuple[str, ...]]:
    ratio, interval = _compared(row["comparison"])
    kept = f"{row['macs_after'] / row['macs_before']:.1%}"
    yield row["network"], f"{row['removed']} %", kept, ratio, interval, row["comparison"]["verdict"]


def _int8(row: Row) -> Iterator[tuple[str, ...]]:
    kept = f"{row['macs_after'] / row['macs_before']:.1%}"
    for place, form in enumerate(row["forms"]):
        size = f"{form['bytes'] / 1e6:.2f} MB"
        ratio = _compared(form["comparison"])[0] if place else ""
        shares = f"{form['accuracy']:.1%}", f"{form['agreement']:.1%}"
        yield row["network"], kept if place else "100.0%", form["precision"], size, f"{form['ms']:.2f}", ratio, *shares


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the speed-up of each network by what was removed, with its intervals, beside the ratio of MACs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    curves = [row for row in rows if row["part"] == "curve" and row["status"] == "done"]
    for network in dict.fromkeys(row["network"] for row in curves):
        mine = sorted((row for row in curves if row["network"] == network), key=lambda row: row["removed"])
        kept = [row["macs_after"] / row["macs_before"] for row in mine]
        found = [row["comparison"] for row in mine]
        ratio = [each["ratio"] for each in found]
        ends = [
            [each["ratio"] - each["low"] for each in found],
            [each["high"] - each["ratio"] for each in found],
        ]
        axes.errorbar(
            [100 * (1 - share) for share in kept], ratio, yerr=ends, marker="o", ms=3, capsize=2, label=network
        )
    steps = range(0, 85, 5)
    axes.plot(steps, [1 / (1 - step / 100) for step in steps], color="grey", ls=":", label="ratio of MACs")
    axes.axhline(1, color="black", lw=0.8)
    axes.set(xlabel="multiply-accumulates removed, %", ylabel="times faster than dense", yscale="log")
    axes.set_yticks([1, 1.5, 2, 3, 4, 5], labels=["1", "1.5", "2", "3", "4", "5"])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)

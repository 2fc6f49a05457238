"""How things are written for people: short lists, sizes, operators, counts."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.sizes import Size

__all__ = ["counted", "first_line", "operator", "scaled", "shortened", "size_text"]


def shortened(items: Sequence[str], shown: int | None) -> list[str]:
    """``items``, the last ones counted instead of named where there are more than ``shown`` (None: never).

    >>> shortened(["a:0", "b:0", "c:0", "d:0"], 3)
    ['a:0', 'b:0', '+2 more']
    """
    if shown is None or len(items) <= shown:
        return list(items)
    return [*items[: shown - 1], f"+{len(items) - shown + 1} more"]


def size_text(size: Size) -> str:
    """A size; a symbol that nobody named is a question mark.

    >>> from graphprune.sizes import fresh, symbol
    >>> size_text(4 * symbol("batch")), size_text(fresh())
    ('4*batch', '?')
    """
    return "*".join("?" if part.startswith("?") else part for part in str(size).split("*"))


def operator(op: str) -> str:
    """The name of an operator; standard ones without their domain.

    >>> operator("onnx.Conv"), operator("com.microsoft.Attention")
    ('Conv', 'com.microsoft.Attention')
    """
    return op.removeprefix("onnx.")


def counted(number: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "group"), counted(2, "group")
    ('1 group', '2 groups')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def scaled(number: float, unit: str = "") -> str:
    """A large number with a decimal prefix.

    >>> scaled(11_689_512), scaled(950, "B"), scaled(2_340_000_000, "B")
    ('11.69 M', '950 B', '2.34 GB')
    """
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= factor:
            return f"{number / factor:.2f} {prefix}{unit}"
    return f"{number:g} {unit}".rstrip()


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or the error's name where it has none.

    >>> first_line(ValueError("no such axis\\n  at 0x7f")), first_line(KeyError())
    ('no such axis', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]

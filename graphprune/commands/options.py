"""Arguments and options that several commands share, and the texts in which values are written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from graphprune.errors import ModelError, UsageError

__all__ = [
    "Debug",
    "Dims",
    "Json",
    "Model",
    "NoVerify",
    "Output",
    "Quiet",
    "Rpc",
    "Seed",
    "Threads",
    "check_output",
    "check_outputs",
    "parse_dims",
    "parse_ratios",
    "parse_round_to",
    "parse_share",
]

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.", show_default=False)]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Where the slim model goes; a file of that name is replaced.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing unless something is wrong.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", hidden=True)]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of everything random.")]
Rpc = Annotated[
    str | None,
    typer.Option(
        "--rpc",
        metavar="HOST:PORT",
        help="TVM's RPC server on the device that runs it.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, help="Threads of the runtime; one a core by default."),
]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not compare the slim model with the masked original.")]
Dims = Annotated[
    list[str] | None,
    typer.Option(
        "--dims",
        metavar="NAME=N,...",
        help="Sizes of symbolic dimensions, for costs and for inputs that are made up.",
        show_default=False,
    ),
]


def parse_dims(texts: Iterable[str] | None) -> dict[str, int] | None:
    """Sizes by name from ``N=1,T=128``.

    >>> parse_dims(["N=1,T=128", "W=4"])
    {'N': 1, 'T': 128, 'W': 4}
    """
    dims: dict[str, int] = {}
    for item in (item for text in texts or () for item in text.split(",")):
        name, equals, number = item.rpartition("=")
        if not equals or not name.strip() or not number.strip().isdecimal() or int(number) < 1:
            raise UsageError(f"--dims: '{item}' is not NAME=N with a whole number N of at least 1")
        dims[name.strip()] = int(number)
    return dims or None


def parse_share(text: str, option: str) -> float:
    """A share from 0 to 1, written ``0.5`` or ``50%``.

    >>> parse_share("12.5%", "--ratio")
    0.125
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"{option}: '{text}' is not a share between 0 and 1 (0.5) or 0% and 100% (50%)")
    return share


def parse_round_to(text: str | None) -> int | Literal["auto"] | None:
    """A multiple, or ``auto``.

    >>> parse_round_to("8"), parse_round_to("auto"), parse_round_to(None)
    (8, 'auto', None)
    """
    if text is None or text == "auto":
        return text  # type: ignore[return-value]
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--round-to: '{text}' is neither auto nor a whole number of at least 1")
    return int(text)


def parse_ratios(texts: Iterable[str] | None) -> dict[str, float]:
    """Shares by pattern from ``PATTERN=RATIO``; the pattern may hold ``=`` itself.

    >>> parse_ratios(["layers.0.*=0.3"])
    {'layers.0.*': 0.3}
    """
    ratios: dict[str, float] = {}
    for text in texts or ():
        pattern, equals, share = text.rpartition("=")
        if not equals or not pattern:
            raise UsageError(f"--group: '{text}' is not PATTERN=RATIO")
        ratios[pattern] = parse_share(share, "--group")
    return ratios


def check_outputs(outputs: Iterable[Path | None], *inputs: Path) -> None:
    """Refuse, before any work is done, files to write that cannot be written or would replace each other.

    Raises:
        UsageError: two of them are one file, or one is a folder or an input.
        ModelError: the folder of one does not exist or is not writable.
    """
    written: set[Path] = set()
    for output in outputs:
        if output is None:
            continue
        check_output(output, *inputs)
        if output.resolve() in written:
            raise UsageError(f"{output}: named for two outputs, which would replace each other; name another file")
        written.add(output.resolve())


def check_output(output: Path, *inputs: Path) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises:
        UsageError: it is a folder, or one of the inputs.
        ModelError: its folder does not exist or is not writable.
    """
    if output.is_dir():
        raise UsageError(f"{output}: the output is a folder; name a file in it")
    if output.exists() and not output.is_file():
        raise UsageError(f"{output}: the output is not a regular file; name another one")
    if any(output.exists() and source.exists() and output.samefile(source) for source in inputs):
        raise UsageError(f"{output}: the output is the input; name another file")
    if not output.parent.is_dir():
        raise ModelError(f"{output}: cannot be written, the folder {output.parent} does not exist")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise ModelError(f"{output}: cannot be written, the folder {output.parent} is not writable")

"""What a command is given to work on: an ONNX file, a ``.pt2`` file, or ``package.module:factory`` with its inputs."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from graphprune.errors import ModelError, UsageError

__all__ = ["AnyModel", "Given", "Input", "given"]

AnyModel = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="An ONNX file, a .pt2 file of torch.export.save, or package.module:factory of a PyTorch module.",
        show_default=False,
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME=]SHAPE[:TYPE]",
        help="Example input of a PyTorch module, once for each: 1x3x224x224, tokens=2x16:int64<1000.",
        show_default=False,
    ),
]

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_INPUT = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*|scalar)(?::(?P<type>\w+)(?:<(?P<below>\d+))?)?"
)


@dataclass(frozen=True)
class Given:
    """The model, and the example inputs of one that is not a file of ONNX."""

    model: Any
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    torch: bool = False


def given(model: Path, inputs: Sequence[str] | None, seed: int = 0) -> Given:
    """Open what ``MODEL`` names.

    Raises:
        UsageError: the name or an input does not make sense.
        ModelError: the module cannot be imported or made, or PyTorch is not installed.
    """
    name = str(model)
    exported = model.suffix == ".pt2"
    if not exported and (model.exists() or not _FACTORY.fullmatch(name)):
        if inputs:
            raise UsageError("--input is for PyTorch modules; the inputs of an ONNX model are in its file (see --dims)")
        return Given(model)
    _require_torch(name)
    args, kwargs = _examples(inputs or (), seed)
    if exported:
        from graphprune.frontends.torch_file import load_exported

        program = load_exported(model)
        return Given(program, args or None, kwargs, torch=True)
    if not args and not kwargs:
        raise UsageError(f"{name}: say what goes in, as --input 1x3x224x224")
    return Given(_made(name), args, kwargs, torch=True)


def _require_torch(name: str) -> None:
    try:
        importlib.import_module("torch")
    except ImportError:
        raise ModelError(f"{name}: PyTorch is not installed; pip install 'graphprune[torch]'") from None


def _made(name: str) -> Any:
    """The module that a factory makes, or that a name is."""
    import torch

    place, _, path = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        value: Any = importlib.import_module(place)
        for part in path.split("."):
            value = getattr(value, part)
        made = value if isinstance(value, torch.nn.Module) else value()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{name}: cannot be imported ({error}); write package.module:factory") from error
    except (Exception, SystemExit) as error:  # the user's code raises whatever it raises
        raise ModelError(f"{name}: the factory failed ({type(error).__name__}: {error})") from error
    if not isinstance(made, torch.nn.Module):
        raise UsageError(f"{name}: gives a {type(made).__name__}, not a torch.nn.Module")
    return made


def _examples(texts: Sequence[str], seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as spelled: those with a name are keyword arguments."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in texts:
        match = _INPUT.fullmatch(text)
        dtype = getattr(torch, match["type"] or "float32", None) if match else None
        if match is None or not isinstance(dtype, torch.dtype):
            raise UsageError(
                f"--input: '{text}' is not [NAME=]SHAPE[:TYPE[<BELOW]], such as 1x3x224x224 or 2x16:int64<1000"
            )
        shape = [] if match["shape"] == "scalar" else [int(size) for size in match["shape"].split("x")]
        if dtype.is_floating_point:
            tensor = torch.randn(shape, generator=generator).to(dtype)
        else:
            below = 2 if dtype is torch.bool else int(match["below"] or 2)
            tensor = torch.randint(below, shape, generator=generator).to(dtype)
        if match["name"]:
            kwargs[match["name"]] = tensor
        else:
            args.append(tensor)
    return tuple(args), kwargs

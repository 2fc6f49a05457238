"""Pruned modules as ONNX files, compared with what the module computes before the file gets its name."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphprune.errors import ModelError, VerificationError
from graphprune.frontends.torch_likeness import first_line

__all__ = ["to_onnx"]

TOLERANCE = 1e-3
"""Of the largest value of a result: kernels of ONNX Runtime sum in another order and fuse what eager does not."""


def to_onnx(
    module: Any,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    path: str | os.PathLike[str] = "model.onnx",
    dynamic_shapes: Any = None,
    *,
    check: bool = True,
) -> Path:
    """Export a module, or a program's graph, in evaluation mode, and return the path of the file.

    PyTorch's exporter that goes through ``torch.export`` is used, and the older one that traces where that fails; a
    warning then says so. The file is run by ONNX Runtime on the example inputs and compared with the module. A model
    of more than two gigabytes gets its weights in a file beside it.

    Raises:
        ModelError: neither exporter takes the module, ONNX Runtime does not take what one made of it, or the file
            cannot be written.
        VerificationError: the exported model computes something else.
    """
    if dynamic_shapes is None and args is None:
        dynamic_shapes = getattr(module, "dynamic_shapes", None)
    module, args, kwargs = _module(module, args, dict(kwargs or {}))
    target = Path(path)
    draft = target.with_name(f".{target.name}-{secrets.token_hex(6)}")
    training = module.training
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        module.eval()
        args, kwargs = _fitting(module, args, kwargs)
        _export(module, args, kwargs, draft / target.name, dynamic_shapes)
        if check:
            _check(module, args, kwargs, draft / target.name)
        for each in sorted(draft.iterdir(), key=lambda each: each.name == target.name):
            os.replace(each, target.with_name(each.name))
    except OSError as error:
        raise ModelError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        module.train(training)
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _module(given: Any, args: Any, kwargs: dict[str, Any]) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The module to export, and its example inputs."""
    from graphprune.frontends.torch_program import TorchProgram
    from graphprune.frontends.torch_pruned import PrunedModule

    if isinstance(given, TorchProgram):
        copied = given.clone()
        args, kwargs = (given.args, dict(given.kwargs)) if args is None else (args, kwargs)
        return PrunedModule.of(copied.module, None, given.training), tuple(args), kwargs
    return given, tuple(args or ()), kwargs


def _fitting(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs of the type of the weights, where the module does not run on those given: it may have been converted."""
    types = {each.dtype for each in module.parameters() if each.is_floating_point()}

    def is_other(value: object) -> bool:
        return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype not in types

    if len(types) != 1 or not any(map(is_other, pytree.tree_leaves((args, kwargs)))):
        return args, kwargs
    try:
        with torch.no_grad():
            module(*args, **kwargs)
    except RuntimeError:
        (dtype,) = types
        converted = pytree.tree_map(lambda each: each.to(dtype) if is_other(each) else each, (args, kwargs))
        return converted[0], converted[1]
    return args, kwargs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress and advice to themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _export(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: Path, shapes: Any) -> None:
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                module,
                args,
                str(path),
                kwargs=kwargs,
                dynamo=True,
                dynamic_shapes=shapes,
                external_data=_is_large(module),
            )
        return
    except ImportError:
        raise ModelError("exporting to ONNX needs onnxscript: pip install 'graphprune[torch]'") from None
    except OSError:
        raise
    except Exception as error:  # each stage of the exporter has exceptions of its own
        first = error
    if shapes is not None:
        raise ModelError(
            f"PyTorch cannot export {type(module).__name__} to ONNX ({_cause(first)}); "
            "dynamic_shapes=None exports it for the sizes of the example inputs"
        ) from first
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(module, (*args, kwargs) if kwargs else args, str(path), dynamo=False)
    except Exception as error:
        raise ModelError(
            f"neither exporter of PyTorch takes {type(module).__name__} to ONNX ({_cause(first)}; {first_line(error)})"
        ) from error
    warnings.warn(
        f"torch.onnx.export(dynamo=True) failed ({_cause(first)}); the tracing exporter was used", stacklevel=4
    )


def _cause(error: BaseException) -> str:
    """What lies behind an exporter's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _is_large(module: nn.Module) -> bool:
    tensors = [*module.parameters(), *module.buffers()]
    return bool(sum(each.numel() * each.element_size() for each in tensors) > 1_900_000_000)


def _check(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: Path) -> None:
    """Compare the exported model with the module on the example inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each of its errors is a class of its own
        raise _unable(error) from error
    given = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    inputs = session.get_inputs()
    if len(inputs) != len(given):
        given = given[: len(inputs)]  # inputs that nothing depends on are left out by the tracing exporter
    feeds = {each.name: _array(value) for each, value in zip(inputs, given, strict=True)}
    with torch.no_grad():
        expected = [each for each in pytree.tree_leaves(module(*args, **kwargs)) if isinstance(each, torch.Tensor)]
    try:
        results = session.run(None, feeds)
    except Exception as error:
        raise _unable(error) from error
    for index, (found, wanted) in enumerate(zip(results, expected, strict=False)):
        a, b = np.asarray(found, dtype=np.float64), _array(wanted).astype(np.float64)
        scale = float(np.abs(b).max(initial=0.0))
        gap = float(np.abs(a - b).max(initial=0.0)) if a.shape == b.shape else np.inf
        if not gap <= _tolerance(wanted) * max(scale, 1e-12):
            raise VerificationError(
                f"the exported ONNX model differs from the module by {gap:.3g} at result {index}, where the largest "
                f"value is {scale:.3g}: no file is kept"
            )


def _unable(error: BaseException) -> ModelError:
    return ModelError(
        f"ONNX Runtime cannot run the exported model ({first_line(error)}); "
        "convert the module with .float() first, or export it unchecked with check=False"
    )


def _tolerance(wanted: torch.Tensor) -> float:
    return max(TOLERANCE, 8 * torch.finfo(wanted.dtype).eps) if wanted.is_floating_point() else TOLERANCE


def _array(value: torch.Tensor) -> Any:
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()

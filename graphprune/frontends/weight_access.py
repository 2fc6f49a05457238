"""Weights of a host program by name, to read as numbers and to put others in their place.

What is changed is the program alone: copies of it, the file that it came from and the user's module keep theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.frontends.program import Host

__all__ = ["get_weight", "is_editable", "set_weight"]


def get_weight(host: Host, name: str) -> npt.NDArray[Any]:
    """A copy of the weight ``name``: float64 where it is stored so, otherwise float32.

    Raises:
        ModelError: there is no such weight, or it does not hold floating-point numbers.
    """
    if isinstance(host, ir.Model):
        tensor = _stored(host, name).const_value
        assert tensor is not None
        if not _is_float(tensor.dtype):
            raise _not_floating(name, tensor.dtype.name)
        array = np.array(tensor.numpy(), np.float64 if tensor.dtype == ir.DataType.DOUBLE else np.float32)
        if isinstance(tensor, ir.ExternalTensor):
            tensor.release()
        return array
    import torch

    value = _held(host, name).detach()
    wide = torch.float64 if value.dtype == torch.float64 else torch.float32
    return np.array(value.to("cpu", wide).numpy())


def set_weight(host: Host, name: str, array: npt.NDArray[Any]) -> None:
    """Let the weight ``name`` be ``array``, in the type that it is stored in; whatever shares it gets it too.

    The new tensor is in memory, also where the old one lies in a file. A PyTorch parameter stays one, on its device.

    Raises:
        ModelError: there is no such weight, its shape is another, or a number does not fit its type.
    """
    if isinstance(host, ir.Model):
        value = _stored(host, name)
        old = value.const_value
        assert old is not None
        if not _is_float(old.dtype):
            raise _not_floating(name, old.dtype.name)
        _check_shape(name, array, tuple(int(size) for size in old.shape))  # type: ignore[arg-type]
        with np.errstate(over="ignore"):
            narrow = np.ascontiguousarray(array).astype(old.dtype.numpy())
        _check_fits(name, array, narrow.astype(np.float64), old.dtype.name)
        value.const_value = ir.Tensor(narrow, old.dtype, name=name)
        return
    import torch

    from graphprune.frontends.torch_tensors import replace_tensors

    before = _held(host, name)
    _check_shape(name, array, tuple(before.shape))
    new = torch.from_numpy(np.array(array)).to(before.device, before.dtype)
    _check_fits(name, array, new.to("cpu", torch.float64).numpy(), str(before.dtype))
    parameter = isinstance(before, torch.nn.Parameter)
    replace_tensors(host.module, {name: torch.nn.Parameter(new, before.requires_grad) if parameter else new})


def is_editable(host: Host, name: str) -> bool:
    """Whether there is a weight ``name`` of floating-point numbers."""
    try:
        if isinstance(host, ir.Model):
            tensor = _stored(host, name).const_value
            return tensor is not None and _is_float(tensor.dtype)
        _held(host, name)
    except ModelError:
        return False
    return True


def _stored(model: ir.Model, name: str) -> ir.Value:
    for graph in model.graphs():
        value = graph.initializers.get(name)
        if value is not None and value.const_value is not None:
            return value
    raise ModelError(f"the model holds no weight '{name}'; read its structure again")


def _held(host: Any, name: str) -> Any:
    from graphprune.frontends.torch_tensors import resolve

    tensor = resolve(host.module, name)
    if tensor is None:
        raise ModelError(f"the module holds no weight '{name}'; read its structure again")
    if not tensor.is_floating_point():
        raise _not_floating(name, str(tensor.dtype))
    if tensor.is_meta:
        raise ModelError(f"parameter '{name}' is on the meta device and has no values; load the weights first")
    return tensor


def _is_float(dtype: ir.DataType) -> bool:
    return dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _not_floating(name: str, dtype: str) -> ModelError:
    return ModelError(f"weight '{name}' holds {dtype}, no floating-point numbers; leave its layer out of this pass")


def _check_shape(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ModelError(f"weight '{name}' has shape {shape}, not {array.shape}; read the structure again")


def _check_fits(name: str, array: npt.NDArray[Any], narrow: npt.NDArray[Any], dtype: str) -> None:
    if not np.isfinite(narrow).all():
        why = "does not fit" if np.isfinite(array).all() else "is not finite"
        raise ModelError(f"weight '{name}': a new value {why} into {dtype}; leave its layer out of this pass")

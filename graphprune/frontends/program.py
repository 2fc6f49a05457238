"""What the rest of graphprune needs of a host program: the protocol, and the program behind a host's own object."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, Union

import onnx_ir as ir

from graphprune.cost import Sizes
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_sizes import concrete_sizes
from graphprune.frontends.onnx_slice import slice_model
from graphprune.frontends.onnx_weights import weights_of
from graphprune.score.base import Weights
from graphprune.selection import Selection
from graphprune.structure import Structure

if TYPE_CHECKING:
    from graphprune.frontends.torch_program import TorchProgram

__all__ = ["Host", "OnnxProgram", "Program", "is_torch", "program_of"]

Host: TypeAlias = Union[ir.Model, "TorchProgram"]  # one of them is a name that torch alone can import
"""What passes change in place: a canonical ONNX model, or a PyTorch program."""


class Program(Protocol):
    """A program that can be read, scored, counted, cut and copied."""

    def read(self) -> Structure:
        """The axes of all tensors, and what each operator does with them."""
        ...

    def weights(self) -> Weights:
        """A reader of the parameters that the structure names."""
        ...

    def sizes(self, dims: Mapping[str, int] | None = None) -> Sizes:
        """Sizes of all tensors as numbers, for typical extents of symbolic dimensions."""
        ...

    def write(self, structure: Structure, selection: Selection) -> bool:
        """Remove in place what ``selection`` does not keep; tells whether anything went."""
        ...

    def clone(self) -> Host:
        """A copy of the host that can be cut while this one stays."""
        ...


@dataclass(frozen=True, slots=True)
class OnnxProgram:
    """An ONNX model that ``canonicalize`` has been over."""

    model: ir.Model

    def read(self) -> Structure:
        """See :class:`Program`."""
        return read(self.model)

    def weights(self) -> Weights:
        """See :class:`Program`."""
        return weights_of(self.model)

    def sizes(self, dims: Mapping[str, int] | None = None) -> Sizes:
        """See :class:`Program`."""
        return concrete_sizes(self.model, dims)

    def write(self, structure: Structure, selection: Selection) -> bool:
        """See :class:`Program`."""
        return slice_model(self.model, structure, selection)

    def clone(self) -> ir.Model:
        """See :class:`Program`."""
        return self.model.clone()


def program_of(host: Host) -> Program:
    """The program behind what a pass is given."""
    return OnnxProgram(host) if isinstance(host, ir.Model) else host


def is_torch(model: object) -> bool:
    """Whether ``model`` is PyTorch's: a module, an exported program, or what was captured of one."""
    if "torch" not in sys.modules:
        return False
    import torch

    from graphprune.frontends.torch_program import TorchProgram

    return isinstance(model, torch.nn.Module | torch.export.ExportedProgram | TorchProgram)

"""What runs through a PyTorch program on calibration inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from graphprune.calibration.steps import Feed, Values
from graphprune.calibration.torch_steps import arguments_of, array_of
from graphprune.frontends.torch_program import TorchProgram
from graphprune.proof.torch_run import leaves_of, run

__all__ = ["observable", "observed", "outputs"]


def observable(program: TorchProgram) -> frozenset[str]:
    """Names of the tensors that :func:`observed` can give: those of the outermost graph."""
    names: list[str] = []
    for node in program.module.graph.nodes:
        names.append(node.name)
        value = node.meta.get("val")
        if isinstance(value, list | tuple):
            names.extend(f"{node.name}.{index}" for index in range(len(value)))
    return frozenset(names)


def observed(program: TorchProgram, feeds: Sequence[Feed], names: Sequence[str]) -> Iterator[Values]:
    """For each batch the values of tensors by the names that the structure has for them."""
    nodes = {node.name: node for node in program.module.graph.nodes}
    wanted = {name: name if name in nodes else name.rpartition(".")[0] for name in names}
    shown = list(dict.fromkeys(wanted.values()))
    for feed in feeds:
        results = run(program.module, _leaves(program, feed), expose=shown)
        found = dict(zip(shown, results[len(results) - len(shown) :], strict=True))
        yield {
            name: array_of(found[own] if own == name else found[own][int(name.rpartition(".")[2])])
            for name, own in wanted.items()
        }


def outputs(program: TorchProgram, feeds: Sequence[Feed]) -> Iterator[list[np.ndarray[Any, Any]]]:
    """The tensors that a program gives, batch by batch."""
    for feed in feeds:
        results = run(program.module, _leaves(program, feed))
        yield [array_of(value) for value in results if isinstance(value, torch.Tensor)]


def _leaves(program: TorchProgram, feed: Feed) -> list[Any]:
    return leaves_of(program.module, *arguments_of(program, feed))

"""The loss that gradients are taken of: the user's, cross entropy with labels, or that of the program's own answers.

Without labels the program answers for itself: labels are drawn from what it predicts where its results are scores of
classes (two dimensions), and otherwise the targets are its results with noise of their own deviation. The squares of
such gradients are on average the Fisher information, so criteria of second order lose nothing by it; those of first
order learn how much each part has to do with the answers, right or wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.nn import functional
from torch.utils import _pytree as pytree

from graphprune.errors import UsageError

__all__ = ["Loss", "Losses", "apart", "floats"]

Loss: TypeAlias = Callable[[Any, Any], torch.Tensor]
"""From what the module returns and the targets of a batch (None where there are none) to the mean over samples, or to
one number for each."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss of each batch: ``given`` by the user or not, with ``batches`` of targets or without."""

    batches: Sequence[Any] | None = None
    given: Loss | None = None
    seed: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report should say."""
        if self.batches is not None or self.given is not None:
            return ()
        return ("no labels were given: gradients are those of the network's own predictions",)

    def targets(self, results: Any, number: int) -> Any:
        """The targets of batch ``number`` on the device of its results, drawn from them where there are none."""
        if self.batches is None:
            return None if self.given is not None else self._drawn(results, number)
        device = next((value.device for value in _tensors(results)), torch.device("cpu"))
        return pytree.tree_map(lambda value: _tensor(value, device), self.batches[number])

    def loss(self, results: Any, targets: Any, count: int) -> torch.Tensor:
        """The loss of ``count`` samples with what :meth:`targets` gave: the mean, or one number for each.

        Raises:
            UsageError: there is no loss for such results and targets.
        """
        if self.given is not None:
            return self.given(results, targets)
        values = floats(results)
        if not values:
            raise UsageError("no result holds floating-point numbers, so there is no gradient of it")
        if self.batches is not None:
            return _cross_entropy(values[0], targets)
        total = values[0].new_zeros(())
        for value, (drawn, deviation) in zip(values, targets, strict=True):
            if drawn.is_floating_point():
                total = total + ((value - drawn) / deviation).square().sum() / 2
            else:
                total = total + functional.cross_entropy(value, drawn, reduction="sum")
        return total / count

    def _drawn(self, results: Any, number: int) -> list[tuple[torch.Tensor, float]]:
        """For each floating-point result what it is compared with, and the deviation that a difference counts in."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        found: list[tuple[torch.Tensor, float]] = []
        for value in floats(results):
            own = value.detach().float().cpu()
            if own.ndim == 2 and own.shape[1] > 1:
                drawn = torch.multinomial(own.softmax(1), 1, generator=generator)[:, 0]
                found.append((drawn.to(value.device), 1.0))
            else:
                deviation = float(own.std(correction=0)) or float(own.abs().mean()) or 1.0
                drawn = own + deviation * torch.randn(own.shape, generator=generator)
                found.append((drawn.to(value.device), deviation))
        return found


def apart(results: Any, targets: Any, count: int) -> list[tuple[Any, Any]]:
    """Results and targets of each sample of a batch, as those of batches of one.

    Raises:
        UsageError: a tensor does not have one part for each.
    """
    if count == 1:
        return [(results, targets)]
    wrong = next((value for value in _tensors((results, targets)) if value.shape[:1] != (count,)), None)
    if wrong is not None:
        raise UsageError(
            f"a result or target of shape {tuple(wrong.shape)} has no part for each of {count} samples: "
            "give batches of one sample"
        )
    return [
        pytree.tree_map_only(torch.Tensor, lambda value, at=index: value[at : at + 1], (results, targets))
        for index in range(count)
    ]


def floats(results: Any) -> list[torch.Tensor]:
    """The floating-point tensors of a result, nested ones in order."""
    return [value for value in _tensors(results) if value.is_floating_point()]


def _cross_entropy(value: torch.Tensor, targets: Any) -> torch.Tensor:
    """The mean over labels; classes are the second dimension, as PyTorch has it, or the last one."""
    if not isinstance(targets, torch.Tensor) or targets.is_floating_point() or targets.is_complex():
        raise UsageError(
            "targets are not one tensor of integer labels: give a loss, as loss=torch.nn.functional.mse_loss"
        )
    if targets.ndim == value.ndim and value.shape[:-1] == targets.shape[:-1] and targets.shape[-1] == 1:
        targets = targets[..., 0]
    if targets.shape == (*value.shape[:1], *value.shape[2:]):
        return functional.cross_entropy(value, targets.long())
    if targets.shape == value.shape[:-1]:
        return functional.cross_entropy(value.reshape(-1, value.shape[-1]), targets.reshape(-1).long())
    raise UsageError(
        f"labels of shape {tuple(targets.shape)} do not fit results of shape {tuple(value.shape)}: give a loss"
    )


def _tensor(value: Any, device: torch.device) -> Any:
    if hasattr(value, "__array__") and not isinstance(value, torch.Tensor):
        value = torch.as_tensor(value)
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]

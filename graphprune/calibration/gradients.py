"""Gradients of a loss on calibration batches, one batch in memory at a time; for PyTorch programs.

The program is never changed: its weights are handed in, in single precision at least, and whatever it writes to is a
copy. It runs in the mode it was captured in, except that nothing is dropped at random. Parameters that do not require
gradients get them all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, TypeAlias

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from graphprune.calibration.observe import Calibration
from graphprune.calibration.steps import Feed
from graphprune.calibration.torch_losses import Loss, Losses, apart, floats
from graphprune.calibration.torch_steps import arguments_of
from graphprune.calibration.torch_tape import Tap, Tape, weights_of
from graphprune.cost import Sizes
from graphprune.errors import ModelError, UsageError
from graphprune.frontends.torch_program import TorchProgram, named_values
from graphprune.proof.torch_graphs import copied, evaluated, has_half, widened
from graphprune.proof.torch_run import leaves_of, seeded

__all__ = ["Gradients", "Taken", "Tensors"]

Tensors: TypeAlias = dict[str, torch.Tensor]
"""Tensors by the names of parameters."""

Taken: TypeAlias = dict[Tap, tuple[torch.Tensor, torch.Tensor]]
"""Values, and the gradients with respect to them."""

_STEP = 1e-3
"""How far weights move for a difference of gradients, relative to their root mean square."""


class Gradients:
    """The derivatives of a loss at the present weights of a program.

    ``feeds`` are batches of inputs, ``targets`` what the loss compares the results with, a batch each. ``notes`` says
    what a report has to, ``progress`` is told as batches pass. Where labels are drawn, the same seed draws the same.

    Raises:
        UsageError: there are no batches, or not as many targets.
        ModelError: weights are on the meta device.
    """

    def __init__(
        self,
        program: TorchProgram,
        feeds: Sequence[Feed],
        targets: Sequence[Any] | None = None,
        loss: Loss | None = None,
        *,
        seed: int = 0,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        if not feeds:
            raise UsageError("gradients need calibration inputs, and there is no batch of them")
        if targets is not None and len(targets) != len(feeds):
            raise UsageError(f"{len(feeds)} batches of inputs come with {len(targets)} batches of targets; pair them")
        self._program, self._feeds, self._losses = program, list(feeds), Losses(targets, loss, seed)
        self._seed, self._progress = seed, progress
        self._module = evaluated(copied(program.module))
        if has_half(self._module, pytree.tree_leaves((program.args, dict(program.kwargs)))):
            widened(self._module, torch.float32)
        self.parameters: Tensors = weights_of(self._module)
        meta = next((name for name, weight in self.parameters.items() if weight.is_meta), None)
        if meta is not None:
            raise ModelError(f"parameter '{meta}' is on the meta device and has no values; load the weights first")

    @classmethod
    def of(
        cls,
        calibration: Calibration,
        loss: Loss | None = None,
        *,
        seed: int = 0,
        progress: Callable[[str], None] | None = None,
    ) -> Gradients:
        """Gradients on the batches of a calibration, with its targets if it has any.

        Raises:
            UsageError: its host is an ONNX model.
        """
        if not isinstance(calibration.host, TorchProgram):
            raise UsageError("an ONNX model has no gradients: prune the PyTorch module that it was exported from")
        return cls(calibration.host, calibration.feeds, calibration.targets, loss, seed=seed, progress=progress)

    def __len__(self) -> int:
        return len(self._feeds)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report should say about the loss."""
        return self._losses.notes

    @cached_property
    def observable(self) -> frozenset[str]:
        """Names of the tensors that :meth:`activations` can give: floating-point ones of the outermost graph."""
        return frozenset(
            name
            for node in self._module.graph.nodes
            for name, value in named_values(node.name, node.meta.get("val"))
            if value.is_floating_point()
        )

    @property
    def inputs(self) -> list[str]:
        """Names of the tensors that a batch consists of; the first dimension of the first one counts samples."""
        nodes = [node for node in self._module.graph.nodes if node.op == "placeholder"]
        return [node.name for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)]

    def sizes(self) -> Sizes:
        """Sizes of the program's tensors, those of its example inputs where they are symbolic."""
        return self._program.sizes()

    # -- first order ----------------------------------------------------------------------------------------------

    def weights(self) -> Iterator[Tensors]:
        """For each batch the gradient of its mean loss, by parameter; zeros where a parameter has no part in it."""
        for number in self._batches():
            with torch.enable_grad():  # never while a caller has the turn
                weights = self._leaves()
                found = _differentiated(self._mean_loss(number, weights), weights)
            yield found

    def mean(self) -> Tensors:
        """The gradient of the loss over all batches, each weighing the same."""
        total: Tensors = {name: torch.zeros_like(weight) for name, weight in self.parameters.items()}
        for batch in self.weights():
            for name, grad in batch.items():
                total[name] += grad / len(self)
        return total

    def samples(self) -> Iterator[Tensors]:
        """For each sample of each batch the gradient of its own loss, by parameter.

        Samples are run one by one where the batch may have any size. Otherwise a batch is run forwards once, and
        backwards as a whole for each sample.

        Raises:
            UsageError: the results cannot be told apart by sample.
        """
        for number in self._batches():
            weights = self._leaves()
            with torch.enable_grad():
                leaves = self._inputs(number)
                results = self._results(leaves, weights)
                targets = self._losses.targets(results, number)
                pairs = apart(results, targets, _count(leaves))
                singles = self._singles(leaves, results) if len(pairs) > 1 else None
                if singles is None:
                    losses = [self._checked(self._losses.loss(own, aim, 1).mean(), number) for own, aim in pairs]
            if singles is None:
                while losses:
                    yield _differentiated(losses.pop(0), weights, again=bool(losses))
                continue
            del results
            for (_, aim), single in zip(pairs, singles, strict=True):
                with torch.enable_grad():
                    loss = self._checked(self._losses.loss(self._results(single, weights), aim, 1).mean(), number)
                    found = _differentiated(loss, weights)
                yield found

    def activations(self, taps: Sequence[Tap]) -> Iterator[Taken]:
        """For each batch the values at ``taps`` and the gradients of the samples' losses, summed, with respect to them.

        A tap is a tensor by its name in the structure and the node that reads it: the gradient is then of what passes
        through that node alone. ``(name, "")`` is the tensor itself. Where samples do not see each other, the part of
        a gradient that belongs to a sample is the gradient of its own loss. Taps at tensors that the run does not
        pass, or that hold no floating-point numbers, are left out.
        """
        for number in self._batches():
            with torch.enable_grad():
                found = self._activations(number, taps)
            yield found

    def _singles(self, leaves: list[Any], results: Any) -> list[list[Any]] | None:
        """The samples of a batch as batches of one; None where the program may not compute the same of them."""
        count = _count(leaves)
        nodes = [node for node in self._module.graph.nodes if node.op == "placeholder"]
        batched: list[bool] = []
        for node, leaf in zip(nodes, leaves, strict=True):
            batched.append(isinstance(leaf, torch.Tensor) and leaf.shape[:1] == (count,))
            if batched[-1] and isinstance(node.meta["val"].shape[0], int):
                return None
        singles = [
            [leaf[index : index + 1] if own else leaf for leaf, own in zip(leaves, batched, strict=True)]
            for index in range(count)
        ]
        with torch.no_grad():
            try:
                alone = self._results(singles[0], self.parameters)
            except RuntimeError:  # it takes other numbers of samples, but not one
                return None
        for whole, own in zip(floats(results), floats(alone), strict=True):
            if own.shape != whole[:1].shape or not torch.allclose(own, whole[:1], rtol=1e-2, atol=1e-4):
                return None  # samples see each other
        return singles

    def _activations(self, number: int, taps: Sequence[Tap]) -> Taken:
        tape = Tape(self._module, self.parameters, taps)
        results, count = self._run(number, self.parameters, tape)
        if not tape.taken:
            return {}
        loss = self._checked(self._losses.loss(results, self._losses.targets(results, number), count).mean(), number)
        found = torch.autograd.grad(loss * count, list(tape.taken.values()), allow_unused=True)
        return {
            tap: (value.detach(), torch.zeros_like(value) if grad is None else grad)
            for (tap, value), grad in zip(tape.taken.items(), found, strict=True)
        }

    # -- second order ---------------------------------------------------------------------------------------------

    def products(self, direction: Callable[[int], Tensors]) -> Iterator[Tensors]:
        """For each batch the product of the Hessian of its mean loss and ``direction(number of the batch)``.

        By differentiating twice; where an operator has no second derivative, by the central difference of gradients.
        """
        for number in self._batches():
            vector = direction(number)
            with torch.enable_grad():
                found = self._product(number, vector)
                if found is None:
                    found = self._difference(number, vector)
            yield found

    def diagonals(self, probes: int) -> Iterator[Tensors]:
        """For each batch and each of ``probes`` random signs v the elements of ``v * (Hv)``.

        Their mean is the diagonal of the Hessian (Hutchinson 1989); the same seed draws the same signs.
        """
        for probe in range(probes):
            signs = partial(self._signs, probe * len(self))
            for number, product in enumerate(self.products(signs)):
                vector = signs(number)
                yield {name: vector[name] * value for name, value in product.items()}

    def _signs(self, first: int, number: int) -> Tensors:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + first + number)
        return {
            name: (2.0 * torch.randint(0, 2, weight.shape, generator=generator) - 1).to(weight)
            for name, weight in self.parameters.items()
        }

    def _product(self, number: int, vector: Tensors) -> Tensors | None:
        """By differentiating twice; None where that cannot be done."""
        weights = self._leaves()
        with sdpa_kernel(SDPBackend.MATH):  # the other kernels have no second derivative
            loss = self._mean_loss(number, weights)
            first = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
            along = [
                (grad * vector[name]).sum()
                for name, grad in zip(weights, first, strict=True)
                if grad is not None and grad.requires_grad
            ]
            if not along:  # the loss is linear in all weights
                return {name: torch.zeros_like(weight) for name, weight in weights.items()}
            try:
                return _differentiated(torch.stack(along).sum(), weights)
            except (RuntimeError, NotImplementedError) as error:
                if "not implemented" in str(error) or "deriv" in str(error) or "double backward" in str(error):
                    return None
                raise

    def _difference(self, number: int, vector: Tensors) -> Tensors:
        size = _root_mean_square(vector)
        step = _STEP * (_root_mean_square(self.parameters) or 1.0) / (size or 1.0)
        with torch.no_grad():
            results, _ = self._run(number, self.parameters)
        targets = self._losses.targets(results, number)  # the same on both sides, where they are drawn
        sides: list[Tensors] = []
        for sign in (1, -1):
            moved = {
                name: (weight + sign * step * vector[name]).requires_grad_() for name, weight in self.parameters.items()
            }
            results, count = self._run(number, moved)
            loss = self._checked(self._losses.loss(results, targets, count).mean(), number)
            sides.append(_differentiated(loss, moved))
        return {name: (sides[0][name] - sides[1][name]) / (2 * step) for name in self.parameters}

    # -- runs -----------------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[int]:
        for number in range(len(self._feeds)):
            if self._progress is not None:
                self._progress(f"gradients: batch {number + 1} of {len(self._feeds)}")
            yield number

    def _leaves(self) -> Tensors:
        return {name: weight.detach().requires_grad_() for name, weight in self.parameters.items()}

    def _inputs(self, number: int) -> list[Any]:
        """A batch as the graph takes it."""
        return leaves_of(self._module, *arguments_of(self._program, self._feeds[number]))

    def _results(self, leaves: list[Any], weights: Tensors, tape: Tape | None = None) -> Any:
        """What the module returns for inputs; random operators draw the same each time."""
        device = next((value.device for value in leaves if isinstance(value, torch.Tensor)), None)
        with seeded(self._seed, device):
            return (Tape(self._module, weights) if tape is None else tape).results(leaves)

    def _run(self, number: int, weights: Tensors, tape: Tape | None = None) -> tuple[Any, int]:
        """What the module returns for a batch, and how many samples that has."""
        leaves = self._inputs(number)
        return self._results(leaves, weights, tape), _count(leaves)

    def _mean_loss(self, number: int, weights: Tensors) -> torch.Tensor:
        results, count = self._run(number, weights)
        return self._checked(self._losses.loss(results, self._losses.targets(results, number), count).mean(), number)

    def _checked(self, loss: torch.Tensor, number: int) -> torch.Tensor:
        """A loss that is a number and has a gradient."""
        if not bool(loss.isfinite()):
            raise UsageError(f"the loss of batch {number + 1} is {loss.item()}: check its inputs, targets and loss")
        if not loss.requires_grad:
            raise UsageError("the loss does not depend on any weight: give one that compares the module's results")
        return loss


def _count(leaves: Sequence[Any]) -> int:
    """How many samples there are in a batch: the first extent of the first input."""
    first = next((value for value in leaves if isinstance(value, torch.Tensor)), None)
    return 1 if first is None or first.ndim == 0 else int(first.shape[0])


def _differentiated(loss: torch.Tensor, weights: Tensors, again: bool = False) -> Tensors:
    """The gradient with respect to all weights, zeros where one has no part in it; ``again``: not for the last time."""
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, retain_graph=again)
    pairs = zip(weights.items(), found, strict=True)
    return {name: torch.zeros_like(weight) if grad is None else grad for (name, weight), grad in pairs}


def _root_mean_square(tensors: Mapping[str, torch.Tensor]) -> float:
    count = sum(value.numel() for value in tensors.values())
    return float((sum(float(value.square().sum()) for value in tensors.values()) / max(count, 1)) ** 0.5)

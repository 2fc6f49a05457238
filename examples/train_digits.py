"""Train the network that ships with graphprune, and write ``models/data/digits.onnx`` and ``digits_test.npz``.

A residual CNN with squeeze-and-excitation and a concatenation of two branches, on scikit-learn's 8x8 digits; the test
set is a stratified third that training never sees. A group lasso on what is cut together makes channels that the task
does not need small, as one would before pruning. Under a minute on two cores::

    pip install -e '.[torch]' scikit-learn
    python examples/train_digits.py
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

TRACE = 1e-12
DATA = Path(__file__).resolve().parent.parent / "models" / "data"


class Unit(nn.Sequential):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class Residual(nn.Module):
    """A bottleneck with squeeze-and-excitation, added to its input."""

    def __init__(self, channels: int, hidden: int, squeezed: int) -> None:
        super().__init__()
        self.expand = Unit(channels, hidden)
        self.project = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.project(self.expand(x)))
        gate = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(y, 1)))
        return functional.relu(x + y * torch.sigmoid(self.excite(gate)))


class Branches(nn.Module):
    """A 1x1 and a 3x3 branch side by side, concatenated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow = Unit(inputs, outputs // 2, kernel=1)
        self.wide = Unit(inputs, outputs // 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.narrow(x), self.wide(x)], dim=1)


class Digits(nn.Sequential):
    """Logits of the ten digits from images of shape (n, 1, 8, 8) with pixels in [0, 1]."""

    def __init__(self) -> None:
        super().__init__(
            Unit(1, 24),
            Residual(24, 40, 8),
            Branches(24, 48),
            Unit(48, 40, stride=2),
            Residual(40, 48, 8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(40, 10),
        )


def coupled(model: Digits) -> list[list[tuple[Tensor, int]]]:
    """The parameter slices that stand or fall together: one list a group, each entry a tensor and its dimension."""
    stem, first, branches, down, second, *_, head = model
    half = branches.narrow[0].out_channels
    streams = [
        [*_outputs(stem[0], stem[1]), *_residual(first), *((unit[0].weight, 1) for unit in branches.children())],
        [*_outputs(down[0], down[1]), *_residual(second), (head.weight, 1)],
    ]
    hidden = [[*_outputs(block.expand[0], block.expand[1]), (block.project.weight, 1)] for block in (first, second)]
    squeezed = [[*_outputs(block.squeeze), (block.excite.weight, 1)] for block in (first, second)]
    parts = [
        [*_outputs(branches.narrow[0], branches.narrow[1]), (down[0].weight[:, :half], 1)],
        [*_outputs(branches.wide[0], branches.wide[1]), (down[0].weight[:, half:], 1)],
    ]
    return [*streams, *hidden, *squeezed, *parts]


def _outputs(*modules: nn.Module) -> list[tuple[Tensor, int]]:
    return [(parameter, 0) for module in modules for parameter in module.parameters()]


def _residual(block: Residual) -> list[tuple[Tensor, int]]:
    inputs = [(block.expand[0].weight, 1), (block.squeeze.weight, 1)]
    return [*_outputs(block.project, block.norm, block.excite), *inputs]


def group_lasso(model: Digits) -> Tensor:
    """The sum over all channels of the norm of everything that goes with the channel (Wen et al. 2016)."""
    total = torch.zeros(())
    for slices in coupled(model):
        squares = [tensor.transpose(0, dim).flatten(1).square().sum(1) for tensor, dim in slices if tensor.dim() > 1]
        squares += [tensor.square() for tensor, dim in slices if tensor.dim() == 1]
        width = sum(tensor.numel() // tensor.shape[dim] for tensor, dim in slices)
        total = total + width**0.5 * (torch.stack(squares).sum(0) + 1e-12).sqrt().sum()
    return total


def shifted(images: Tensor) -> Tensor:
    """Every image moved by at most one pixel in each direction, the border filled with zeros."""
    n, _, height, width = images.shape
    padded = functional.pad(images, (1, 1, 1, 1))
    rows = torch.randint(3, (n, 1)) + torch.arange(height)
    columns = torch.randint(3, (n, 1)) + torch.arange(width)
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def train(images: Tensor, labels: Tensor, epochs: int, lasso: float) -> Digits:
    """The trained network, in evaluation mode."""
    model = Digits()
    batch = 64
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for epoch in range(epochs):
        order = torch.randperm(len(images))
        for start in range(0, len(order) - batch + 1, batch):
            chosen = order[start : start + batch]
            loss = functional.cross_entropy(model(shifted(images[chosen])), labels[chosen], label_smoothing=0.05)
            loss = loss + lasso * group_lasso(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    return model.eval()


def without_traces(model: Digits) -> None:
    """Set to zero what the group lasso left of dead channels: numbers below 1e-12.

    Their products are subnormal, which a processor computes many times slower, and no output shows them.
    """
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor[tensor.abs() < TRACE] = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DATA, help="folder to write to")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--lasso", type=float, default=2e-3, help="weight of the group lasso")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    torch.manual_seed(arguments.seed)

    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=600, stratify=labels, random_state=arguments.seed
    )
    model = train(torch.from_numpy(train_images), torch.from_numpy(train_labels), arguments.epochs, arguments.lasso)
    without_traces(model)
    with torch.no_grad():
        correct = (model(torch.from_numpy(test_images)).argmax(1).numpy() == test_labels).mean()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters} parameters, test accuracy {correct:.2%}")

    arguments.output.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.output / "digits_test.npz", images=test_images, labels=test_labels)
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, 8, 8),),
        arguments.output / "digits.onnx",
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "n"}, "logits": {0: "n"}},
        opset_version=17,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,  # keeps BatchNorm as a node of its own
        dynamo=False,
    )


if __name__ == "__main__":
    main()

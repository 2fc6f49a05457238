"""The task of the other examples: scikit-learn's handwritten digits, and a small residual CNN for them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

EXAMPLE = (torch.zeros(2, 1, 8, 8),)
"""Example inputs of :class:`Net`."""


class Block(nn.Module):
    """Two convolutions beside their input."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.project_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.expand_norm(self.expand(x)))
        return functional.relu(x + self.project_norm(self.project(y)))


class Net(nn.Module):
    """Logits of the ten digits from images of shape (n, 1, 8, 8) with pixels in [0, 1]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.first = Block(width, 2 * width)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.second = Block(2 * width, 2 * width)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(functional.relu(self.stem(x)))
        x = self.second(functional.relu(self.down(x)))
        return self.head(self.dropout(functional.adaptive_avg_pool2d(x, 1).flatten(1)))


def digits(seed: int = 0) -> tuple[TensorDataset, TensorDataset]:
    """Images and labels to train on (1197) and to test on (600, stratified)."""
    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)
    split = train_test_split(
        images, data.target.astype(np.int64), test_size=600, stratify=data.target, random_state=seed
    )
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, split)
    return TensorDataset(train_images, train_labels), TensorDataset(test_images, test_labels)


def batches(data: TensorDataset, steps: int, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """``steps`` batches of images and labels, each epoch in a new order."""

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            for chosen in torch.randperm(len(data)).split(size)[: len(data) // size]:
                images, labels = data[chosen]
                yield images, labels

    return islice(endless(), steps)


@torch.no_grad()
def accuracy(model: nn.Module, data: TensorDataset) -> float:
    """The share of ``data`` that the module classifies right in evaluation mode, in which it stays."""
    images, labels = data.tensors
    return (model.eval()(images).argmax(1) == labels).float().mean().item()

"""A sequence tagger with bidirectional LSTM layers."""

from __future__ import annotations

import torch
from torch import nn

from graphprune.models.torch_reference.blocks import seeded
from graphprune.models.torch_reference.cnn import Example

__all__ = ["lstm_tagger", "tokens"]


def tokens(vocabulary: int, seed: int, length: int = 7) -> torch.Tensor:
    """Two random sequences of token numbers."""
    return torch.randint(0, vocabulary, (2, length), generator=torch.Generator().manual_seed(seed))


class Tagger(nn.Module):
    """An embedding, bidirectional LSTM layers, and a linear layer for each token's tag."""

    def __init__(self, vocabulary: int, width: int, depth: int, tags: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, depth, bidirectional=True)
        self.tags = nn.Linear(2 * width, tags)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[n, t] -> [n, t, tags]."""
        y, _ = self.lstm(self.embed(ids).transpose(0, 1))
        return self.tags(y.transpose(0, 1))


def lstm_tagger(
    *, tiny: bool = False, width: int | None = None, depth: int = 2, tags: int = 17, seed: int = 0
) -> Example:
    """An LSTM tagger."""
    vocabulary = 50 if tiny else 10000
    module = Tagger(vocabulary, width or (8 if tiny else 256), depth, tags)
    return seeded(module, seed), (tokens(vocabulary, seed),)

"""Accelerate: growing regularization in an ordinary loop, whatever devices it runs on.

Half of each group is picked at the start, pressed to zero by a penalty that grows, and cut then.

::

    pip install -e '.[examples]'
    python examples/accelerate_loop.py
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from digits_task import EXAMPLE, Net, accuracy, batches, digits
from torch import Tensor, nn
from torch.nn import functional

import graphprune
from graphprune.training import Growth, groups_of, growing_penalty, weakest


def main(steps: int = 300, ratio: float = 0.5) -> float:
    """Train, then tune for ``steps`` while the penalty grows, prune and tune; returns the accuracy at the end."""
    set_seed(0)
    accelerator = Accelerator(cpu=True)
    train_data, test_data = digits()

    def train(model: nn.Module, growth: Growth | None = None) -> nn.Module:
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        model, optimizer = accelerator.prepare(model.train(), optimizer)
        for images, labels in batches(train_data, steps):
            loss: Tensor = functional.cross_entropy(model(images.to(accelerator.device)), labels.to(accelerator.device))
            if growth is not None:
                loss = loss + growing_penalty(groups, model, growth)  # looks through the wrapper of prepare
                growth.step()
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        return accelerator.unwrap_model(model)

    dense = train(Net())
    groups = groups_of(dense, EXAMPLE)
    growth = Growth(weakest(groups, dense, ratio), rate=0.5 / steps, every=1)
    dense = train(dense, growth)
    print(f"dense, half of it pressed to zero: {accuracy(dense, test_data):.2%}")
    result = graphprune.prune(dense, EXAMPLE, ratio=ratio, criterion="l2")
    print(f"pruned: {accuracy(result.module, test_data):.2%}")
    tuned = accuracy(train(result.module), test_data)
    print(f"pruned and tuned: {tuned:.2%} with {result.params.after:,} of {result.params.before:,} parameters")
    return tuned


if __name__ == "__main__":
    main()

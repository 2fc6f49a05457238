"""Train a network, prune it, tune it with its dense self as the teacher, and export it to ONNX and safetensors.

Beside the slim network the dense one gets the same tuning: without that control, what tuning alone does would count as
a merit of pruning. Under a minute on one core::

    pip install -e '.[examples]'
    python examples/prune_and_tune.py
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import torch
from digits_task import EXAMPLE, Net, accuracy, batches, digits
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import graphprune
from graphprune.training import Teacher, distillation_loss, group_lasso, groups_of

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def train(name: str, model: nn.Module, data: TensorDataset, loss_of: Loss, steps: int, progress: Progress) -> None:
    """Train ``model`` in place with AdamW and a one-cycle schedule."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    model.train()
    for images, labels in progress.track(batches(data, steps), total=steps, description=name):
        loss = loss_of(model, images, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def main(steps: int = 300, ratio: float = 0.5, output: Path = Path("slim"), seed: int = 0) -> dict[str, float]:
    """Train for ``steps``, prune, tune for as many; returns the accuracies in percent."""
    torch.manual_seed(seed)
    console = Console()
    train_data, test_data = digits(seed)
    dense = Net()
    groups = groups_of(dense, EXAMPLE)
    with Progress(console=console) as progress:
        # A group lasso while training moves what the task needs into few channels.
        train(
            "train dense",
            dense,
            train_data,
            lambda model, images, labels: (
                functional.cross_entropy(model(images), labels) + group_lasso(groups, model, 2e-4)
            ),
            steps,
            progress,
        )
        found = {"dense": 100 * accuracy(dense, test_data)}

        result = graphprune.prune(dense, EXAMPLE, ratio=ratio)
        found["pruned"] = 100 * accuracy(result.module, test_data)

        with Teacher(copy.deepcopy(dense)) as teacher:

            def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
                logits = model(images)
                return functional.cross_entropy(logits, labels) + distillation_loss(logits, teacher(images))

            torch.manual_seed(seed)
            train("tune slim", result.module, train_data, loss_of, steps, progress)
            found["pruned, tuned"] = 100 * accuracy(result.module, test_data)
            torch.manual_seed(seed)
            train("tune dense (control)", dense, train_data, loss_of, steps, progress)
            found["dense, tuned (control)"] = 100 * accuracy(dense, test_data)

    table = Table("network", "parameters", "MACs", "accuracy %")
    for name, percent in found.items():
        slim = name.startswith("pruned")
        params, macs = (figure.after if slim else figure.before for figure in (result.params, result.macs))
        table.add_row(name, f"{params:,}", f"{macs:,}", f"{percent:.2f}")
    console.print(table)

    result.save(output)
    path = result.to_onnx(output / "slim.onnx")
    console.print(f"written: {path}, and weights and plan for graphprune.load beside it")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="training steps, and as many of tuning")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of channels to remove")
    parser.add_argument("--output", type=Path, default=Path("slim"), help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))

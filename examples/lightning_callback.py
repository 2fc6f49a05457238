"""Lightning: a callback shrinks groups after every optimizer step; the slim network is tuned by another fit.

::

    pip install -e '.[examples]'
    python examples/lightning_callback.py
"""

from __future__ import annotations

import lightning
import torch
from digits_task import EXAMPLE, Net, accuracy, digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

import graphprune
from graphprune.training import TrainingGroups, groups_of, proximal_step


class Classifier(lightning.LightningModule):
    """Any network that makes logits of images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


class ShrinkGroups(lightning.Callback):
    """The group lasso as a proximal step: channels that the loss does not hold on to become exactly zero."""

    def __init__(self, example: tuple[Tensor, ...], strength: float = 3e-4) -> None:
        self.example, self.strength = example, strength
        self.groups: TrainingGroups | None = None

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        example = tuple(each.to(module.device) for each in self.example)
        self.groups = groups_of(module.network, example)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, *ignored: object
    ) -> None:
        assert self.groups is not None
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        proximal_step(self.groups, module.network, rate * self.strength)


def fit(network: nn.Module, loader: DataLoader, steps: int, *callbacks: lightning.Callback) -> None:
    """Train a network in place for some steps."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(network.train()), loader)


def main(steps: int = 300, ratio: float = 0.5) -> float:
    """Train, prune and tune, ``steps`` each; returns the accuracy of the slim network."""
    lightning.seed_everything(0, verbose=False)
    train_data, test_data = digits()
    loader = DataLoader(train_data, batch_size=64, shuffle=True, drop_last=True)
    dense = Net()
    fit(dense, loader, steps, ShrinkGroups(EXAMPLE))
    print(f"dense: {accuracy(dense, test_data):.2%}")
    result = graphprune.prune(dense.cpu(), EXAMPLE, ratio=ratio)
    fit(result.module, loader, steps)
    tuned = accuracy(result.module, test_data)
    print(f"pruned and tuned: {tuned:.2%} with {result.params.after:,} of {result.params.before:,} parameters")
    return tuned


if __name__ == "__main__":
    main()

"""Hugging Face Trainer: a group lasso in ``compute_loss``, then heads and neurons of a small BERT are pruned and tuned.

The task is made up: which of two markers occurs in a sequence of random tokens.

::

    pip install -e '.[examples]'
    python examples/hf_trainer.py
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import graphprune
from graphprune.training import TrainingGroups, group_lasso, groups_of

LENGTH, VOCABULARY = 16, 64


class Markers(Dataset):
    """Random tokens of which one is 0 or 1; the label says which."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(2, VOCABULARY, (count, LENGTH), generator=generator)
        self.labels = torch.randint(2, (count,), generator=generator)
        places = torch.randint(LENGTH, (count,), generator=generator)
        self.tokens[torch.arange(count), places] = self.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.labels[index]}


class PruningTrainer(Trainer):
    """A trainer that adds the group lasso of ``groups`` to the loss.

    The loss is made from logits here, since the slim network is given what it was exported with: no labels.
    """

    def __init__(self, *args: Any, groups: TrainingGroups | None = None, strength: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups, self.strength = groups, strength

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        outputs = model(input_ids=inputs["input_ids"])
        loss = functional.cross_entropy(outputs.logits, inputs["labels"])
        if self.groups is not None:
            loss = loss + group_lasso(self.groups, model, self.strength)
        return (loss, outputs) if return_outputs else loss


def fit(model: nn.Module, data: Dataset, steps: int, groups: TrainingGroups | None = None) -> None:
    """Train a module in place."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            learning_rate=1e-3,
            per_device_train_batch_size=32,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        PruningTrainer(model, arguments, train_dataset=data, groups=groups).train()


@torch.no_grad()
def accuracy(model: nn.Module, data: Markers) -> float:
    """The share of ``data`` that the module gets right."""
    return (model.eval()(input_ids=data.tokens).logits.argmax(-1) == data.labels).float().mean().item()


def main(steps: int = 300, ratio: float = 0.5) -> float:
    """Train, prune and tune, ``steps`` each; returns the accuracy of the slim network."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=LENGTH,
        )
    )
    data, held_out = Markers(4096, seed=0), Markers(512, seed=1)
    example = {"input_ids": data.tokens[:2]}
    fit(model, data, steps, groups_of(model, (), example))
    print(f"dense: {accuracy(model, held_out):.2%}")
    result = graphprune.prune(model, (), example, ratio=ratio)
    print(f"pruned: {accuracy(result.module, held_out):.2%}")
    fit(result.module, data, steps)
    tuned = accuracy(result.module, held_out)
    print(f"pruned and tuned: {tuned:.2%} with {result.params.after:,} of {result.params.before:,} parameters")
    return tuned


if __name__ == "__main__":
    main()

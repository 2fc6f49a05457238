"""Fine-tuning after pruning, beside the dense network with the same schedule; on a GPU where there is one.

Three trainings of one schedule on the 50,000 JPEG training images of CIFAR-10, evaluated on the JPEG test images:

1. *adapt*: the trained network of the corpus (or, for ``vgg16``, one trained here from nothing) gets used to JPEG.
2. *control*: the adapted network goes on with the same schedule once more: what training alone brings.
3. *pruned*: the adapted network is pruned, then trained with that schedule.

With ``--distill`` control and pruned network both also learn from the scores of the adapted network. Each leaves a
checkpoint after every epoch and goes on from it; the pruned network is kept before it is trained.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy_data import BUILD, MEAN, STD, Images, cifar, cifar_test, cifar_training
from accuracy_modules import module as trained
from accuracy_modules import vgg16
from torch import nn
from torch.nn import functional

from graphprune.training import distillation_loss

Row = dict[str, Any]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=["resnet20", "resnet56", "vgg16"], default="resnet56")
    parser.add_argument("--keep", type=float, default=100 / 2.1, help="per cent of the multiply-accumulates")
    parser.add_argument("--options", type=json.loads, default={}, help="further arguments of graphprune.prune, as JSON")
    parser.add_argument("--calibrate", action="store_true", help="give the 1,024 calibration images to prune")
    parser.add_argument("--stage", action="append", choices=["adapt", "control", "pruned"], help="only these")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--first-epochs", type=int, help="of the first training, where it is another number")
    parser.add_argument("--rate", type=float, default=0.05, help="highest learning rate; it rises and falls linearly")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--distill", type=float, default=0.0, help="share of the loss that is divergence from dense")
    parser.add_argument("--limit", type=int, help="use this many training images only")
    parser.add_argument("--test", type=int, help="use this many test images only")
    parser.add_argument("--every", type=int, default=1, help="evaluate after so many epochs, and after the last")
    parser.add_argument(
        "--eager", action="store_true", help="launch each operation by itself, neither recorded nor compiled"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=BUILD / "finetune", help="where checkpoints are")
    parser.add_argument("--results", type=Path, default=BUILD / "accuracy.jsonl")
    return parser.parse_args(argv)


class Feeder:
    """Images on the device, cut and mirrored at random: each is moved by up to four pixels."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self.pixels = torch.from_numpy(np.ascontiguousarray(images.pixels)).to(device).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(np.ascontiguousarray(images.labels)).to(device)
        self.mean = torch.tensor(MEAN, device=device).view(1, 3, 1, 1) * 255
        self.scale = 1 / (torch.tensor(STD, device=device).view(1, 3, 1, 1) * 255)

    def __len__(self) -> int:
        return len(self.labels)

    def plain(self, which: slice) -> torch.Tensor:
        """Images as they are, normalised."""
        return (self.pixels[which].float() - self.mean) * self.scale

    def varied(self, which: torch.Tensor) -> torch.Tensor:
        """Images at random offsets, every other one mirrored."""
        images = functional.pad((self.pixels[which].float() - self.mean) * self.scale, (4, 4, 4, 4))
        count, device = len(which), images.device
        offsets = torch.randint(0, 9, (2, count, 1), device=device)
        rows, columns = offsets + torch.arange(32, device=device)
        mirrored = torch.rand(count, 1, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
        each = torch.arange(count, device=device)[:, None, None]
        picked = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None]]
        return picked.permute(0, 3, 1, 2)


def accuracy(network: nn.Module, test: Feeder) -> float:
    """The share of test images whose class is right."""
    network.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(test), 1000):
            part = slice(start, start + 1000)
            right += int((network(test.plain(part)).argmax(1) == test.labels[part]).sum())
    return right / len(test)


class Stepper:
    """Forward and backward for one batch, in bfloat16 where that is fast; on a GPU recorded once and replayed.

    A processor runs what ``torch.compile`` makes of the network, in which normalisations and activations are fused.
    """

    def __init__(
        self, network: nn.Module, data: Feeder, batch: int, recorded: bool, teacher: nn.Module | None, share: float
    ) -> None:
        self.network, self.data, self.teacher, self.share = network, data, teacher, share
        self.device = data.labels.device
        self.half = self.device.type == "cuda" or torch.cpu._is_amx_tile_supported()
        self.graph: Any = None
        if recorded and self.device.type == "cuda":
            self._record(batch)
        elif recorded:
            self.network = torch.compile(network)

    def __call__(self, which: torch.Tensor) -> None:
        """Leave the gradients of these images' loss in the network."""
        images, labels = self.data.varied(which), self.data.labels[which]
        if self.graph is None:
            self._gradients(images, labels)
            return
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()

    def _gradients(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        for weight in self.network.parameters():
            if weight.grad is not None:
                weight.grad.zero_()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half, cache_enabled=False):
            scores = self.network(images)
            loss = functional.cross_entropy(scores, labels, label_smoothing=0.0 if self.share else 0.1)
            if self.teacher is not None and self.share:
                with torch.no_grad():
                    wanted = self.teacher(images)
                loss = (1 - self.share) * loss + self.share * distillation_loss(scores, wanted)
        loss.backward()

    def _record(self, batch: int) -> None:
        first = torch.arange(batch, device=self.device)
        self.images, self.labels = self.data.varied(first), self.data.labels[first].clone()
        kept = {name: value.clone() for name, value in self.network.state_dict().items()}
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._gradients(self.images, self.labels)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._gradients(self.images, self.labels)
        self.network.load_state_dict(kept)
        self.graph = graph


def trained_for(
    network: nn.Module,
    epochs: int,
    data: Feeder,
    test: Feeder,
    options: argparse.Namespace,
    path: Path,
    teacher: nn.Module | None = None,
) -> list[float | None]:
    """Train, going on from the checkpoint ``path``; return the accuracies after epochs, None where nobody asked."""
    optimizer = torch.optim.SGD(network.parameters(), lr=options.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    curve: list[float | None] = []
    if path.exists():
        stored = torch.load(path, map_location=data.labels.device, weights_only=True)
        network.load_state_dict(stored["network"])
        curve = stored["curve"]
        if len(curve) >= epochs:
            return curve
        optimizer.load_state_dict(stored["optimizer"])
    batch = min(options.batch, len(data))
    steps = len(data) // batch
    network.train()
    gradients = Stepper(network, data, batch, not options.eager, teacher, options.distill)
    for epoch in range(len(curve), epochs):
        torch.manual_seed(options.seed * 1000 + epoch)
        start = time.perf_counter()
        order = torch.randperm(len(data), device=data.labels.device)
        network.train()
        for step in range(steps):
            done = (epoch * steps + step) / (epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = options.rate * min(done / 0.15, (1 - done) / 0.85)
            gradients(order[step * batch : (step + 1) * batch])
            optimizer.step()
        asked = epoch + 1 == epochs or not (epoch + 1) % options.every
        curve.append(accuracy(network, test) if asked else None)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "curve": curve}, beside)
        beside.replace(path)
        seconds = time.perf_counter() - start
        told = "" if curve[-1] is None else f"{100 * curve[-1]:.2f} %, "
        print(f"{path.stem} {epoch + 1}/{epochs}: {told}{seconds:.1f} s", flush=True)
    return curve


def slim(dense: nn.Module, options: argparse.Namespace, folder: Path) -> tuple[nn.Module, Mapping[str, Any]]:
    """Prune a module on the processor, unless ``folder`` has it already; return what trains, and what pruning said."""
    import graphprune

    figures = folder.with_suffix(".json")
    if figures.exists():
        return graphprune.load(folder), json.loads(figures.read_text())
    known, _ = cifar(options.seed, 1024)
    images = [torch.from_numpy(batch) for batch in known.batches(128)]
    arguments = dict(options.options)
    if options.calibrate:
        arguments["calibration"] = [(batch,) for batch in images]
    start = time.perf_counter()
    result = graphprune.prune(
        dense.cpu().eval(),
        (images[0][:2],),
        macs=f"{options.keep}%",
        seed=options.seed,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        **arguments,
    )
    said = {
        "macs": [result.macs.before, result.macs.after],
        "params": [result.params.before, result.params.after],
        "verified": result.verified,
        "way": result.way,
        "seconds": time.perf_counter() - start,
    }
    result.save(folder)
    figures.write_text(json.dumps(said))
    return result.module, said


def start(name: str) -> nn.Module:
    """The network that the first training begins with."""
    return vgg16() if name == "vgg16" else trained(name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trainings."""
    options = arguments(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    train = cifar_training()
    if options.limit:
        train = train.take(np.random.default_rng(options.seed).permutation(len(train))[: options.limit])
    held = cifar_test()
    if options.test:
        held = held.take(np.random.default_rng(options.seed).permutation(len(held))[: options.test])
    data, test = Feeder(train, device), Feeder(held, device)
    name = f"{options.network}-s{options.seed}"
    stages = options.stage or ["adapt", "control", "pruned"]
    network = start(options.network).to(device, memory_format=torch.channels_last)
    before = accuracy(network, test)
    first = options.first_epochs or options.epochs
    adapted = trained_for(network, first, data, test, options, options.folder / f"{name}-adapt.pt")
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    shared = {"part": "finetune", "network": options.network, "seed": options.seed, "device": device_name}
    shared |= {"batch": options.batch, "rate": options.rate, "distill": options.distill}
    shared |= {"epochs": options.epochs, "first_epochs": first, "origin": before, "adapted": adapted[-1]}
    for stage in stages:
        called = f"{stage}-distilled" if options.distill else stage
        row: Row = {"name": f"{options.network}/finetune/{called}/s{options.seed}", **shared, "stage": stage}
        own = network
        if stage == "pruned":
            own, said = slim(network, options, options.folder / f"{name}-slim")
            own = own.to(device, memory_format=torch.channels_last)
            row |= {**said, "untrained": accuracy(own, test), "options": options.options}
        path = options.folder / f"{name}-{stage}.pt"
        if stage != "adapt":
            own = own if stage == "pruned" else restored(options, device)
            teacher = restored(options, device).eval().requires_grad_(False)
            curve = trained_for(own, options.epochs, data, test, options, path, teacher)
            row |= {"accuracy": curve[-1], "curve": curve}
        else:
            row |= {"accuracy": adapted[-1], "curve": adapted}
        options.results.parent.mkdir(parents=True, exist_ok=True)
        with options.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{row['name']}: {100 * row['accuracy']:.2f} %", flush=True)
    return 0


def restored(options: argparse.Namespace, device: torch.device) -> nn.Module:
    """The adapted network anew, so that each training has its own."""
    network = start(options.network)
    stored = torch.load(
        options.folder / f"{options.network}-s{options.seed}-adapt.pt", map_location="cpu", weights_only=True
    )
    network.load_state_dict(stored["network"])
    return network.to(device, memory_format=torch.channels_last)


if __name__ == "__main__":
    sys.exit(main())

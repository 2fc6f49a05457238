"""The networks that accuracy is measured on, with their data and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accuracy_data import Images, cached, cifar, corpus, imagenet
from accuracy_text import reactions, stories

__all__ = ["NETWORKS", "Data", "Network", "outputs", "session"]

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Data:
    """What a network is calibrated and evaluated on.

    ``calibration`` has feeds without labels, and ``labels`` what belongs to them where there are labels. ``evaluation``
    yields feeds; ``measure`` makes figures of the outputs (n, classes) of a network and of the dense one.
    """

    calibration: list[Feed]
    labels: Array | None
    evaluation: Callable[[], Iterable[Feed]]
    measure: Callable[[Array, Array], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the corpus. ``data`` makes its data for a seed; ``finish`` picks what counts of its outputs."""

    name: str
    file: str
    data: Callable[[int], Data]
    units: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where the corpus has it."""
        return corpus() / "onnx" / self.file

    def dense(self, seed: int) -> Array:
        """What the dense network says of the evaluation data; computed once."""
        data = self.data(seed)
        return cached(f"dense/{self.name}-s{seed}", lambda: outputs(self.path, data.evaluation()))


def session(model: Path | bytes) -> Any:
    """Open a network in ONNX Runtime, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def outputs(model: Path | bytes, feeds: Iterable[Feed]) -> Array:
    """What a network says, all batches together, in float32."""
    network = session(model)
    return np.concatenate([np.asarray(network.run(None, dict(feed))[0], np.float32) for feed in feeds])


def log_probabilities(logits: Array) -> Array:
    """The logarithms of the probabilities (..., classes) that logits stand for."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found


def compared(logits: Array, dense: Array) -> dict[str, float]:
    """How near outputs are to those of the dense network: same first choice, and KL divergence in nats."""
    own, other = log_probabilities(logits), log_probabilities(dense)
    divergence = (np.exp(other) * (other - own)).sum(-1)
    return {"agreement": float((logits.argmax(-1) == dense.argmax(-1)).mean()), "kl": float(divergence.mean())}


def classification(calibration: Images, evaluation: Images, batch: int) -> Data:
    """Data of images: the share whose class is right."""

    def measure(logits: Array, dense: Array) -> dict[str, float]:
        right = float((logits.argmax(-1) == evaluation.labels).mean())
        return {"accuracy": right, **compared(logits, dense)}

    def feeds() -> Iterator[Feed]:
        return ({"input": images} for images in evaluation.batches(batch))

    return Data([{"input": images} for images in calibration.batches(batch)], calibration.labels, feeds, measure)


def language(seed: int, calibration: int = 64, evaluation: int = 128, length: int = 128) -> Data:
    """Data of the Llama: stories that it wrote itself; the perplexity of others that it wrote."""
    path = corpus() / "onnx" / "stories260K_llama_fp32.onnx"
    tokens = cached(
        f"stories-s{seed}-{calibration}-{evaluation}",
        lambda: stories(session(path), calibration + evaluation, length, seed),
    )
    held = tokens[calibration:]

    def measure(logits: Array, dense: Array) -> dict[str, float]:
        said = np.take_along_axis(log_probabilities(logits[:, :-1]), held[:, 1:, None], 2)
        return {"perplexity": float(np.exp(-said.mean())), **compared(logits, dense)}

    def feeds(rows: Array) -> list[Feed]:
        return [{"input_ids": np.ascontiguousarray(rows[start : start + 16])} for start in range(0, len(rows), 16)]

    return Data(feeds(tokens[:calibration]), None, lambda: feeds(held), measure)


def chemistry(seed: int, calibration: int = 128, evaluation: int = 384) -> Data:
    """Data of the ALBERT: reactions with a masked token; the share of masked tokens that are right."""
    every = reactions(calibration + evaluation, seed)
    known, held = every.part(slice(0, calibration)), every.part(slice(calibration, None))
    rows = np.arange(evaluation)

    def measure(logits: Array, dense: Array) -> dict[str, float]:
        own, other = logits[rows, held.place], dense[rows, held.place]
        return {"accuracy": float((own.argmax(-1) == held.truth).mean()), **compared(own, other)}

    return Data(list(known.feeds(32)), None, lambda: held.feeds(32), measure)


NETWORKS = {
    network.name: network
    for network in (
        Network("resnet20", "cifar10_resnet20_fp32.onnx", lambda seed: classification(*cifar(seed, 1024), 128)),
        Network("resnet56", "cifar10_resnet56_fp32.onnx", lambda seed: classification(*cifar(seed, 1024), 128)),
        Network(
            "mobilenetv1",
            "imagenet_mobilenetv1_x0.25_fp32.onnx",
            lambda seed: classification(*imagenet(seed, 128), 16),
        ),
        Network(
            "mobilenetv2",
            "imagenet_mobilenetv2_bnfolded_fp32.onnx",
            lambda seed: classification(*imagenet(seed, 128), 16),
        ),
        Network("llama", "stories260K_llama_fp32.onnx", language, ("kv head", "ffn")),
        Network("albert", "rxnmapper_albert_mlm_fp32.onnx", chemistry, ("head", "ffn")),
    )
}

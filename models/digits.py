"""The trained network that ships: a residual CNN on scikit-learn's handwritten digits, and a test set it never saw.

The network takes ``images`` of shape (n, 1, 8, 8), float32 in [0, 1], and returns ``logits`` of shape (n, 10);
``examples/train_digits.py`` made both files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from graphprune.backends.onnxruntime import session
from graphprune.errors import ModelError

__all__ = ["Labelled", "accuracy", "digits_path", "digits_test"]

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Labelled:
    """Inputs of shape (n, ...) and their class numbers of shape (n,)."""

    inputs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def digits_path() -> Path:
    """The ONNX file of the trained network."""
    return DATA / "digits.onnx"


def digits_test() -> Labelled:
    """The 600 held-out images of shape (600, 1, 8, 8) and their labels."""
    with np.load(DATA / "digits_test.npz") as archive:
        return Labelled(archive["images"], archive["labels"])


def accuracy(model: str | os.PathLike[str] | onnxruntime.InferenceSession, data: Labelled) -> float:
    """The share of ``data`` whose label has the largest of the model's first output.

    Raises :class:`ModelError` where the model cannot be loaded, or does not map one input of that shape to scores of
    shape (n, classes).
    """
    runnable = model if isinstance(model, onnxruntime.InferenceSession) else session(model)
    inputs = runnable.get_inputs()
    if len(inputs) != 1:
        raise ModelError(
            f"accuracy needs a model with one input, this one has {len(inputs)}; measure it in your own code"
        )
    try:
        scores = np.asarray(runnable.run(None, {inputs[0].name: data.inputs})[0])
    except Exception as error:  # ONNX Runtime's errors share no base class
        first_line = str(error).splitlines()[0]
        raise ModelError(f"the model does not run on inputs of shape {data.inputs.shape}: {first_line}") from error
    if scores.ndim != 2 or len(scores) != len(data.labels):
        raise ModelError(f"accuracy needs scores of shape (n, classes), the first output has shape {scores.shape}")
    return float((scores.argmax(axis=1) == data.labels).mean())

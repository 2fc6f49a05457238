"""Options about the inputs that a model is calibrated and measured on, and what they mean."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.errors import UsageError

if TYPE_CHECKING:
    from graphprune.calibration.data import Data

__all__ = [
    "CALIBRATION_SAMPLES",
    "SYNTHETIC",
    "Calib",
    "CalibBatch",
    "CalibLimit",
    "Eval",
    "Labels",
    "MetricName",
    "Preprocess",
    "calibration_of",
    "data_of",
    "evaluation_of",
    "metric_of",
]

PANEL = "Data"

SYNTHETIC = "synthetic"
"""What stands for inputs that are made up."""

CALIBRATION_SAMPLES = 256
"""How many samples calibrate a model where nobody says; what they teach is learnt from fewer."""

Calib = Annotated[
    str | None,
    typer.Option(
        "--calib",
        metavar="PATH",
        help="Inputs to calibrate on, without labels: an .npz, an .npy, a folder of pictures or of such files, "
        "or 'synthetic'.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
CalibLimit = Annotated[
    int | None,
    typer.Option(
        "--calib-limit",
        metavar="N",
        min=1,
        help=f"Calibrate on N samples at most ({CALIBRATION_SAMPLES} by default), drawn by the seed.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
CalibBatch = Annotated[
    int,
    typer.Option(
        "--calib-batch",
        metavar="N",
        min=1,
        help="Samples in a batch, where the model leaves that open.",
        rich_help_panel=PANEL,
    ),
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        metavar="SPEC",
        help="How pixels become inputs: imagenet, unit (0..1), symmetric (-1..1), raw, caffe, "
        "or scale=1/255,mean=R:G:B,std=R:G:B,order=bgr,size=HxW,fit=stretch.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="PATH",
        help="Labels of the data that --metric is measured on: an .npy, a text of lines 'LABEL' or 'NAME LABEL', "
        "or the name of an array in the .npz.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Eval = Annotated[
    str | None,
    typer.Option(
        "--eval",
        metavar="PATH",
        help="Inputs to measure on; by default those of --calib, which flatters what was calibrated on them.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="Measure it before and after: accuracy, top5, cross-entropy, perplexity, mse, "
        "or package.module:function of (outputs, targets).",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]


def data_of(
    calib: str | None,
    limit: int | None,
    batch: int,
    evaluation: str | None,
    preprocess: str | None,
    labels: str | None,
) -> tuple[Data | None, Data | None]:
    """What is calibrated on and what is measured on; labels belong to the latter, where there are two."""
    if evaluation is None:
        return calibration_of(calib, limit, batch, preprocess, labels), None
    inputs = calibration_of(calib, limit, batch, preprocess if calib is not None else None)
    return inputs, evaluation_of(evaluation, batch, preprocess, labels)


def calibration_of(
    calib: str | None,
    limit: int | None = None,
    batch: int = 16,
    preprocess: str | None = None,
    labels: str | None = None,
) -> Data | None:
    """What ``--calib`` and its options name, to be read once the model is known; None without ``--calib``.

    Raises:
        UsageError: there are options of data and no data, or the preprocessing makes no sense.
    """
    from graphprune.calibration.data import Data
    from graphprune.calibration.preprocess import parse_preprocess

    if calib is None:
        options = {"--calib-limit": limit, "--preprocess": preprocess, "--labels": labels}
        for option, value in options.items():
            if value is not None:
                raise UsageError(f"{option} says how to read data and there are none: give --calib PATH")
        return None
    how = None if preprocess is None else parse_preprocess(preprocess)
    return Data(calib, limit or CALIBRATION_SAMPLES, batch, labels, how)


def evaluation_of(
    evaluation: str | None,
    batch: int = 16,
    preprocess: str | None = None,
    labels: str | None = None,
) -> Data | None:
    """What ``--eval`` names: all its samples; None where the model is measured on what it is calibrated on."""
    from graphprune.calibration.data import Data
    from graphprune.calibration.preprocess import parse_preprocess

    if evaluation is None:
        return None
    return Data(evaluation, None, batch, labels, None if preprocess is None else parse_preprocess(preprocess))


def metric_of(text: str | None) -> str | Callable[..., Any] | None:
    """A metric by name, or the function that ``package.module:function`` names.

    Raises:
        UsageError: there is no such metric, or the function cannot be imported.
    """
    if text is None:
        return None
    place, colon, name = text.partition(":")
    if not colon:
        from graphprune.calibration.metrics import meter

        meter(text)
        return text
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(place)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--metric: '{text}' cannot be imported ({error}); write package.module:function") from None
    if not callable(found):
        raise UsageError(f"--metric: '{text}' is a {type(found).__name__}, not a function of (outputs, targets)")
    return found  # type: ignore[no-any-return]

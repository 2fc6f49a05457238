"""Reference networks built in plain ONNX by our own code, with seeded random weights.

``REFERENCE`` maps a name to a function; ``tiny=True`` gives the same structure at a size for tests. The output of each
depends on every channel, so that a wrong cut shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import onnx

from graphprune.models.reference.big import write_big_llama
from graphprune.models.reference.cnn import inception, mobilenet_v2, resnet18, resnet50, squeezenet, vgg16
from graphprune.models.reference.dense import densenet121, densenet201, shufflenet_v2
from graphprune.models.reference.dense_prediction import unet, yolo
from graphprune.models.reference.llama import LlamaSizes, llama, mixture_of_experts
from graphprune.models.reference.recurrent import lstm_tagger
from graphprune.models.reference.scaling import chain, dense_concat
from graphprune.models.reference.swin import swin_t
from graphprune.models.reference.transformer import bert, gpt2, vit

__all__ = [
    "REFERENCE",
    "LlamaSizes",
    "bert",
    "chain",
    "dense_concat",
    "densenet121",
    "densenet201",
    "gpt2",
    "inception",
    "llama",
    "lstm_tagger",
    "mixture_of_experts",
    "mobilenet_v2",
    "resnet18",
    "resnet50",
    "shufflenet_v2",
    "squeezenet",
    "swin_t",
    "unet",
    "vgg16",
    "vit",
    "write_big_llama",
    "yolo",
]

REFERENCE: Mapping[str, Callable[..., onnx.ModelProto]] = MappingProxyType(
    {
        build.__name__: build
        for build in (
            resnet18,
            resnet50,
            vgg16,
            squeezenet,
            mobilenet_v2,
            inception,
            densenet121,
            densenet201,
            shufflenet_v2,
            unet,
            yolo,
            vit,
            swin_t,
            bert,
            gpt2,
            llama,
            mixture_of_experts,
            lstm_tagger,
        )
    }
)

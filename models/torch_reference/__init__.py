"""The reference networks as PyTorch modules: the structures of ``graphprune.models.reference`` as one writes them here.

``REFERENCE`` maps a name to a function that returns a module in eval mode, its weights seeded, and arguments that it
runs on; ``tiny=True`` gives the same structure at a size for tests. Importing this package imports PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from graphprune.models.torch_reference.cnn import (
    Example,
    inception,
    mobilenet_v2,
    resnet18,
    resnet50,
    squeezenet,
    vgg16,
)
from graphprune.models.torch_reference.dense import densenet121, densenet201, shufflenet_v2
from graphprune.models.torch_reference.dense_prediction import unet, yolo
from graphprune.models.torch_reference.llama import Llama, llama, mixture_of_experts
from graphprune.models.torch_reference.recurrent import lstm_tagger
from graphprune.models.torch_reference.swin import swin_t
from graphprune.models.torch_reference.transformer import bert, gpt2, vit

__all__ = [
    "REFERENCE",
    "Example",
    "Llama",
    "bert",
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
    "yolo",
]

REFERENCE: Mapping[str, Callable[..., Example]] = MappingProxyType(
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

"""The networks of the zoo: how each is built, with random weights, and the example inputs that it takes.

Families: torchvision's classifiers, segmentation, video, optical flow and detection networks; one variant of every
timm module; and transformers' architectures from small random configurations. Nothing is downloaded.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch_networks import vision

__all__ = ["FAMILIES", "Network", "names", "network"]


@dataclass(frozen=True, slots=True)
class Network:
    """A module in evaluation mode, and what it is called with."""

    module: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


# -- torchvision --------------------------------------------------------------------------------------------------

_SIDES = {"inception_v3": 96, "vit": 224, "maxvit": 224, "swin": 64, "vit_h": 224}
"""Sides of images: what positional tables or windows ask for; others take 64."""


def _torchvision_names(kind: str) -> list[str]:
    models = vision()
    modules = {
        "classification": models,
        "segmentation": models.segmentation,
        "video": models.video,
        "optical_flow": models.optical_flow,
        "detection": models.detection,
    }
    return [name for name in models.list_models(module=modules[kind]) if not name.startswith("quantized_")]


def _torchvision(kind: str) -> Callable[[str], Network]:
    def build(name: str) -> Network:
        models = vision()
        options: dict[str, Any] = {"weights": None}
        if kind in ("segmentation", "detection"):
            options["weights_backbone"] = None
        if kind == "classification" and name in ("googlenet", "inception_v3"):
            options["init_weights"] = False
        module = models.get_model(name, **options).eval()
        return Network(Trunk(module) if kind == "detection" else module, _torchvision_inputs(kind, name))

    return build


class Trunk(nn.Module):
    """A detector without what picks boxes, which depends on data and which ``torch.export`` refuses.

    Backbone, neck, and the heads of every stage; those of a second stage see two fixed boxes.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector
        self.register_buffer("boxes", torch.tensor([[8.0, 8.0, 100.0, 90.0], [20.0, 4.0, 60.0, 120.0]]))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """[n, 3, h, w] -> what each head says."""
        found = self.detector.backbone(images)
        features = {"0": found} if isinstance(found, torch.Tensor) else dict(found)
        levels = list(features.values())
        if not hasattr(self.detector, "rpn"):
            return list(pytree.tree_leaves(self.detector.head(levels)))
        outputs = [*pytree.tree_leaves(self.detector.rpn.head(levels))]
        stage, size = self.detector.roi_heads, [tuple(images.shape[-2:])]
        pooled = stage.box_roi_pool(features, [self.boxes], size)
        outputs += pytree.tree_leaves(stage.box_predictor(stage.box_head(pooled)))
        for kind in ("mask", "keypoint"):
            if getattr(stage, f"{kind}_head", None) is not None:
                pooled = getattr(stage, f"{kind}_roi_pool")(features, [self.boxes], size)
                outputs += pytree.tree_leaves(
                    getattr(stage, f"{kind}_predictor")(getattr(stage, f"{kind}_head")(pooled))
                )
        return outputs


def _torchvision_inputs(kind: str, name: str) -> tuple[Any, ...]:
    if kind == "video":
        side, frames = (224, 16) if name.startswith(("mvit", "s3d")) else (64, 16 if name.startswith("swin") else 4)
        return (torch.randn(1, 3, frames, side, side),)
    if kind == "optical_flow":
        return (torch.randn(1, 3, 128, 128), torch.randn(1, 3, 128, 128))
    if kind == "detection":
        return (torch.randn(1, 3, 320 if name.startswith("ssd") else 128, 320 if name.startswith("ssd") else 128),)
    side = next((size for start, size in _SIDES.items() if name.startswith(start)), 64)
    return (torch.randn(2, 3, side, side),)


# -- timm ---------------------------------------------------------------------------------------------------------


def _timm_names() -> list[str]:
    """For each module of timm the variant that has the fewest parameters by its name's common size words."""
    vision()  # timm imports torchvision
    import timm

    small = ("nano", "atto", "femto", "pico", "xxtiny", "xtiny", "tiny", "xxs", "_xs", "xsmall", "small", "mini", "_s")
    found: list[str] = []
    for module in timm.list_modules():
        variants = sorted(timm.list_models(module=module))
        if not variants:
            continue
        chosen = next((v for word in small for v in variants if word in v), variants[0])
        found.append(f"{module}:{chosen}")
    return found


def _timm(name: str) -> Network:
    vision()  # timm imports torchvision
    import timm

    module = timm.create_model(name.partition(":")[2], pretrained=False).eval()
    channels, *full = module.default_cfg.get("input_size", (3, 224, 224))
    small = [min(side, SMALL_SIDE) for side in full]
    for sides in (small, full):
        image = torch.randn(1, channels, *sides)
        try:
            with torch.no_grad():
                module(image)
        except Exception:  # windows, grids or positional tables that ask for the full size
            continue
        return Network(module, (image,))
    raise RuntimeError(f"{name} does not run on images of {full}")


SMALL_SIDE = 128
"""Sides of timm's images, where a network takes others than those it was trained for."""


# -- transformers -------------------------------------------------------------------------------------------------

_SMALL: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "d_embed", "emb_dim"), 32),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_inner"), 64),
    **dict.fromkeys(("n_inner", "hidden_dim", "moe_intermediate_size", "shared_expert_intermediate_size"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"), 2),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads",), 2),
    **dict.fromkeys(("head_dim", "d_kv", "kv_channels", "embedding_size", "word_embed_proj_dim"), 8),
    **dict.fromkeys(("vocab_size",), 99),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_source_positions", "max_target_positions"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok",), 2),
    **dict.fromkeys(("image_size",), 64),
    **dict.fromkeys(("patch_size",), 16),
    **dict.fromkeys(("projection_dim",), 16),
}
"""Extents of the small configurations, by the names that configurations have for them."""

_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "sep_token_id", "cls_token_id")

ARCHITECTURES = Path(__file__).with_name("zoo_architectures.txt").read_text().split()
"""Names of model types; those that the installed transformers does not know are left out."""


_OVERRIDES: dict[str, dict[str, Any]] = {
    **{key: {"rotary_dim": 4} for key in ("codegen", "gptj")},
    "efficientnet": {"hidden_dim": 2560},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "luke": {"entity_vocab_size": 50},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "speech_to_text": {"input_feat_per_channel": 80},
    "squeezebert": {"embedding_size": 32},
    **{key: {"embed_dim": 48} for key in ("swin", "swinv2", "swin2sr")},
    "xmod": {"default_language": "en_XX"},
}
"""What a configuration needs beside small extents to describe a network that works."""


def _transformers_names() -> list[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return [name for name in ARCHITECTURES if name in CONFIG_MAPPING_NAMES]


def _shrink(config: Any, seen: set[int]) -> None:
    """Make a configuration and those in it small."""
    if id(config) in seen:
        return
    seen.add(id(config))
    for key, value in list(vars(config).items()):
        if key in _SMALL and isinstance(value, int) and not isinstance(value, bool):
            setattr(config, key, min(value, _SMALL[key]))
        elif key in _SPECIAL and isinstance(value, int) and value >= _SMALL["vocab_size"]:
            setattr(config, key, 1)
        elif hasattr(value, "to_dict"):
            _shrink(value, seen)


def _transformers(name: str) -> Network:
    vision()  # transformers imports torchvision where it is installed
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(name)
    _shrink(config, set())
    for key, value in _OVERRIDES.get(name, {}).items():
        setattr(config, key, value)
    if hasattr(config, "use_cache"):
        config.use_cache = False
    module = AutoModel.from_config(config).eval()
    return Network(module, (), _transformers_inputs(module, config))


def _transformers_inputs(module: nn.Module, config: Any) -> dict[str, Any]:
    """Example inputs by the names of the forward method's parameters."""
    wanted = inspect.signature(module.forward).parameters
    tokens = torch.randint(3, 90, (2, 16))
    vision_config = getattr(config, "vision_config", config)
    side = getattr(vision_config, "image_size", 64)
    side = side if isinstance(side, int) else side[0]
    channels = getattr(vision_config, "num_channels", 3)
    audio = getattr(config, "num_mel_bins", getattr(config, "input_feat_per_channel", 80))
    offers: dict[str, Any] = {
        "input_ids": tokens,
        "pixel_values": torch.randn(1, channels, side, side),
        "input_features": torch.randn(1, audio, 2 * getattr(config, "max_source_positions", 32)),
        "input_values": torch.randn(1, 2000),
    }
    kwargs = {key: value for key, value in offers.items() if key in wanted}
    if len(kwargs) > 1 and module.main_input_name in kwargs and "input_ids" not in kwargs:
        kwargs = {module.main_input_name: kwargs[module.main_input_name]}
    if "input_ids" in kwargs and "attention_mask" in wanted:
        kwargs["attention_mask"] = torch.ones_like(tokens)
    if "decoder_input_ids" in wanted:
        kwargs["decoder_input_ids"] = torch.randint(3, 90, (kwargs[next(iter(kwargs))].shape[0], 8))
    return kwargs


# -- all ----------------------------------------------------------------------------------------------------------

FAMILIES: dict[str, tuple[Callable[[], list[str]], Callable[[str], Network]]] = {
    **{
        f"torchvision-{kind}": ((lambda kind=kind: _torchvision_names(kind)), _torchvision(kind))
        for kind in ("classification", "segmentation", "video", "optical_flow", "detection")
    },
    "timm": (_timm_names, _timm),
    "transformers": (_transformers_names, _transformers),
}


def names(families: list[str]) -> Iterator[tuple[str, str]]:
    """Family and name of every network."""
    return itertools.chain.from_iterable(((family, name) for name in FAMILIES[family][0]()) for family in families)


def network(family: str, name: str) -> Network:
    """Build one network, the same at each call."""
    torch.manual_seed(0)
    return FAMILIES[family][1](name)

"""What the layers of ``torch.nn`` say about their own sizes: attributes that follow from the parameters they hold.

Forward passes of these classes mostly read the parameters, but ``repr``, exporters and users read the attributes, and
some passes do too (``groups`` of a convolution, ``normalized_shape``, ``hidden_size``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.rnn import RNNBase, RNNCellBase

__all__ = ["Spelled", "sizes_of_layer"]

Spelled = Mapping[str, Any]
"""Arguments of the calls that a layer makes in the slim graph, by the names of the operators' schemas."""

Sizes = dict[str, Any]


def _convolution(layer: Any, spelled: Spelled) -> Sizes:
    first, second = layer.weight.shape[:2]
    groups = int(spelled.get("groups", layer.groups))
    if layer.transposed:
        return {"in_channels": first, "out_channels": second * groups, "groups": groups}
    return {"in_channels": second * groups, "out_channels": first, "groups": groups}


def _linear(layer: Any, spelled: Spelled) -> Sizes:
    return {"in_features": layer.weight.shape[1], "out_features": layer.weight.shape[0]}


def _bilinear(layer: Any, spelled: Spelled) -> Sizes:
    names = ("out_features", "in1_features", "in2_features")
    return dict(zip(names, layer.weight.shape, strict=True))


def _channels(layer: Any, spelled: Spelled) -> Sizes:
    tensor = layer.running_mean if layer.weight is None else layer.weight
    return {} if tensor is None else {"num_features": tensor.shape[0]}


def _normalized(layer: Any, spelled: Spelled) -> Sizes:
    shape = spelled.get("normalized_shape") if layer.weight is None else layer.weight.shape
    return {} if shape is None else {"normalized_shape": tuple(shape)}


def _groups(layer: Any, spelled: Spelled) -> Sizes:
    sizes = {"num_groups": int(spelled.get("num_groups", layer.num_groups))}
    return sizes if layer.weight is None else {**sizes, "num_channels": layer.weight.shape[0]}


def _embedding(layer: Any, spelled: Spelled) -> Sizes:
    return {"num_embeddings": layer.weight.shape[0], "embedding_dim": layer.weight.shape[1]}


def _prelu(layer: Any, spelled: Spelled) -> Sizes:
    return {"num_parameters": layer.weight.numel()}


def _recurrent(layer: Any, spelled: Spelled) -> Sizes:
    sizes = {"input_size": layer.weight_ih_l0.shape[1]}
    if layer.proj_size:
        return {**sizes, "proj_size": layer.weight_hr_l0.shape[0], "hidden_size": layer.weight_hr_l0.shape[1]}
    return {**sizes, "hidden_size": layer.weight_hh_l0.shape[1]}


def _cell(layer: Any, spelled: Spelled) -> Sizes:
    return {"input_size": layer.weight_ih.shape[1], "hidden_size": layer.weight_hh.shape[1]}


def _attention(layer: Any, spelled: Spelled) -> Sizes:
    if layer.in_proj_weight is None:
        shapes = (layer.out_proj.weight.shape, layer.k_proj_weight.shape, layer.v_proj_weight.shape)
        return {"embed_dim": shapes[0][0], "kdim": shapes[1][1], "vdim": shapes[2][1]}
    width = layer.in_proj_weight.shape[1]
    return {"embed_dim": width, "kdim": width, "vdim": width}


_ROWS: tuple[tuple[type[nn.Module], Callable[[Any, Spelled], Sizes]], ...] = (
    (_ConvNd, _convolution),
    (nn.Linear, _linear),
    (nn.Bilinear, _bilinear),
    (_NormBase, _channels),
    (nn.LayerNorm, _normalized),
    (nn.RMSNorm, _normalized),
    (nn.GroupNorm, _groups),
    (nn.Embedding, _embedding),
    (nn.EmbeddingBag, _embedding),
    (nn.PReLU, _prelu),
    (RNNBase, _recurrent),
    (RNNCellBase, _cell),
    (nn.MultiheadAttention, _attention),
)


def sizes_of_layer(layer: nn.Module, spelled: Spelled) -> Sizes:
    """The size attributes of a layer whose parameters have been sliced; empty for classes outside ``torch.nn``.

    A subclass answers like its parent for the attributes that it has as numbers.
    """
    for kind, sizes in _ROWS:
        if isinstance(layer, kind):
            try:
                found = sizes(layer, spelled)
            except (AttributeError, IndexError, TypeError, ValueError, ZeroDivisionError):
                return {}  # a subclass that keeps its weights elsewhere (a parametrization, an adapter)
            return {
                name: tuple(map(int, value)) if isinstance(value, tuple) else int(value)
                for name, value in found.items()
                if name in layer.__dict__
            }
    return {}

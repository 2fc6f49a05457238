"""A drop-in for ``torch.nn.MultiheadAttention`` whose heads together may be narrower than what it takes and gives.

The class of PyTorch insists on ``num_heads * head_dim == embed_dim``, which no removal of heads or of head width can
keep while the residual stream stays as wide as it is.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["PrunedMultiheadAttention", "adapt_attention"]


class PrunedMultiheadAttention(nn.MultiheadAttention):  # type: ignore[misc]
    """Multi-head attention (Vaswani et al. 2017) with ``num_heads`` heads of any width.

    Parameters have the names and layouts of the parent's; ``scale`` is what products are multiplied by: that of the
    original width, which removed positions do not change.
    """

    scale: float

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See ``torch.nn.MultiheadAttention.forward``."""
        single = query.dim() == 2
        if single:
            query, key, value = (each.unsqueeze(0) for each in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        q, k, v = (self._heads(each) for each in self._projected(query, key, value))
        mask = self._mask(attn_mask, key_padding_mask, q)
        drop = self.dropout if self.training else 0.0
        weights: torch.Tensor | None = None
        if need_weights:
            products = q @ k.transpose(-2, -1) * self.scale
            weights = torch.softmax(products if mask is None else products + mask, dim=-1)
            weights = functional.dropout(weights, drop) if drop else weights
            mixed = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights.squeeze(0) if single else weights
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, drop, scale=self.scale)
        result = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if single:
            return result.squeeze(0), weights
        return (result if self.batch_first else result.transpose(0, 1)), weights

    def _projected(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> list[torch.Tensor]:
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases: Any = (None, None, None)
        if self.in_proj_bias is not None:
            biases = self.in_proj_bias.split([each.shape[0] for each in weights])
        return [functional.linear(*each) for each in zip((query, key, value), weights, biases, strict=True)]

    def _heads(self, values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _mask(
        self, attention: torch.Tensor | None, padding: torch.Tensor | None, like: torch.Tensor
    ) -> torch.Tensor | None:
        """What is added to the products: (batch or 1, heads or 1, queries, keys), None for nothing."""
        found: torch.Tensor | None = None
        if attention is not None:
            added = _added(attention, like)
            if added.dim() == 3:  # batch times the heads that there were
                heads = added.shape[0] // like.shape[0]
                if heads != self.num_heads:
                    raise ValueError(
                        f"attn_mask has {heads} heads where {self.num_heads} are left: give one for all heads"
                    )
                added = added.unflatten(0, (like.shape[0], heads))
            found = added
        if padding is not None:
            added = _added(padding, like)[:, None, None, :]
            found = added if found is None else found + added
        return found


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -math.inf)


def adapt_attention(module: nn.Module) -> bool:
    """Let those attentions in ``module`` whose parameters were cut be of the class above; tells whether any are.

    Must be called before their attributes change: the scale is that of the width they had. Attentions with extra keys
    (``bias_k``, ``add_zero_attn``) stay as they are.
    """
    found = False
    for layer in module.modules():
        if type(layer) is not nn.MultiheadAttention or layer.bias_k is not None or layer.add_zero_attn:
            continue
        first = layer.in_proj_weight.shape[0] // 3 if layer.in_proj_weight is not None else layer.q_proj_weight.shape[0]
        values = first if layer.in_proj_weight is not None else layer.v_proj_weight.shape[0]
        if first == values == layer.embed_dim and layer.out_proj.weight.shape[1] == first:
            continue
        layer.scale = layer.head_dim**-0.5
        layer._qkv_same_embed_dim = False  # keeps encoder layers from their fused kernel, which has the same demand
        layer.__class__ = PrunedMultiheadAttention
        found = True
    return found

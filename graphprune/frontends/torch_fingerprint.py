"""A name for what a PyTorch program computes with, whatever its weights: its calls, parameters and their shapes."""

from __future__ import annotations

import hashlib

import torch
from torch import fx

from graphprune.frontends.torch_calls import walk

__all__ = ["fingerprint"]


def fingerprint(module: fx.GraphModule) -> str:
    """The SHA-256, in hexadecimal, of a program's operators, connections, literals, and the shapes of its tensors.

    Weights do not enter: a plan fits the network before and after it was trained.
    """
    digest = hashlib.sha256()
    for label, node, _ in walk(module):
        words = [label, node.op, str(node.target)]
        if node.op == "call_function":
            words += [repr(node.args), repr(sorted(node.kwargs.items()))]
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            words += [str(tuple(value.shape)), str(value.dtype)]
        digest.update(("\0".join(words) + "\n").encode("utf-8", "backslashreplace"))
    return digest.hexdigest()

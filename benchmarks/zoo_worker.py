"""Prunes one network of the zoo and prints what came of it as JSON; zoo.py runs it in a process of its own."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from typing import Any

import torch
from torch.utils import _pytree as pytree
from zoo_networks import Network, network

Row = dict[str, Any]
Shapes = list[tuple[int, ...]]


def ours(found: Network, ratio: float, before: Shapes) -> Row:
    """Prune with graphprune, and check the module that comes back on its own."""
    import graphprune
    from graphprune.errors import GraphpruneError

    start = time.perf_counter()
    try:
        result = graphprune.prune(found.module, found.args, found.kwargs, ratio=ratio)
    except GraphpruneError as error:
        status = "not exportable" if "torch.export cannot export" in str(error) else "refused"
        if error.exit_code == 5:
            status = "unproved"
        return {"status": status, "reason": str(error), "seconds": time.perf_counter() - start}
    seconds = time.perf_counter() - start
    row: Row = {
        "status": "pruned" if result.status == "pruned" and result.verified else "unchanged",
        "verified": result.verified,
        "params": [result.params.before, result.params.after],
        "macs": [result.macs.before, result.macs.after],
        "ceiling": [result.ceiling.params, result.ceiling.macs],
        "error": result.max_error,
        "way": result.way,
        "reason": result.way_reason,
        "undeclared": list(result.undeclared),
        "notes": list(result.notes),
        "seconds": seconds,
        "stages": {stage: round(spent, 3) for stage, spent in result.seconds.items()},
    }
    problem = checked(found, result.module, result.params.after, before)
    return {**row, "status": "wrong", "reason": problem} if problem else row


def checked(found: Network, module: torch.nn.Module, expected: int, before: Shapes) -> str:
    """What is wrong with a pruned module: it must run, keep the shapes of its outputs, and be as small as was said."""
    own = sum({id(p): p.numel() for p in module.parameters()}.values())
    if own != expected:
        return f"has {own} parameters where {expected} were reported"
    with torch.no_grad():
        after = shapes(module(*found.args, **found.kwargs))
    return "" if after == before else f"outputs {after} where the original has {before}"


def shapes(outputs: Any) -> Shapes:
    """The shapes of all tensors in what a network returns."""
    return [tuple(leaf.shape) for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def theirs(found: Network, ratio: float) -> Row:
    """Prune with Torch-Pruning, its output layers and head counts hand-fed."""
    import torch_pruning as tp

    outputs = [module for module in found.module.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    ignored = [module for module in outputs if getattr(module, "out_features", 0) == 1000] or outputs[-1:]
    heads = {
        projection: module.num_heads
        for module in found.module.modules()
        if isinstance(getattr(module, "num_heads", None), int)
        for name in ("qkv", "in_proj", "query", "key", "value", "q_proj", "k_proj", "v_proj")
        if isinstance(projection := getattr(module, name, None), torch.nn.Linear)
    }
    before = sum(p.numel() for p in found.module.parameters())
    start = time.perf_counter()
    example: Any = found.kwargs or (found.args if len(found.args) > 1 else found.args[0])
    pruner = tp.pruner.MetaPruner(
        found.module,
        example,
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=ratio,
        ignored_layers=ignored,
        num_heads=heads,
    )
    pruner.step()
    seconds = time.perf_counter() - start
    after = sum(p.numel() for p in found.module.parameters())
    with torch.no_grad():
        found.module(*found.args, **found.kwargs)
    status = "pruned" if after < 0.99 * before else "unchanged"
    return {"status": status, "params": [before, after], "seconds": seconds, "reason": ""}


def main() -> int:
    """Do one network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("family")
    parser.add_argument("name")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--rival", action="store_true", help="prune with Torch-Pruning instead")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        found = network(options.family, options.name)
        with torch.no_grad():
            before = shapes(found.module(*found.args, **found.kwargs))
    except Exception as error:  # a library that cannot build or run its own network from this configuration
        print(json.dumps({"status": "not built", "reason": f"{type(error).__name__}: {error}"[:300]}))
        return 0
    try:
        row = theirs(found, options.ratio) if options.rival else ours(found, options.ratio, before)
    except Exception as error:  # everything that is not one of graphprune's own errors is a fault
        row = {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
        if not options.rival:
            import traceback

            traceback.print_exc(file=sys.stderr)
    print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())

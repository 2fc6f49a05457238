"""Does one row of the table of accuracies and prints it as JSON; accuracy.py runs it in a process of its own."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_methods import METHODS, Case, Method
from accuracy_networks import NETWORKS, Data, Network, outputs

Row = dict[str, Any]


def ours(network: Network, method: Method, case: Case, data: Data, slim: Path) -> Row:
    """Prune with graphprune, write to ``slim``."""
    import graphprune

    options = dict(method.options)
    if method.calibrated:
        options["calibration"] = data.calibration
    if network.units:
        options["units"] = list(network.units)
    start = time.perf_counter()
    result = graphprune.prune(network.path, output=slim, macs=f"{case.keep}%", seed=case.seed, **options)
    return {**said(result), "seconds": time.perf_counter() - start}


def labelled(network: Network, method: Method, case: Case, data: Data) -> tuple[Row, Any]:
    """Prune the module with gradients of the loss on labels; return what came of it, and the slim module."""
    import torch
    from accuracy_modules import module

    import graphprune
    from graphprune.calibration.data import Data as Labelled

    torch.set_num_threads(1)
    images = np.concatenate([feed["input"] for feed in data.calibration])
    source = Labelled(images, batch=len(data.calibration[0]["input"]), labels=data.labels)
    start = time.perf_counter()
    result = graphprune.prune(
        module(network.name),
        (torch.from_numpy(images[:2]),),
        macs=f"{case.keep}%",
        seed=case.seed,
        calibration=source,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        **method.options,
    )
    return {**said(result), "seconds": time.perf_counter() - start}, result.module


def control(network: Network, data: Data, seed: int, slim: Path) -> Row:
    """Compensate the dense network as if something had been cut, write to ``slim``."""
    from graphprune.calibration.data import load_batches
    from graphprune.compensation import Options, compensate
    from graphprune.frontends.onnx_file import load
    from graphprune.frontends.onnx_write import save
    from graphprune.frontends.program import program_of
    from graphprune.passes import parse_pipeline, run_passes
    from graphprune.passes.base import Context
    from graphprune.selection import Selection

    model = load(network.path)
    run_passes(model, parse_pipeline("canonicalize"), Context())
    program = program_of(model)
    structure = program.read()
    batches = load_batches(data.calibration, model, seed=seed)
    start = time.perf_counter()
    nothing = Selection(structure.space, {})
    outcome = compensate(program.clone(), structure, nothing, model, batches.feeds, Options(seed=seed), lambda _: None)
    save(model, slim)
    return {"status": "dense", "changed": outcome.changed, "seconds": time.perf_counter() - start}


def said(result: Any) -> Row:
    """What a result of graphprune says of itself."""
    return {
        "status": result.status,
        "verified": result.verified,
        "macs": [result.macs.before, result.macs.after],
        "params": [result.params.before, result.params.after],
        "notes": list(result.notes),
        "stages": {stage: round(spent, 3) for stage, spent in result.seconds.items()},
    }


def theirs(network: Network, method: Method, case: Case, data: Data, slim: Path) -> Row:
    """Prune with Torch-Pruning, write to ``slim``; what the slim network costs is counted as ours is."""
    import torch
    from accuracy_torch_pruning import pruned, to_onnx

    import graphprune

    torch.set_num_threads(1)
    module, ratio, seconds = pruned(network.name, method, case.keep / 100, data.calibration, data.labels, case.seed)
    slim.write_bytes(to_onnx(module, torch.from_numpy(data.calibration[0]["input"][:1].copy())))
    before, after = graphprune.inspect(network.path).counts, graphprune.inspect(slim).counts
    return {
        "status": "pruned",
        "macs": [before.macs, after.macs],
        "params": [before.params, after.params],
        "ratio": ratio,
        "seconds": seconds,
    }


def row(case: Case) -> Row:
    """Prune and measure."""
    network, method = NETWORKS[case.network], METHODS[case.method]
    data = network.data(case.seed)
    dense = network.dense(case.seed)
    if case.method == "dense":
        return {"status": "dense", "figures": data.measure(dense, dense)}
    if method.labelled:
        import torch

        found, module = labelled(network, method, case, data)
        with torch.no_grad():
            parts = [module(torch.from_numpy(feed["input"])).numpy() for feed in data.evaluation()]
        return {**found, "figures": data.measure(np.concatenate(parts), dense)}
    with tempfile.TemporaryDirectory() as folder:
        slim = Path(folder) / "slim.onnx"
        if method.kind == "dense":
            found = control(network, data, case.seed, slim)
        else:
            found = (theirs if method.rival else ours)(network, method, case, data, slim)
        return {**found, "figures": data.measure(outputs(slim, data.evaluation()), dense)}


def main() -> int:
    """Do one row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", help="the fields of the row as JSON")
    case = Case(**json.loads(parser.parse_args().case))
    warnings.simplefilter("ignore")
    from graphprune.errors import GraphpruneError

    try:
        found = row(case)
    except GraphpruneError as error:
        found = {"status": "refused", "reason": str(error)}
    except Exception as error:  # whatever the tools raise is their row's outcome
        traceback.print_exc(file=sys.stderr)
        found = {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

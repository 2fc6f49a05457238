"""How much memory it takes to compensate a network of the size of ResNet-50 on 128 calibration images.

Writes our own ResNet-50 (random weights, 224 pixels) and the images to files, prunes it to half of its
multiply-accumulates with compensation in a process of its own, and reports that process' peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_data import BUILD

LIMIT = 4e9
"""Bytes that the process may take."""
PROGRAM = """
import json, sys, numpy, graphprune
images = numpy.load(sys.argv[2], mmap_mode="r")
size = int(sys.argv[4])
feeds = [{sys.argv[5]: numpy.asarray(images[i:i + size])} for i in range(0, len(images), size)]
result = graphprune.prune(
    sys.argv[1], output=sys.argv[3], macs="50%", calibration=feeds, recipe=sys.argv[6],
    progress=lambda stage: print(stage, file=sys.stderr, flush=True),
)
print(json.dumps({**result.to_dict(), "said": len(result.notes)}))
"""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="images of one feed")
    parser.add_argument("--recipe", default="calibrated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="a small network and few images, to try this program")
    parser.add_argument("--results", type=Path, default=BUILD / "accuracy.jsonl")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if the memory limit is exceeded or pruning fails."""
    options = arguments(argv)
    import onnx

    from graphprune.models.reference import resnet50

    with tempfile.TemporaryDirectory() as scratch:
        model, images, slim = (Path(scratch) / name for name in ("dense.onnx", "images.npy", "slim.onnx"))
        network = resnet50(tiny=options.tiny, seed=options.seed)
        onnx.save_model(network, model)
        given = network.graph.input[0]
        _, *shape = (dimension.dim_value for dimension in given.type.tensor_type.shape.dim)
        noise = np.random.default_rng(options.seed).normal(size=(options.images, *shape))
        np.save(images, noise.astype(np.float32))
        command = [sys.executable, "-c", PROGRAM, str(model), str(images), str(slim), str(options.batch)]
        start = time.perf_counter()
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen([*command, given.name, options.recipe], stdout=output, stderr=errors)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            errors.seek(0)
            found, shown = output.read(), errors.read()
    if process.returncode:
        print(shown, file=sys.stderr)
        return 1
    result: dict[str, Any] = json.loads(found)
    peak = usage.ru_maxrss * 1024
    row: dict[str, Any] = {
        "name": f"resnet50/memory/{options.recipe}/s{options.seed}",
        "part": "memory",
        "network": "resnet50",
        "seed": options.seed,
        "images": options.images,
        "batch": options.batch,
        "wall": time.perf_counter() - start,
        "progress": len(shown.splitlines()),
        **result,
        "memory": peak,
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with options.results.open("a") as file:
        file.write(json.dumps(row) + "\n")
    fits = "under" if peak < LIMIT else "OVER"
    print(
        f"{row['name']}: {options.images} images, {row['wall']:.0f} s, {row['progress']} lines of progress, "
        f"peak {peak / 1e9:.2f} GB: {fits} {LIMIT / 1e9:.0f} GB"
    )
    return int(peak >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())

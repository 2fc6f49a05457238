"""Analyses a decoder of seven billion parameters that has no weights: seconds for its groups, and the peak of memory.

The module is made on PyTorch's ``meta`` device, exported and read; the extents are those of Llama 2 7B. The peak is the
resident memory of the whole process, PyTorch included.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
import warnings

import torch
from machine import header

from graphprune.frontends.torch_program import capture
from graphprune.models.reference import LlamaSizes
from graphprune.models.torch_reference import Llama

SIZES = LlamaSizes(vocabulary=32000, hidden=4096, heads=32, groups=32, inner=11008)
LAYERS = 32
REPEAT = 5


def peak() -> float:
    """Return the peak of resident memory so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> int:
    """Run the benchmark; return the exit status."""
    warnings.simplefilter("ignore")
    for key, text in header(["torch", "numpy"]).items():
        print(f"{key}: {text}")
    imported = peak()
    with torch.device("meta"):
        module = Llama(SIZES, LAYERS).eval()
        tokens = torch.zeros(1, 16, dtype=torch.int64)
    start = time.perf_counter()
    program = capture(module, (tokens,))
    exported = time.perf_counter() - start
    seconds, worked = [], []
    for _ in range(REPEAT):
        start, before = time.perf_counter(), time.process_time()
        structure = program.read()
        groups = structure.groups
        seconds.append(time.perf_counter() - start)
        worked.append(time.process_time() - before)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    print(f"parameters: {parameters / 1e9:.2f} billion; operators: {len(structure.calls)}; groups: {len(groups)}")
    print(f"torch.export: {exported:.2f} s")
    print(f"groups: {statistics.median(seconds):.2f} s, {statistics.median(worked):.2f} s of the processor (medians)")
    print(f"peak of memory: {peak():.0f} MB, of which {imported:.0f} MB are imports")
    return 0


if __name__ == "__main__":
    sys.exit(main())

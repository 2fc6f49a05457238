"""Prune one ONNX file by onnxsim's ``apply_structured_pruning``, the only other tool that takes plain ONNX files.

``python benchmarks/prune_onnxsim.py ORIGINAL OUTPUT SPARSITY``; needs ``pip install onnxsim==0.8.1``.
"""

from __future__ import annotations

import sys

import onnx
import onnxsim

if __name__ == "__main__":
    original, output, sparsity = sys.argv[1:]
    onnx.save_model(onnxsim.apply_structured_pruning(onnx.load_model(original), sparsity=float(sparsity)), output)

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not os.environ.get("GRAPHPRUNE_CORPUS"), reason="GRAPHPRUNE_CORPUS is not set"),
]

PROGRAM = """
import sys
import numpy as np
import accuracy_networks as networks
from accuracy_data import Images, normalised
from accuracy_text import reactions

resnet = networks.NETWORKS["resnet20"]
pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)
images = Images(pixels, np.arange(24) % 10)
data = networks.classification(images.take(np.arange(8)), images, 8)
dense = networks.outputs(resnet.path, data.evaluation())
assert dense.shape == (24, 10)
same, other = data.measure(dense, dense), data.measure(-dense, dense)
assert same["agreement"] == 1 and abs(same["kl"]) < 1e-9, same
assert other["agreement"] == 0 and other["kl"] > 1, other
assert np.abs(normalised(pixels[:1]).mean()) < 1 and len(data.calibration) == 1
some = reactions(40, 0)
assert len(np.unique(some.tokens, axis=0)) == 40 and (some.tokens[np.arange(40), some.place] == 14).all()
"""


def test_what_is_measured_of_a_network_and_of_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=BENCHMARKS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_table_is_put_between_its_markers_and_says_what_failed(tmp_path: Path) -> None:
    shared = {"part": "resnet", "network": "resnet20", "seed": 0}
    figures = {"accuracy": 0.8, "agreement": 1.0, "kl": 0.0}
    rows = [
        {**shared, "name": "a", "keep": 100, "method": "dense", "kind": "dense", "status": "dense", "figures": figures},
        {**shared, "name": "b", "keep": 50, "method": "l1-local", "kind": "magnitude", "status": "pruned"},
        {**shared, "name": "c", "keep": 50, "method": "x", "kind": "magnitude", "status": "failed", "reason": "a | b"},
    ]
    rows[1] |= {"figures": {"accuracy": 0.55, "agreement": 0.6, "kl": 0.7}, "macs": [200, 100], "params": [8, 2]}
    results, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page.write_text("before\n<!-- table: begin -->\nold\n<!-- table: end -->\nafter\n")
    command = [sys.executable, str(BENCHMARKS / "accuracy.py"), "--table", "--results", str(results)]
    done = subprocess.run([*command, "--markdown", str(page)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    text = page.read_text()
    assert text.startswith("before\n<!-- table: begin -->")
    assert text.endswith("<!-- table: end -->\nafter\n")
    assert "old" not in text
    assert "| `b` | magnitude | 50.0 % | 25.0 % | 55.0 % | 25.0 | 60.0 % | 0.700 |" in text
    assert "failed: a / b" in text

"""Running and measuring on a device behind TVM's RPC server; here it is this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import parse
from tvm_programs import convolution, needs_tvm

import graphprune
from graphprune.backends.latency import measuring
from graphprune.backends.registry import load
from graphprune.backends.tvm.backend import Tvm
from graphprune.errors import UsageError

pytestmark = needs_tvm

FEED = {"x": np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens there, without connecting: the server serves one client at a time."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    port = free_port()
    place = ["--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1), "--no-fork"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tvm.exec.rpc_server", *place],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # it starts a process of its own, which has to end with it
    )
    try:
        for _ in range(300):
            if listens(port):
                break
            assert process.poll() is None
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_remote_device_computes_the_same_and_is_measured(server: str, tmp_path: Path) -> None:
    executable = Tvm().compile(convolution(), "cpu", threads=1, dims={"n": 1}, rpc=server)
    assert executable.notes[-1].startswith("outputs differ from the original's")
    measurement = executable.measure(FEED, repeats=6, warmup=1)
    assert measurement.timings[0].median > 0
    assert measurement.circumstances == f"threads: 1, on x 1x4x8x8; the device at {server}"
    folder = executable.save(tmp_path / "made", measurement)
    told = json.loads((folder / "manifest.json").read_text())["latency"]
    assert (told["device"], told["machine"], told["pinned"]) == (server, None, [])
    here = load(folder)(FEED)["y"]
    assert np.ptp(here) > 1
    assert np.array_equal(load(folder, rpc=server)(FEED)["y"], here)


def two_convolutions() -> ir.Model:
    generator = np.random.default_rng(0)
    text = """g (float[n, 4, 8, 8] x) => (float[n, 8, 8, 8] y) {
        a = Conv<pads=[1, 1, 1, 1]>(x, w)
        b = Relu(a)
        y = Conv<pads=[1, 1, 1, 1]>(b, v)
    }"""
    weights = {name: generator.standard_normal(shape) for name, shape in (("w", (64, 4, 3, 3)), ("v", (8, 64, 3, 3)))}
    return parse(text, **{name: value.astype(np.float32) for name, value in weights.items()})


def test_a_cut_is_chosen_by_times_of_the_device(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    timed: list[str] = []
    told = measuring.OperatorTimer.__call__

    def watched(timer: measuring.OperatorTimer, model: Any) -> float | None:
        found = told(timer, model)
        timed.append("" if found else timer.refusal)
        return found

    monkeypatch.setattr(measuring.OperatorTimer, "__call__", watched)
    result = graphprune.prune(
        two_convolutions(),
        ratio=0.5,
        round_to="auto",
        backend="tvm",
        threads=1,
        dims={"n": 1},
        rpc=server,
        gate=True,
        allow_slower=True,
        measure_seconds=2.0,
    )
    assert result.verified
    assert timed
    assert not any(timed)
    assert result.speed.ratio > 0


def test_where_nobody_answers_nothing_is_pruned() -> None:
    place = {"backend": "tvm", "dims": {"n": 1}, "rpc": f"127.0.0.1:{free_port()}"}
    with pytest.raises(UsageError, match=r"no RPC server of TVM answers at 127.0.0.1"):
        graphprune.prune(convolution(), ratio=0.5, round_to="auto", **place)
    with pytest.raises(UsageError, match="--rpc is for devices with a server of TVM's: give --backend tvm"):
        graphprune.prune(convolution(), ratio=0.5, round_to="auto", rpc="127.0.0.1:9090")


def test_nobody_answers() -> None:
    with pytest.raises(UsageError, match=r"no RPC server of TVM answers at 127.0.0.1"):
        Tvm().compile(convolution(), "cpu", dims={"n": 1}, rpc=f"127.0.0.1:{free_port()}")

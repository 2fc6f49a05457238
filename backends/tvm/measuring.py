"""How MetaSchedule's candidates are built and measured: in processes of their own, here or over RPC."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from graphprune.backends.tvm.options import TvmOptions, parse_address
from graphprune.backends.tvm.targets import TargetInfo, cores

__all__ = ["Failures", "builder", "report_to", "runner"]

BUILD_SECONDS = 600.0
"""After which the building of a candidate is given up.

TVM's own half minute ends before a process on a busy machine has imported TVM, and then no candidate is ever measured.
"""

RUN_SECONDS = 120.0


@dataclass
class Failures:
    """How many trials there were, how many of them failed, and the first line about the first that did."""

    trials: int = 0
    count: int = 0
    first: str = ""


def builder(wanted: TvmOptions) -> Any:
    """TVM's builder, which compiles candidates in processes of their own; it tells whoever waits of each batch.

    What was measured is told after a task's *second* turn only, which takes minutes where there are many tasks.
    """
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.builder import LocalBuilder, PyBuilder

    local = LocalBuilder(max_workers=cores(None), timeout_sec=BUILD_SECONDS, f_build=_build)
    batches = 0

    @derived_object
    class Builder(PyBuilder):  # type: ignore[misc]
        def build(self, build_inputs: Any) -> Any:
            nonlocal batches
            batches += 1
            wanted.say(f"tuning: compiling and measuring {len(build_inputs)} schedules, batch {batches}")
            return local.build(build_inputs)

    return Builder()


def runner(info: TargetInfo, wanted: TvmOptions) -> Any:
    """TVM's runner: here, or on the device behind an RPC server."""
    from tvm.s_tir.meta_schedule.runner import EvaluatorConfig, LocalRunner, RPCConfig, RPCRunner

    evaluation = EvaluatorConfig(number=3, repeat=1, min_repeat_ms=100, enable_cpu_cache_flush=False)
    if wanted.rpc is None:
        return LocalRunner(timeout_sec=RUN_SECONDS, evaluator_config=evaluation)
    host, port = parse_address(wanted.rpc)
    # A tracker hands out devices by name; there is one device here, so nobody is asked for it.
    unused = RPCConfig(tracker_host=host, tracker_port=port, tracker_key="-", session_timeout_sec=int(RUN_SECONDS))
    connect = functools.partial(_connect, host, port)
    return RPCRunner(unused, evaluator_config=evaluation, max_workers=1, f_create_session=connect)


def report_to(wanted: TvmOptions, failures: Failures) -> Any:
    """TVM's callback after each batch: counts it, and tells whoever waits."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.measure_callback import PyMeasureCallback

    @derived_object
    class Report(PyMeasureCallback):  # type: ignore[misc]
        def apply(
            self, task_scheduler: Any, task_id: int, measure_candidates: Any, builder_results: Any, runner_results: Any
        ) -> None:
            failures.trials += len(builder_results)
            for built, ran in zip(builder_results, runner_results, strict=True):
                message = built.error_msg or ran.error_msg
                if message:
                    failures.count += 1
                    failures.first = failures.first or _last_line(str(message))
            wanted.say(f"tuning: {failures.trials} of {wanted.tune} trials")

    return Report()


def _build(module: Any, target: Any, _parameters: Any) -> Any:
    """What TVM's builder does, without the import of intrinsics that a scheduled candidate needs no more."""
    from tvm.driver import build
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

    return build(RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(module), target=target)


def _connect(host: str, port: int, _config: Any) -> Any:
    from tvm import rpc

    return rpc.connect(host, port, session_timeout=RUN_SECONDS)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")

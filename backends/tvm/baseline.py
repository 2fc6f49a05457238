"""What tasks take without tuning, measured like the candidates of tuning and kept among them.

A database gives each task its fastest record. With the plain schedule among them, trials that found nothing better do
not make a program slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphprune.backends.tvm.cpu_schedule import arranged

__all__ = ["add_plain"]


def add_plain(tasks: Sequence[Any], target: Any, device: str, database: Any, builder: Any, runner: Any) -> list[str]:
    """Measure the plain schedule of each task on ``device`` and commit it; why, for each that could not be measured."""
    from tvm.s_tir import Schedule
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo
    from tvm.s_tir.meta_schedule.builder import BuilderInput
    from tvm.s_tir.meta_schedule.database import TuningRecord
    from tvm.s_tir.meta_schedule.runner import RunnerInput

    plain = []
    for task in tasks:
        schedule = Schedule(task.dispatched[0])
        if arranged(schedule, target):
            plain.append((task.dispatched[0], schedule, ArgInfo.from_entry_func(task.dispatched[0])))
    if not plain:
        return []
    built = builder.build([BuilderInput(schedule.mod, target) for _, schedule, _ in plain])
    failed = [str(made.error_msg).splitlines()[0] for made in built if made.error_msg]
    good = [(each, made.artifact_path) for each, made in zip(plain, built, strict=True) if not made.error_msg]
    inputs = [RunnerInput(path, device, arguments) for (_, _, arguments), path in good]
    for ((module, schedule, arguments), _), future in zip(good, runner.run(inputs) if inputs else (), strict=True):
        found = future.result()
        if found.error_msg:
            failed.append(str(found.error_msg).splitlines()[0])
            continue
        workload = database.commit_workload(module)
        seconds = [float(each) for each in found.run_secs]
        database.commit_tuning_record(TuningRecord(schedule.trace, workload, seconds, target, arguments))
    return failed

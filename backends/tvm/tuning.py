"""Schedules found by measuring, with MetaSchedule, in a database that is kept: what was measured once is not again.

A *task* is a loop nest that fusion gave; networks that were pruned share those whose shapes did not change. The
database is TVM's own pair of JSON files, in a folder for each target, because TVM finds records by the task alone.
MetaSchedule: Shao et al., Tensor Program Optimization with Probabilistic Programs (2022).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphprune.backends.quiet import quiet
from graphprune.backends.tvm.baseline import add_plain
from graphprune.backends.tvm.measuring import Failures, builder, report_to, runner
from graphprune.backends.tvm.options import TvmOptions
from graphprune.backends.tvm.package import require_for_tuning, versions
from graphprune.backends.tvm.targets import TargetInfo, cores
from graphprune.errors import ModelError, UsageError
from graphprune.text import first_line

__all__ = ["Tuning", "database_folder", "stored_database", "tuned"]

BATCH = 64
"""The most schedules that are measured of a task before the next one's turn, as in TVM."""

FILES = ("database_workload.json", "database_tuning_record.json")


@dataclass(frozen=True, slots=True)
class Tuning:
    """How many tasks were found, how many of them tuned now and how many reused, in how many trials.

    ``plain_failures`` says why plain schedules could not be measured: those tasks have trials alone.
    """

    found: int
    tuned: int
    reused: int
    trials: int
    database: str
    plain_failures: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """One line."""
        left = self.found - self.tuned - self.reused
        more = f", {left} left untuned" if left else ""
        plain = self.plain_failures
        if plain:
            more += f", {len(plain)} without a plain schedule to compare with ({plain[0]})"
        return (
            f"tuning: {self.found} tasks, {self.tuned} tuned with {self.trials} trials, "
            f"{self.reused} reused{more}; {self.database}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {**asdict(self), "plain_failures": list(self.plain_failures)}


def tuned(module: Any, target: Any, info: TargetInfo, wanted: TvmOptions) -> tuple[Any, Tuning]:
    """The database after the tasks of ``module`` (what ``fused`` gives) that it had no record of were tuned.

    At most ``wanted.tune`` schedules are measured: the tasks with most arithmetic first where they do not suffice for
    one each, else shared as TVM's gradient scheduler sees fit.

    Raises:
        UsageError: a package is missing, or the target is not here and no RPC server is named.
        ModelError: not one schedule could be measured, or the database is damaged.
    """
    _require_device(info, wanted)
    require_for_tuning()
    from tvm.s_tir import meta_schedule

    folder = database_folder(wanted.folder, target)
    with quiet(), _locked(folder):
        database = _database(folder)
        tasks = [
            task
            for task in meta_schedule.relax_integration.extract_tasks(module, target)
            if not task.mod.attrs.get("tirx.is_scheduled", False)
        ]
        new = [task for task in tasks if not _has_record(database, task.dispatched[0])]
        chosen = sorted(new, key=_work, reverse=True)[: wanted.tune]
        trials = 0
        plain: tuple[str, ...] = ()
        if chosen:
            failures = Failures()
            with _threads(cores(wanted.threads)), _scratch():
                plain = _tune(chosen, target, info, wanted, database, failures)
            trials = failures.trials
            if failures.trials == failures.count:
                raise ModelError(f"tuning: none of {trials} schedules could be measured ({failures.first})")
        done = sum(_has_record(database, task.dispatched[0]) for task in chosen)
    return database, Tuning(len(tasks), done, len(tasks) - len(new), trials, str(folder), plain)


def database_folder(root: Path, target: Any) -> Path:
    """The folder of a target's database: named by its processor, and by all that schedules depend on."""
    text = f"{target} {versions().get('apache-tvm', '')}"
    attributes = dict(target.attrs)
    name = str(attributes.get("mcpu") or attributes.get("arch") or target.kind.name)
    return root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def stored_database(root: Path, target: Any) -> Any:
    """The database that tuning for ``target`` left in ``root``.

    Raises:
        UsageError: there is none.
        ModelError: it is damaged.
    """
    folder = database_folder(root, target)
    if not all((folder / name).is_file() for name in FILES):
        raise UsageError(f"{root}: nothing was tuned there for {target}; tune with --tune TRIALS --database {root}")
    with quiet():
        return _database(folder)


def _tune(
    tasks: Sequence[Any], target: Any, info: TargetInfo, wanted: TvmOptions, database: Any, failures: Failures
) -> tuple[str, ...]:
    """Tune; why plain schedules could not be measured, for each of them that could not."""
    from tvm.s_tir import meta_schedule

    each = max(1, min(BATCH, wanted.tune // len(tasks)))
    population = min(512, 16 * each)  # a search in proportion to what is measured; TVM's own for full batches
    contexts = [
        meta_schedule.TuneContext(
            mod=task.dispatched[0],
            target=target,
            space_generator="post-order-apply",
            search_strategy=meta_schedule.search_strategy.EvolutionarySearch(
                population_size=population, init_min_unmeasured=min(50, population // 2)
            ),
            task_name=task.task_name,
            rand_state=wanted.seed + 1 + index,
            num_threads=cores(None),
        ).clone()
        for index, task in enumerate(tasks)
    ]
    compiler, device = builder(wanted), runner(info, wanted)
    wanted.say("tuning: measuring what there is without")
    plain = add_plain(tasks, target, info.device, database, compiler, device)
    create = meta_schedule.measure_callback.MeasureCallback.create
    callbacks = [report_to(wanted, failures), *(each for each in create("default") if not _prints(each))]
    meta_schedule.tune_tasks(
        tasks=contexts,
        task_weights=[task.weight for task in tasks],
        work_dir=str(wanted.folder),
        max_trials_global=wanted.tune,
        num_trials_per_iter=each,
        builder=compiler,
        runner=device,
        database=database,
        measure_callbacks=callbacks,
    )
    return tuple(plain)


def _prints(callback: Any) -> bool:
    return "Echo" in type(callback).__name__


def _require_device(info: TargetInfo, wanted: TvmOptions) -> None:
    from graphprune.backends.tvm.running import obstacle

    if info.kind == "c":
        raise UsageError("tuning is for machine code, and C sources are compiled elsewhere; leave --tune out")
    if wanted.rpc is None and (why := obstacle(info, Path(info.binary))):
        raise UsageError(f"tuning measures on the device, and {why}")


def _database(folder: Path) -> Any:
    from tvm.s_tir import meta_schedule

    try:
        return meta_schedule.database.JSONDatabase(*(str(folder / name) for name in FILES))
    except Exception as error:  # whatever TVM says of a file that ends in the middle of a record
        raise ModelError(f"{folder}: the database is damaged ({first_line(error)}); remove the folder") from error


def _has_record(database: Any, module: Any) -> bool:
    if not database.has_workload(module):
        return False
    return any(record.run_secs for record in database.get_top_k(database.commit_workload(module), 1))


def _work(task: Any) -> float:
    """The arithmetic of a task in all the places where the network has it."""
    from tvm.s_tir.analysis import estimate_tir_flops

    try:
        return float(estimate_tir_flops(task.dispatched[0])) * float(task.weight)
    except Exception:  # sizes that it cannot make out
        return 0.0


@contextlib.contextmanager
def _scratch() -> Iterator[None]:
    """Let the processes that build and measure leave their files where they are removed, which TVM does not do."""
    before, known = os.environ.get("TMPDIR"), tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="graphprune-tuning-", ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"], tempfile.tempdir = folder, None
        try:
            yield
        finally:
            tempfile.tempdir = known
            os.environ.pop("TMPDIR")
            if before is not None:
                os.environ["TMPDIR"] = before


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Make the processes that measure use as many threads as the program will."""
    before = os.environ.get("TVM_NUM_THREADS")
    os.environ["TVM_NUM_THREADS"] = str(number)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TVM_NUM_THREADS"]
        else:
            os.environ["TVM_NUM_THREADS"] = before


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a database meanwhile; the lock goes with the process.

    Raises:
        ModelError: the folder cannot be written.
        UsageError: another process tunes with it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a")
    except OSError as error:
        raise ModelError(f"{folder}: the database cannot be written ({error.strerror or error})") from error
    with file:
        if not _lock(file.fileno()):
            raise UsageError(f"{folder}: another process tunes with this database; wait for it, or name another")
        yield


def _lock(number: int) -> bool:
    """Whether a file could be locked; where the system has no such locks it always can."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

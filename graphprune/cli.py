"""The command line: ``graphprune COMMAND``, one module of :mod:`graphprune.commands` each.

Exit codes: 0 done; 2 usage; 3 unreadable or invalid input, or an output that cannot be written; 4 nothing to prune, or
the target is out of reach; 5 verification failed; 6 not shown to be faster; 130 and 143 interrupted and terminated; 141
nobody reads the output; 1 only for a bug. Whatever the code is not 0, no output is left behind and standard error has
one line that says why; with ``--json`` the reason is also the document on standard output.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Annotated

import typer

from graphprune.commands import (
    apply,
    backends,
    bench,
    compile,
    demo,
    explain,
    inspect,
    prune,
    run,
    sensitivity,
    sweep,
    verify,
)
from graphprune.commands.result import RESULT_FIELDS
from graphprune.commands.terminal import write_document
from graphprune.errors import GraphpruneError, ModelError
from graphprune.garbage import rarely_collected

__all__ = ["app", "main"]

INTERRUPTED, UNREAD, TERMINATED = 130, 141, 143

EPILOG = (
    "Exit codes: 0 done; 2 usage; 3 unreadable or invalid input; 4 nothing to prune or target out of reach; "
    "5 verification failed; 6 not shown to be faster; 1 a bug."
)

app = typer.Typer(
    name="graphprune",
    help="Prune an ONNX model or a PyTorch module structurally: smaller, and proven equal to zeroing what was cut.",
    epilog=EPILOG,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Carried(Exception):
    """Brings an error past typer, which would answer some of them itself, each version others."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def _carrying(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> None:
        try:
            command(*arguments, **options)
            sys.stdout.flush()
        except BaseException as error:
            raise _Carried(error) from error

    return run


for module in (inspect, explain, prune, sweep, sensitivity, apply, verify, bench, compile, run, backends, demo):
    app.command(module.NAME)(_carrying(module.command))


def _show_version(wanted: bool) -> None:
    if wanted:
        from graphprune.version import __version__

        print(f"graphprune {__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with ``arguments`` (those of the process by default) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with _terminable(), rarely_collected(), warnings.catch_warnings():
            if "--debug" not in given:
                warnings.simplefilter("ignore")
            code = app(given or ["--help"], prog_name="graphprune", standalone_mode=False)
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BaseException as error:
        failure = _failure(error.error if isinstance(error, _Carried) else error)
        with contextlib.suppress(OSError, ValueError):
            failure.report("--json" in given, "--debug" in given, given[0] if given else "")
        return failure.code


@dataclass(frozen=True, slots=True)
class _Failure:
    """How a command ended that did not succeed."""

    code: int
    kind: str
    message: str
    error: BaseException

    def report(self, document: bool, debug: bool, command: str) -> None:
        """Say it: one line, with ``debug`` a traceback before it, with ``document`` as JSON too."""
        if self.code == UNREAD:
            # Python flushes standard output once more on its way out, into a pipe that nobody reads.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        if debug:
            traceback.print_exception(self.error, file=sys.stderr)
        print(f"graphprune: {self.message}", file=sys.stderr, flush=True)  # noqa: T201
        if document:
            status = "refused" if 1 < self.code < INTERRUPTED else "failed"
            fields = dict.fromkeys(RESULT_FIELDS) if command in (prune.NAME, apply.NAME) else {}
            details = self.error.details if isinstance(self.error, GraphpruneError) else {}
            error = {"code": self.code, "kind": self.kind, "message": self.message}
            write_document({"status": status, **fields, **details, "error": error})


def _failure(error: BaseException) -> _Failure:
    """What an exception that reached the top means."""
    kind = type(error).__name__
    if isinstance(error, GraphpruneError):
        return _Failure(error.exit_code, kind, _line(str(error)), error)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _Failure(INTERRUPTED, "Interrupted", "interrupted", error)
    if isinstance(error, SystemExit) and error.code == TERMINATED:
        return _Failure(TERMINATED, "Terminated", "terminated", error)
    if isinstance(error, BrokenPipeError | SystemExit):  # typer exits where help cannot be written
        return _Failure(UNREAD, kind, "", error)
    if hasattr(error, "format_message"):  # what typer raises has had several base classes over its versions
        context = getattr(error, "ctx", None)
        help_command = f"{context.command_path if context else 'graphprune'} --help"
        said = _line(error.format_message()).replace(": Value error, ", ": ").rstrip(".")
        message = f"{said} (see `{help_command}`)"
        return _Failure(2, "UsageError", message, error)
    if isinstance(error, MemoryError):
        return _Failure(ModelError.exit_code, kind, "not enough memory for this model", error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _Failure(ModelError.exit_code, kind, _line(f"{where}{error.strerror or error}"), error)
    message = f"internal error: {kind}: {_line(str(error))}; please report it (--debug shows the traceback)"
    return _Failure(1, kind, message, error)


def _line(text: str) -> str:
    return " ".join(text.split())


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the program like an exception does, so that every context is left in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main())

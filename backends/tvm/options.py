"""How a model is compiled with TVM."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from graphprune.backends.cache import cache_folder
from graphprune.clock import Progress
from graphprune.errors import UsageError

__all__ = ["TvmOptions", "parse_address"]


@dataclass(frozen=True, slots=True)
class TvmOptions:
    """How a model is compiled.

    Args:
        threads: of the program; one for each processor where it is None.
        processor: what code is made for, as LLVM names it (``cortex-a72``), or NVIDIA's ``sm_80``. By default the
            processor at hand (``cpu``), its GPU (``cuda``), or one that every machine of the target can stand in for.
        tune: how many schedules are measured in all; none where it is 0.
        database: where what was measured is kept, a folder for each target; by default in the user's cache.
        rpc: ``HOST:PORT`` of TVM's RPC server on the device to measure and run on.
        verify: whether the outputs are compared with those of the original, where the target is at hand.
        dims: sizes of symbolic dimensions by name, which the program is compiled for.
        seed: of everything random.
        progress: is told what is being done.
    """

    threads: int | None = None
    processor: str | None = None
    tune: int = 0
    database: str | os.PathLike[str] | None = None
    rpc: str | None = None
    verify: bool = True
    dims: Mapping[str, int] | None = None
    seed: int = 0
    progress: Progress | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TvmOptions:
        """Options by name.

        Raises:
            UsageError: there is no such option or value.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(options.keys() - set(known)):
            raise UsageError(f"tvm has no option '{unknown[0]}'; it has: {', '.join(known)}")
        made = cls(**options)
        if made.threads is not None and made.threads < 1:
            raise UsageError(f"threads must be at least 1, not {made.threads}")
        if made.tune < 0:
            raise UsageError(f"tune: {made.tune} is no number of trials; give at least 1, or leave it out")
        if made.database is not None and not made.tune:
            raise UsageError("a database is for tuning; say how many trials, as --tune 200")
        if made.rpc is not None:
            parse_address(made.rpc)
        return made

    def say(self, text: str) -> None:
        """Tell whoever waits what is being done."""
        if self.progress is not None:
            self.progress(text)

    @property
    def folder(self) -> Path:
        """Where the databases are."""
        if self.database is not None:
            return Path(self.database)
        return cache_folder() / "tvm"


def parse_address(text: str) -> tuple[str, int]:
    """Host and port.

    >>> parse_address("board.local:9090")
    ('board.local', 9090)

    Raises:
        UsageError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--rpc: '{text}' is not HOST:PORT")
    return host, int(port)

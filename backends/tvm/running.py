"""Where TVM's programs run: in this process, or on a device behind TVM's RPC server."""

from __future__ import annotations

import gc
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from graphprune.backends.machine import processors
from graphprune.backends.tvm.loader import library as linked_library
from graphprune.backends.tvm.loader import machine
from graphprune.backends.tvm.options import parse_address
from graphprune.backends.tvm.package import library
from graphprune.backends.tvm.targets import TargetInfo, cores, is_here, linker
from graphprune.errors import ModelError, UsageError
from graphprune.text import first_line

__all__ = ["Here", "Remote", "Runner", "connect", "obstacle"]

Arrays = Sequence[np.ndarray[Any, Any]]

SHARED = -3
"""TVM's way of placing threads in which any of them runs on any of the processors that are named."""


FASTEST = 1
"""TVM's way of placing threads on the fastest processors first."""


_sessions: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_opening = threading.Lock()


class Runner(Protocol):
    """A library that was loaded and runs."""

    def __call__(self, inputs: Arrays) -> list[Any]:
        """The outputs, as arrays."""
        ...

    def prepare(self, inputs: Arrays) -> Callable[[], object]:
        """A function that runs it once on inputs that are on the device already, and returns when that is done."""
        ...


class Here:
    """A library on a device of this machine."""

    def __init__(self, path: Path, info: TargetInfo, threads: int | None) -> None:
        library()
        with tempfile.TemporaryDirectory() as scratch:
            command = linker(info) if path.suffix == ".tar" else None
            try:
                self._machine, self._device = machine(linked_library(path, Path(scratch), command), info.device)
            except Exception as error:  # the loader of libraries, or the linker
                raise ModelError(f"{path}: cannot be loaded ({first_line(error)})") from error
        self._main = self._machine["main"]
        self._threads = threads

    def __call__(self, inputs: Arrays) -> list[Any]:
        self._place_threads()
        return _arrays(self._main(*self._placed(inputs)))

    def prepare(self, inputs: Arrays) -> Callable[[], object]:
        arguments, main, device = self._placed(inputs), self._main, self._device
        self._place_threads()

        def run() -> object:
            found = main(*arguments)
            device.sync()
            return found

        return run

    def _placed(self, inputs: Arrays) -> list[Any]:
        return [library().runtime.tensor(np.asarray(each, order="C"), self._device) for each in inputs]

    def _place_threads(self) -> None:
        """Threads of TVM belong to the calling thread, so that programs with other numbers of them share them."""
        names = [str(each) for each in processors()]
        library().get_global_func("runtime.config_threadpool")(SHARED, cores(self._threads), names)


class Remote:
    """A library on a device behind an RPC server."""

    def __init__(self, path: Path, info: TargetInfo, address: str, threads: int | None = None) -> None:
        tvm = library()
        self.address = address
        self._session = connect(address)
        name = f"graphprune-{uuid.uuid4().hex}{path.suffix}"
        try:
            self._session.upload(bytearray(path.read_bytes()), name)
            self._device = self._session.device(info.device, 0)
            self._machine = tvm.relax.VirtualMachine(self._session.load_module(name), self._device)
            self._session.remove(name)
            if threads is not None:
                self._session.get_function("runtime.config_threadpool")(FASTEST, threads)
        except Exception as error:  # whatever the server answers
            raise ModelError(f"{path.name}: does not load at {address} ({first_line(error)})") from error

    def __call__(self, inputs: Arrays) -> list[Any]:
        self.prepare(inputs)()
        return _arrays(self._machine.get_outputs("main"))

    def prepare(self, inputs: Arrays) -> Callable[[], object]:
        tensor, device, vm = library().runtime.tensor, self._device, self._machine
        vm.set_input("main", *(tensor(np.asarray(each, order="C"), device) for each in inputs))

        def run() -> object:
            vm.invoke_stateful("main")
            device.sync()
            return None

        return run


def connect(address: str) -> Any:
    """The session with the RPC server at ``HOST:PORT``, which all that runs there shares.

    A server serves one session at a time and lets others wait.

    Raises:
        UsageError: none answers.
    """
    from tvm import rpc

    host, port = parse_address(address)
    try:
        with _opening:
            session = _sessions.get(address)
            if session is None:
                gc.collect()  # cycles may keep the last session open, which this one would wait for
                _sessions[address] = session = rpc.connect(host, port)
        return session
    except Exception as error:  # TVM's own, for whatever the network says
        raise UsageError(
            f"no RPC server of TVM answers at {address} ({first_line(error)}): "
            "run `python -m tvm.exec.rpc_server --host 0.0.0.0 --port 9090` on the device"
        ) from error


def obstacle(info: TargetInfo, binary: Path) -> str:
    """Why what was compiled for a target cannot run on this machine; nothing where it can."""
    if not is_here(info):
        return f"it is for {info.machine}: run it there, or give --rpc HOST:PORT"
    if binary.suffix == ".tar" and linker(info) is None:
        return "it has to be linked, and there is no C compiler: apt install gcc"
    if info.is_gpu:
        tvm = library()
        if not tvm.runtime.enabled(info.device) or not tvm.runtime.device(info.device, 0).exist:
            return f"there is no {info.device} device here: run it where there is one, or give --rpc HOST:PORT"
    return ""


def _arrays(found: Any) -> list[Any]:
    results = [found] if hasattr(found, "numpy") else list(found)
    return [each.numpy() for each in results]

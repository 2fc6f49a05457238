"""A Linux for aarch64 in a folder: Debian's Python, and the wheels of TVM and ONNX Runtime, for qemu's user mode."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["WHEELS", "fetch", "ready", "run"]

DEBIAN = ("python3.11", "libstdc++6")
PYTHON = "3.11"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64")
WHEELS = (
    "apache-tvm==0.27.0.post1",
    "apache-tvm-ffi==0.1.14.post1",
    "flatbuffers",
    "ml_dtypes",
    "numpy",
    "onnxruntime==1.22.1",  # 1.32 ends with a segmentation fault when it is imported in qemu 7.2
    "packaging",
    "protobuf",
    "typing_extensions",
)
WITHOUT = "tvm/lib/libtvm_compiler.so"
"""What only compiling needs, most of what TVM's wheel holds."""

QEMU = "qemu-aarch64"
MARK = "kilobytes at most: "
PEAK = f"""
for line in open("/proc/self/status"):
    if line.startswith("VmHWM:"):
        print("{MARK}" + line.split()[1], flush=True)
"""


def ready(folder: Path) -> bool:
    """Whether there is a system in ``folder``."""
    return (folder / "system" / "wheels" / "tvm").is_dir()


def fetch(folder: Path) -> None:
    """Fetch the packages with apt and pip, and unpack them; says what it fetches. Nothing outside ``folder`` changes.

    Raises ``SystemExit`` where a command fails.
    """
    print(f"from Debian, by apt-get, about 16 MB: {' '.join(DEBIAN)} for arm64, and what they depend on")
    archives = _apt(folder / "apt")
    print(f"from the package index, by pip, about 135 MB: {' '.join(WHEELS)}")
    wheels = folder / "download"
    wanted = [option for each in PLATFORMS for option in ("--platform", each)]
    place = ["--only-binary=:all:", "--no-deps", "--python-version", PYTHON, "-d", str(wheels)]
    _do([sys.executable, "-m", "pip", "download", "-q", *place, *wanted, *WHEELS])
    system = folder / "system"
    for archive in archives:
        _do(["dpkg", "-x", str(archive), str(system)])
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as file:
            file.extractall(system / "wheels", [name for name in file.namelist() if name != WITHOUT])
    print(f"unpacked in {system}")


def run(folder: Path, script: str, arguments: Sequence[str] = ()) -> tuple[int, str, int]:
    """Run lines of Python for aarch64; returns the exit status, what they wrote, and the peak of memory in bytes.

    The peak is of resident memory of the whole process: qemu with the code it translated, Python, and what that loads.
    The process reads it off itself: what its parent is told counts the parent's own memory from before.
    """
    system = folder / "system"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONHOME": str(system / "usr"),
        "PYTHONPATH": str(system / "wheels"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TVM_USE_RUNTIME_LIB": "1",
        "TVM_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    python = system / "usr" / "bin" / f"python{PYTHON}"
    qemu = [] if platform.machine() == "aarch64" else [QEMU, "-L", str(system)]
    command = [*qemu, str(python), "-c", script + PEAK, *arguments]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    written, mark, peak = done.stdout.rpartition(MARK)
    return done.returncode, written if mark else done.stdout, int(peak) * 1024 if mark else 0


def _apt(folder: Path) -> list[Path]:
    """Download Debian's packages with an apt that knows of no installed ones, and keeps to ``folder``."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "Dir::State": folder.resolve() / "state",
        "Dir::State::status": folder.resolve() / "status",
        "Dir::Cache": folder.resolve() / "cache",
        "APT::Sandbox::User": "",
    }
    lines = [f'{name} "{value}";' for name, value in options.items()]
    configuration = folder / "apt.conf"
    configuration.write_text("\n".join([*lines, 'APT::Architectures { "arm64"; };', ""]))
    environment = {**os.environ, "APT_CONFIG": str(configuration.resolve())}
    _do(["apt-get", "-qq", "update"], environment)
    install = ["apt-get", "-qq", "install", "--yes", "--download-only", "--no-install-recommends", *DEBIAN]
    _do(install, environment)
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def _do(command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")

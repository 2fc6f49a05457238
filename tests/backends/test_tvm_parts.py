"""What the TVM backend has that needs no TVM."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from command_line import Run

from graphprune.backends.registry import listed, usable
from graphprune.backends.tvm import backend as tvm_backend
from graphprune.backends.tvm import elf, package, targets
from graphprune.backends.tvm.backend import Tvm
from graphprune.backends.tvm.options import parse_address
from graphprune.errors import UsageError
from graphprune.models import digits_path


def test_a_missing_extra_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tvm", None)
    line = "tvm is not installed: pip install 'graphprune[tvm]'"
    assert Tvm().available().text == line
    with pytest.raises(UsageError, match="backend 'tvm' cannot be used, tvm is not installed"):
        usable("tvm")
    answer = run("compile", digits_path(), "--backend", "tvm", "-o", tmp_path / "a")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"graphprune: backend 'tvm' cannot be used, {line}\n"
    assert line in run("backends").out
    assert {entry.name: entry.availability.ok for entry in listed()}["tvm"] is False


def test_a_tvm_that_does_not_import_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "tvm" or name.startswith("tvm.")]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "tvm.py").write_text("raise OSError('libtvm.so: no such file\\nmore')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"tvm does not import \(libtvm.so: no such file\): pip install 'graphprune"):
        package.library()


def test_listing_targets_does_not_import_tvm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "tvm" or name.startswith("tvm.")]:
        monkeypatch.delitem(sys.modules, name)
    assert {target.name for target in Tvm().targets()} == {"cpu", "aarch64", "riscv64", "c", "cuda", "opencl"}
    assert all(target.available != bool(target.remedy) for target in Tvm().targets())
    assert "tvm" not in sys.modules


def test_without_tvm_no_target_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tvm_backend, "installed", lambda: False)
    assert {(target.available, target.remedy) for target in Tvm().targets()} == {(False, package.REMEDY)}


def test_addresses() -> None:
    assert parse_address("10.0.0.1:9090") == ("10.0.0.1", 9090)
    for text in ("board", ":9090", "board:", "board:0", "board:99999", "board:x"):
        with pytest.raises(UsageError, match="is not HOST:PORT"):
            parse_address(text)


def test_features_have_the_names_of_llvm(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = frozenset(["pni", "sse4_1", "avx", "avx512_vnni", "avx512f", "bmi1", "sha_ni", "fpu", "amx_tile"])
    monkeypatch.setattr(targets, "_flags", lambda: flags)
    assert targets._real() == {"sse3", "sse4.1", "avx", "avx512vnni", "avx512f", "bmi", "sha"}
    assert targets.lacking(["avx", "avx512fp16"]) == ["avx512fp16"]
    monkeypatch.setattr(targets, "_flags", frozenset)
    assert targets.lacking(["avx"]) == []


def test_code_is_told_from_data(tmp_path: Path) -> None:
    header = b"\x7fELF\x02\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, 183, 1, 0, 0, 64, 0, 64, 0, 0, 64, 2, 0
    )
    sections = struct.pack("<IIQQQQIIQQ", 0, 1, 0x6, 0, 0, 100, 0, 0, 0, 0)  # allocated, instructions
    sections += struct.pack("<IIQQQQIIQQ", 0, 1, 0x3, 0, 0, 900, 0, 0, 0, 0)  # allocated, writable
    assert elf.elf_code_bytes(header + sections) == 100
    assert elf.elf_machine(header) == "aarch64"
    (tmp_path / "model.so").write_bytes(b"MZ")
    assert elf.code_bytes(tmp_path / "model.so") is None
    assert elf.elf_machine(b"MZ") is None

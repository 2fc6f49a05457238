"""How many bytes of a library are code, read off the section headers of ELF (Tool Interface Standard, 1995)."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path

__all__ = ["code_bytes", "elf_code_bytes", "elf_machine"]

MAGIC = b"\x7fELF"
EXECUTABLE = 0x4  # SHF_EXECINSTR
MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64"}
SOURCES = (".c", ".cc", ".h")


def code_bytes(path: Path) -> int | None:
    """The bytes of machine code in a library or in a tar of objects, or of C sources; None where it cannot be told.

    Sources count without what packs the parameters.
    """
    if path.suffix != ".tar":
        return elf_code_bytes(path.read_bytes())
    total = 0
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            if member.name.endswith(SOURCES):
                total += 0 if member.name.startswith("devc") else member.size
            elif (file := archive.extractfile(member)) is not None:
                total += elf_code_bytes(file.read()) or 0
    return total


def elf_machine(data: bytes) -> str | None:
    """The machine that a 64-bit little-endian ELF file is for, as ``platform.machine()`` names it."""
    return MACHINES.get(struct.unpack_from("<H", data, 18)[0]) if data[:6] == MAGIC + b"\x02\x01" else None


def elf_code_bytes(data: bytes) -> int | None:
    """The bytes of the sections that hold instructions; None for what is no 64-bit little-endian ELF file."""
    if data[:6] != MAGIC + b"\x02\x01":
        return None
    (offset,) = struct.unpack_from("<Q", data, 40)
    size, number = struct.unpack_from("<HH", data, 58)
    total = 0
    for index in range(number):
        flags, _, _, length = struct.unpack_from("<QQQQ", data, offset + index * size + 8)
        total += length if flags & EXECUTABLE else 0
    return total

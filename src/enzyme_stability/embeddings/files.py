"""Files in which embeddings are exchanged: told apart by their content, read and written."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

from enzyme_stability.embeddings.file_readers import (
    EMBEDDING_COLUMNS,
    read_npy,
    read_parquet,
    read_safetensors,
    read_torch,
)
from enzyme_stability.embeddings.file_writers import FORMAT_OF_SUFFIX, EmbeddingWriter, open_embedding_writer
from enzyme_stability.embeddings.hdf5 import read_hdf5
from enzyme_stability.embeddings.table import EmbeddingTable, Found, checked_table
from enzyme_stability.errors import DataError, EnzymeStabilityError

__all__ = [
    "EmbeddingTable",
    "EmbeddingWriter",
    "looks_like_embeddings",
    "open_embedding_writer",
    "read_embeddings",
]

_READERS: dict[str, Callable[[Path], Found]] = {
    "HDF5": read_hdf5,
    "Parquet": read_parquet,
    "PyTorch": read_torch,
    "safetensors": read_safetensors,
    "NumPy": read_npy,
}
_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"PAR1": "Parquet",
    b"\x93NUMPY": "NumPy",
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19": "PyTorch",  # as before torch 1.6
}
_HEAD_BYTES = 4096
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_GZIP_MAGIC = b"\x1f\x8b"


def read_embeddings(path: str | Path) -> EmbeddingTable:
    """Read embeddings that were computed elsewhere, whatever the file is called.

    Matrices of residues, which only HDF5 holds, are averaged over the residues.

    Args:
        path: An HDF5, Parquet, PyTorch, safetensors or NumPy file.

    Returns:
        One vector for each protein, in the order of the file.

    Raises:
        DataError: The file cannot be read, is damaged or of another format, or an embedding in it makes no sense. The
            message names the record, what was found and what is expected.
        MissingDependencyError: The package for the format is not installed.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; give a file of embeddings in it")
        head = _head(path)
        kind = _format_by_content(path, head) or (None if _is_text(head) else FORMAT_OF_SUFFIX.get(path.suffix.lower()))
        if not head:
            raise DataError(f"{path} is empty; write it again")
        if kind is None:
            raise DataError(f"{path} holds no embeddings; expected one of {', '.join(_READERS)}")
        return checked_table(path, _READERS[kind](path))
    except EnzymeStabilityError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except PermissionError:
        raise DataError(f"{path} may not be read; check its permissions") from None
    except MemoryError:
        raise DataError(f"{path} claims to hold more numbers than fit into memory; split it") from None
    except Exception as error:  # the libraries raise whatever a damaged file leads them to
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path} is damaged; copy or write it again ({reason})") from error


def looks_like_embeddings(path: str | Path) -> bool:
    """Whether a file is one for ``read_embeddings`` and none of sequences; quick, for only its ends are looked at.

    Text, compressed text and standard input are never embeddings, whatever they are called. A binary or empty file
    with the suffix of a format is, so that the reader of that format says what is wrong with it.
    """
    path = Path(path)
    try:
        if str(path) == "-" or not path.is_file():
            return False
        head = _head(path)
        kind = _format_by_content(path, head)
        if kind == "Parquet":
            return _has_embedding_column(path)
        named = FORMAT_OF_SUFFIX.get(path.suffix.lower(), "Parquet") != "Parquet"
        return kind is not None or (named and not _is_text(head) and not head.startswith(_GZIP_MAGIC))
    except (OSError, ValueError):
        return False


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _is_text(head: bytes) -> bool:
    return bool(head) and not _BINARY.search(head)


def _format_by_content(path: Path, head: bytes) -> str | None:
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    # safetensors: the length of a header in JSON, and that header
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                return "PyTorch" if any(name.endswith("/data.pkl") for name in archive.namelist()) else None
        except zipfile.BadZipFile:
            return None
    return None


def _has_embedding_column(path: Path) -> bool:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        return False
    return any(name in EMBEDDING_COLUMNS for name in pq.read_schema(path).names)

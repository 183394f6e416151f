"""Embeddings in the files of PyTorch, safetensors, NumPy and Parquet. Nothing in a file is ever run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from enzyme_stability.embeddings.table import Found, check_type
from enzyme_stability.errors import DataError, MissingDependencyError

EMBEDDING_COLUMNS = ("embedding", "embeddings")
"""Names by which the column of vectors in a Parquet file is recognised."""

METADATA_KEY = "embeddings"
"""Key of the metadata, as JSON, in safetensors and Parquet."""

_BATCH_ROWS = 4096


def read_npy(path: Path) -> Found:
    """Read the matrix in a ``.npy`` file."""
    return Found(np.load(path, allow_pickle=False))


def read_torch(path: Path) -> Found:
    """Read a tensor (proteins, width), a list of vectors, or a dictionary from ids to vectors.

    Raises:
        DataError: The file is damaged or holds anything but tensors.
        MissingDependencyError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("Reading PyTorch files", "plm") from error
    try:
        if zipfile.is_zipfile(path) and _is_packed(path):
            raise zipfile.BadZipFile("compressed")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises whatever the bytes lead to
        raise DataError(
            f"{path} is damaged, or holds Python objects, which are not loaded for safety; save the tensor alone with "
            "torch.save(tensor, path)"
        ) from error
    ids = None
    match content:
        case torch.Tensor():
            tensors = [content]
        case dict():
            ids, tensors = [str(name) for name in content], list(content.values())
        case list():
            tensors = content
        case _:
            raise DataError(
                f"{path}: {_kind(content)} was found, expected a tensor or a dictionary from ids to vectors"
            )
    for number, tensor in enumerate(tensors):
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_meta:
            record = ids[number] if ids else f"embedding_{number + 1}"
            raise DataError(f"{path}, record {record}: {_kind(tensor)} was found, expected a tensor with the numbers")
    # A tensor may repeat a few numbers without end: what it claims to hold must have room in the file.
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors) > path.stat().st_size:
        raise DataError(f"{path} claims to hold more numbers than it has room for; save a contiguous tensor")
    arrays = [
        (tensor.float() if tensor.is_floating_point() else tensor).detach().resolve_conj().resolve_neg().numpy()
        for tensor in tensors
    ]
    return Found(arrays[0] if isinstance(content, torch.Tensor) else arrays, ids)


def read_safetensors(path: Path) -> Found:
    """Read the tensor ``embeddings`` or the only one there is; several are vectors named by their ids.

    Raises:
        DataError: The ids or the metadata are not what this package writes there.
        MissingDependencyError: safetensors is not installed.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise MissingDependencyError("Reading safetensors", "plm") from error
    with safe_open(path, framework="np") as file:
        names = list(file.keys())
        header = file.metadata() or {}
        if len(names) == 1 or "embeddings" in names:
            name = names[0] if len(names) == 1 else "embeddings"
            return Found(_tensor(path, file, name), _ids(path, header), _metadata(header.get(METADATA_KEY)))
        return Found([_tensor(path, file, name) for name in names], names, _metadata(header.get(METADATA_KEY)))


def read_parquet(path: Path) -> Found:
    """Read a column of lists called ``embedding``, or one floating-point column for each number.

    The ids are in the column ``id``, or else in the only column of text.

    Raises:
        DataError: Columns are missing or of another type, or lists differ in length.
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError("Reading Parquet", "parquet") from error
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        texts = [field.name for field in schema if _is_text(field.type)]
        named = "id" if "id" in schema.names else texts[0] if len(texts) == 1 else None
        column = next((name for name in EMBEDDING_COLUMNS if name in schema.names), None)
        columns = [column] if column else [name for name in schema.names if name != named]
        if not columns:
            raise DataError(f"{path} has no column of embeddings; call it 'embedding'")
        for name in columns:
            kind = schema.field(name).type
            number = kind.value_type if column and _is_list(kind) else kind
            check_type(
                path, f"column {name}", kind, pa.types.is_floating(number) and (number is not kind) == bool(column)
            )
        ids: list[str] = []
        blocks: list[np.ndarray] = []
        for batch in file.iter_batches(_BATCH_ROWS, columns=[*columns, *([named] if named else [])]):
            start = len(ids)
            given = batch.column(named).to_pylist() if named else [None] * len(batch)
            ids += [f"embedding_{start + n}" if name is None else str(name) for n, name in enumerate(given, 1)]
            if column:
                width = blocks[0].shape[1] if blocks else None
                blocks.append(_lists(path, batch.column(column), ids[start:], width))
            else:
                blocks.append(np.column_stack([batch.column(name).to_numpy(zero_copy_only=False) for name in columns]))
        metadata = _metadata((schema.metadata or {}).get(METADATA_KEY.encode()))
    return Found(np.concatenate(blocks) if blocks else [], ids, metadata)


def _is_packed(path: Path) -> bool:
    """Whether an archive is larger inside than outside; torch never compresses, so that nobody meant well."""
    with zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist()) > path.stat().st_size


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _tensor(path: Path, file: Any, name: str) -> np.ndarray:
    kind = file.get_slice(name).get_dtype()
    check_type(path, f"tensor {name}", kind, kind in {"F16", "BF16", "F32", "F64"})
    if kind != "BF16":
        return np.asarray(file.get_tensor(name))
    from safetensors import deserialize

    # NumPy has no bfloat16, which is the upper half of a float32.
    unpacked: Callable[[bytes], Iterable[tuple[str, Any]]] = deserialize
    tensor = dict(unpacked(path.read_bytes()))[name]
    halves = np.frombuffer(tensor["data"], dtype="<u2").astype("<u4")
    return (halves << 16).view("<f4").reshape(tensor["shape"])


def _ids(path: Path, header: dict[str, str]) -> list[str] | None:
    if "ids" not in header:
        return None
    ids = json.loads(header["ids"])
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise DataError(f"{path}: the ids in its header are no list of names; write the file again")
    return ids


def _metadata(text: str | bytes | None) -> dict[str, Any]:
    content = json.loads(text) if text else {}
    return content if isinstance(content, dict) else {}


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lists(path: Path, column: Any, ids: list[str], width: int | None) -> np.ndarray:
    """The rows of a column of lists as a matrix."""
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    width = int(lengths[0]) if width is None else width
    for row in np.flatnonzero((lengths != width) | (lengths == 0))[:1]:
        raise DataError(
            f"{path}, record {ids[row]}: {lengths[row]} numbers were found, expected {width or 'some'}; "
            "one file takes embeddings of one model"
        )
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), width)

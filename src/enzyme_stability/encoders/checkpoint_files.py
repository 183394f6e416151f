"""The folder of one model: which files count, what its record says, its checksums, and weights without pickles."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import zipfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from enzyme_stability.errors import ArtifactError, MissingDependencyError

CONFIG = "config.json"
RECORD = "checkpoint.json"
_TOKENIZER = (
    "vocab.txt",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_INDEX = ".index.json"


class RecordedFile(BaseModel):
    """Checksum and size of a file."""

    sha256: str
    bytes: int


class Record(BaseModel):
    """What ``checkpoint.json`` says: what the model is, where it came from, and the checksum of each file."""

    name: str
    repository: str | None
    commit: str | None
    licence: str | None
    files: dict[str, RecordedFile]
    fingerprint: str


def needed_files(files: Collection[str]) -> list[str]:
    """The files of a repository or folder that a model is read from.

    Safetensors come before PyTorch's own format, as in transformers; code and other frameworks' weights never.

    Returns:
        Names of files; none where the configuration or the weights are missing.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        weights = [f"{stem}.{suffix}"]
        if weights[0] not in files:
            shard = re.compile(rf"{stem}-\d{{5}}-of-\d{{5}}\.{suffix}")
            weights = [weights[0] + _INDEX, *sorted(file for file in files if shard.fullmatch(file))]
        if weights[0] in files and CONFIG in files:
            return [CONFIG, *(file for file in _TOKENIZER if file in files), *weights]
    return []


def needed_files_in(folder: Path) -> list[str]:
    """The files of a folder that a model is read from.

    Raises:
        ArtifactError: The folder cannot be read, holds no model, or lacks a part of the weights.
    """
    try:
        needed = needed_files({path.name for path in folder.iterdir()})
        if not needed:
            raise ArtifactError(f"{folder} holds no model: it lacks {CONFIG} or the weights, model.safetensors")
        for index in (file for file in needed if file.endswith(_INDEX)):
            shards = set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values())
            if missing := shards - set(needed):
                raise ArtifactError(f"{folder} lacks a part of the weights: {', '.join(sorted(missing))}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{folder} cannot be read: {error}") from None
    return needed


def is_pickled(needed: Iterable[str]) -> bool:
    """Whether the weights are in PyTorch's own format."""
    return any(file.endswith(".bin") for file in needed)


def read_record(folder: Path) -> Record | None:
    """The record of a model that was fetched; None for a folder that was put there by hand.

    Raises:
        ArtifactError: The record cannot be read.
    """
    try:
        return Record.model_validate_json((folder / RECORD).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"{folder / RECORD} is damaged: {str(error).splitlines()[0]}") from None


def write_record(folder: Path, name: str, repository: str | None, commit: str | None, licence: str | None) -> None:
    """Write down what a folder holds, with a checksum of each file."""
    sizes = {file: (folder / file).stat().st_size for file in needed_files_in(folder)}
    files = {file: RecordedFile(sha256=sha256_of(folder / file), bytes=size) for file, size in sizes.items()}
    whole = combined({file: entry.sha256 for file, entry in files.items()})
    record = Record(name=name, repository=repository, commit=commit, licence=licence, files=files, fingerprint=whole)
    (folder / RECORD).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")


def fault(path: Path, size: int | None, sha256: str | None) -> str:
    """What is wrong with a file, as a sentence; empty where size and checksum, if they are given, are right."""
    try:
        found = path.stat().st_size
        if size not in (None, found):
            return f"{path} is damaged: it has {found:,} bytes instead of {size:,}"
        if sha256 not in (None, sha256_of(path)):
            return f"{path} is damaged: its SHA-256 is not {sha256}"
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    return ""


def sha256_of(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combined(checksums: Mapping[str, str]) -> str:
    """One checksum of the names and checksums of several files."""
    lines = "".join(f"{file}\t{checksum}\n" for file, checksum in sorted(checksums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def remembered_sha256(folder: Path, files: Iterable[str], memory: Path) -> dict[str, str]:
    """Checksums of files; those of files with the same size and time as in the JSON file ``memory`` are taken from it.

    ``memory`` is brought up to date where it can be written.
    """
    try:
        known = dict(json.loads(memory.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    checksums, changed = {}, False
    for file in files:
        path = (folder / file).resolve()
        state = [path.stat().st_size, path.stat().st_mtime_ns]
        entry = known.get(str(path))
        if not (isinstance(entry, list) and len(entry) == 3 and entry[:2] == state and isinstance(entry[2], str)):
            entry, changed = [*state, sha256_of(path)], True
            known[str(path)] = entry
        checksums[file] = entry[2]
    if changed:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            written = memory.with_name(f"{memory.name}.{secrets.token_hex(4)}.tmp")
            written.write_text(json.dumps({path: entry for path, entry in known.items() if Path(path).exists()}))
            written.replace(memory)
    return checksums


def to_safetensors(source: Path, needed: Iterable[str], target: Path) -> None:
    """Write the weights in ``source``, in PyTorch's own format, into ``target`` as safetensors.

    Raises:
        ArtifactError: A file is damaged or holds more than tensors; nothing in it was run.
        MissingDependencyError: The ``plm`` extra is not installed.
    """
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingDependencyError("Reading the weights of a protein language model", "plm") from error
    for file in (file for file in needed if file.startswith("pytorch_model")):
        new = target / _new_name(file)
        try:
            if file.endswith(_INDEX):
                index = json.loads((source / file).read_text(encoding="utf-8"))
                index["weight_map"] = {tensor: _new_name(shard) for tensor, shard in index["weight_map"].items()}
                new.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
            else:
                save_file(_read_tensors(source / file), new, metadata={"format": "pt"})
        except OSError:
            raise
        except Exception as error:  # a pickle can be damaged, or armed, in more ways than there are exceptions for
            raise ArtifactError(
                f"{source / file} was refused: it is damaged, or holds more than tensors, which could run code"
            ) from error


def _new_name(file: str) -> str:
    return file.replace("pytorch_model", "model", 1).replace(".bin", ".safetensors", 1)


def _read_tensors(path: Path) -> dict[str, Any]:
    import torch

    # Files from before PyTorch 1.6 are no archives and cannot be mapped.
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    tensors: dict[str, Any] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if storage in seen else tensor.contiguous()  # tied weights are written twice
        seen.add(storage)
    return tensors

"""Local copies of pretrained protein language models: fetched once at a fixed commit, checked, then found offline."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from enzyme_stability.encoders.checkpoint_files import (
    CONFIG,
    combined,
    fault,
    is_pickled,
    needed_files,
    needed_files_in,
    read_record,
    remembered_sha256,
    to_safetensors,
    write_record,
)
from enzyme_stability.encoders.hub import download, look_up
from enzyme_stability.encoders.known_checkpoints import KNOWN_CHECKPOINTS, Checkpoint, did_you_mean, resolve_name
from enzyme_stability.errors import ArtifactError, MissingDependencyError

__all__ = [
    "KNOWN_CHECKPOINTS",
    "Checkpoint",
    "InstalledCheckpoint",
    "find_checkpoint",
    "fingerprint",
    "installed",
    "models_folder",
    "pull",
    "remove",
    "verify",
]

_PART = re.compile(r"\.(.+?)(\.[0-9a-f]{12})?\.part")


@dataclass(frozen=True)
class InstalledCheckpoint:
    """A folder in ``models_folder()``.

    Attributes:
        name: Name for ``find_checkpoint``.
        folder: Where it is.
        repository: Where it came from; None for one that was put there by hand.
        commit: Commit of that repository.
        bytes: Size on disk.
        intact: Whether every file is there with its full size; ``verify`` reads the content, too.
    """

    name: str
    folder: Path
    repository: str | None
    commit: str | None
    bytes: int
    intact: bool


def models_folder() -> Path:
    """Where models are kept: ``ENZYME_STABILITY_MODELS``, else ``enzyme-stability/models`` in the user's cache."""
    try:
        if chosen := os.environ.get("ENZYME_STABILITY_MODELS"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "enzyme-stability" / "models"
    except RuntimeError:
        raise ArtifactError("no home folder to keep models in; set ENZYME_STABILITY_MODELS to a folder") from None


def pull(name: str, *, revision: str | None = None, report: Callable[[str], None] = lambda _: None) -> Path:
    """Fetch a model from the hub, unless an intact copy of it is there.

    An interrupted download goes on where it stopped. Weights in PyTorch's own format are read as bare tensors, which
    runs nothing, and kept as safetensors.

    Args:
        name: A name in ``KNOWN_CHECKPOINTS``, or ``owner/name`` on the hub.
        revision: Commit, tag or branch; without it the known commit, else the one that is there, else ``main``.
        report: Takes messages for the user.

    Returns:
        The folder with the model.

    Raises:
        ArtifactError: The model cannot be fetched, is not what the hub announced, or cannot be written.
        MissingDependencyError: The ``plm`` extra is not installed.
    """
    local, repository, known = resolve_name(name)
    target = models_folder() / local
    wanted = revision or (known.revision if known else None) or _commit_of(target) or "main"
    if _holds(target, wanted):
        report(f"{local} is there already: {target}")
        return target
    commit, offered = look_up(repository, wanted, by_hand=target)
    needed = needed_files(offered)
    if not needed:
        raise ArtifactError(f"{repository} at {commit} has no {CONFIG} with weights for PyTorch or as safetensors")
    with _alone_in(target):
        if _holds(target, commit):  # where the branch leads to, or what another process fetched meanwhile
            report(f"{local} is there already: {target}")
            return target
        report(f"fetching {repository} at {commit[:12]} to {target}")
        part = target.with_name(f".{local}.{commit[:12]}.part")
        download(repository, commit, needed, part, by_hand=target)
        try:
            for file in needed:
                if problem := fault(part / file, *offered[file]):
                    raise ArtifactError(
                        f"{problem}; that is not what the hub announced, so the download was deleted: run it again"
                    )
            if is_pickled(needed):
                report("keeping the weights as safetensors")
                to_safetensors(part, needed, part)
        except ArtifactError:
            shutil.rmtree(part, ignore_errors=True)  # the next try must not go on from it
            raise
        for file in (file for file in needed if file.startswith("pytorch_model")):
            (part / file).unlink()
        shutil.rmtree(part / ".cache", ignore_errors=True)  # the hub client's notes
        write_record(part, local, repository, commit, known.licence if known else None)
        _give_name(part, target)
    return target


def find_checkpoint(name_or_folder: str | Path) -> Path:
    """The local folder of a model; nothing is downloaded.

    Args:
        name_or_folder: A folder with ``config.json``, or the name of a model that was pulled. Of a folder whose
            weights are in PyTorch's own format a copy as safetensors is made in ``models_folder()``.

    Raises:
        ArtifactError: There is no such model here, or it is incomplete; the message says what to do.
        MissingDependencyError: The weights must be converted and the ``plm`` extra is not installed.
    """
    folder = Path(name_or_folder).expanduser()
    if not (folder / CONFIG).is_file():
        folder = _kept_folder(str(name_or_folder))
    if problem := _incomplete(folder):
        raise ArtifactError(f"{problem}; {_remedy(folder)}")
    needed = needed_files_in(folder)
    return _converted(folder, needed) if is_pickled(needed) else folder


def fingerprint(folder: str | Path) -> str:
    """SHA-256 that names the content of a model: its weights, configuration and tokenizer files.

    The same files give the same fingerprint wherever they lie. Checksums of files that did not change since the last
    call are remembered in ``models_folder()``, where that can be written.

    Raises:
        ArtifactError: The folder holds no model, or cannot be read.
    """
    folder = Path(folder)
    return _content(folder, needed_files_in(folder))


def verify(folder: str | Path) -> None:
    """Read every file of a pulled model again and compare it with its checksum.

    Raises:
        ArtifactError: A file is missing or damaged (the message names it), or there are no checksums.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is None:
        raise ArtifactError(f"{folder} has no checksums to compare with: it was not fetched by 'models pull'")
    for name, file in record.files.items():
        if problem := fault(folder / name, file.bytes, file.sha256):
            raise ArtifactError(f"{problem}; {_remedy(folder)}")
    if record.fingerprint != combined({name: file.sha256 for name, file in record.files.items()}):
        raise ArtifactError(f"{folder} is damaged: its fingerprint is not that of its files; {_remedy(folder)}")


def installed() -> list[InstalledCheckpoint]:
    """What is in ``models_folder()``, models that were fetched in part included, by name."""
    root = models_folder()
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.exists() else []
    except OSError as error:
        raise ArtifactError(f"{root} cannot be read: {error.strerror}; set ENZYME_STABILITY_MODELS") from None
    found = []
    for folder in folders:
        part = _PART.fullmatch(folder.name)
        if folder.name.startswith(".") and not part:
            continue
        intact = not part and not _incomplete(folder)
        record = read_record(folder) if intact else None
        size = _bytes_in(folder)
        repository, commit = (record.repository, record.commit) if record else (None, None)
        found.append(InstalledCheckpoint(part[1] if part else folder.name, folder, repository, commit, size, intact))
    return sorted(found, key=lambda entry: entry.name)


def remove(name: str) -> None:
    """Delete a model, and what was fetched of it in part, from ``models_folder()``.

    Raises:
        ArtifactError: There is no such model, or it cannot be deleted.
    """
    entries = installed()
    names = sorted({entry.name for entry in entries})
    local = name if name in names else resolve_name(name)[0]
    if local not in names:
        raise ArtifactError(f"{name} is not in {models_folder()}; there are: {', '.join(names) or 'none'}")
    with _writing(models_folder()):
        for entry in entries:
            if entry.name == local:
                _delete(entry.folder)


def _kept_folder(name: str) -> Path:
    """The folder of a model in ``models_folder()``."""
    root = models_folder()
    if re.fullmatch(r"\w[\w.-]*", name) and (root / name).is_dir():
        return root / name
    if Path(name).is_dir():
        raise ArtifactError(f"{name} holds no model: it has no {CONFIG}")
    local, repository, known = resolve_name(name)
    if not (root / local).is_dir():
        hint = "" if known else did_you_mean(repository)
        fetch = f"enzyme-stability models pull {local if known else repository}"
        raise ArtifactError(f"the model {name} is not on this machine{hint}; fetch it with: {fetch}")
    return root / local


def _content(folder: Path, needed: list[str]) -> str:
    try:
        return combined(remembered_sha256(folder, needed, models_folder() / ".checksums.json"))
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be read: {error}") from None


def _incomplete(folder: Path) -> str:
    """What a folder lacks, without reading the weights; empty where it lacks nothing."""
    try:
        record = read_record(folder)
        needed_files_in(folder)
    except ArtifactError as error:
        return str(error)
    faults = (fault(folder / name, file.bytes, None) for name, file in record.files.items()) if record else ()
    return next(filter(None, faults), "")


def _remedy(folder: Path) -> str:
    if folder.parent != models_folder():
        return "copy the folder again"
    if folder.name.startswith("local--"):
        return f"delete it with: enzyme-stability models remove {folder.name}"
    return f"fetch it again with: enzyme-stability models pull {folder.name.replace('--', '/', 1)}"


def _bytes_in(folder: Path) -> int:
    total = 0
    for where, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):  # a download that goes on beside this renames its files
                total += (Path(where) / file).stat().st_size
    return total


def _commit_of(folder: Path) -> str | None:
    try:
        record = read_record(folder)
    except ArtifactError:
        return None
    return record.commit if record else None


def _holds(folder: Path, commit: str) -> bool:
    try:
        if _commit_of(folder) != commit:
            return False
        verify(folder)
    except ArtifactError:
        return False
    return True


def _converted(source: Path, needed: list[str]) -> Path:
    """A copy of a model with its weights as safetensors; its name says of which content it was made."""
    target = models_folder() / f"local--{source.resolve().name}--{_content(source, needed)[:12]}"
    if target.is_dir() and not _incomplete(target):
        return target
    with _alone_in(target):
        if target.is_dir() and not _incomplete(target):
            return target
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            for file in (file for file in needed if not file.startswith("pytorch_model")):
                shutil.copyfile(source / file, part / file)
            to_safetensors(source, needed, part)
            write_record(part, target.name, None, None, None)
            _give_name(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return target


@contextmanager
def _alone_in(target: Path) -> Iterator[None]:
    """Write a model while other processes that want the same one wait."""
    try:
        from filelock import FileLock
    except ImportError as error:
        raise MissingDependencyError("Keeping a protein language model", "plm") from error
    with _writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            yield


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"cannot keep models in {folder}: {error.strerror or error}; free some space there, or set "
            "ENZYME_STABILITY_MODELS to another folder"
        ) from error


def _give_name(part: Path, target: Path) -> None:
    """Put a complete folder in the place of what is there."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    if target.exists():
        target.rename(aside)
    part.rename(target)
    if aside.exists():
        _delete(aside)


def _delete(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)

"""Predictors to and from any address, as the folders that a model hub shows: the predictor and a README about it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from enzyme_stability.embeddings.encoder import fingerprint_of_adapter
from enzyme_stability.errors import ArtifactError
from enzyme_stability.manifest import ADAPTER, MANIFEST
from enzyme_stability.predictor import Predictor
from enzyme_stability.storage import fetch, put_folder

CARD = "CARD.md"
README = "README.md"


def push(folder: str | Path, url: str | Path) -> Predictor:
    """Copy a predictor, and a README for model hubs, to an address.

    What prediction needs and the card go along; the data of the training run stay behind.

    Args:
        folder: Folder of a predictor, or the name of a built-in one.
        url: Any fsspec address, such as gs://bucket/name or hf://owner/name, or a local folder.

    Returns:
        The predictor.

    Raises:
        ArtifactError: The folder holds no complete predictor, or as ``put_folder``.
        ConfigError: The kind of address is unknown.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    predictor = _complete(folder)
    try:
        with tempfile.TemporaryDirectory(prefix="enzyme-stability-") as scratch:
            staged = Path(scratch) / "predictor"
            for path in predictor.files():
                target = staged / path.relative_to(predictor.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            (staged / README).write_text(_readme(predictor), encoding="utf-8")
            put_folder(staged, url)
    except (OSError, UnicodeError) as error:
        raise ArtifactError(f"cannot copy the predictor in {predictor.folder}: {error}") from error
    return predictor


def pull(url: str | Path, folder: Path) -> Predictor:
    """Copy a predictor from an address into a folder, which appears when it is complete and checked.

    Args:
        url: Where a predictor was pushed to.
        folder: Folder to make; a predictor that is there is replaced.

    Returns:
        The predictor in ``folder``.

    Raises:
        ArtifactError: There is no complete predictor at the address, or as ``fetch`` and ``put_folder``.
        ConfigError: The kind of address is unknown.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="enzyme-stability-") as scratch:
            copy = fetch(url, Path(scratch))
            try:
                predictor = _complete(copy)
            except ArtifactError as error:
                raise ArtifactError(f"no predictor was taken over: {str(error).replace(str(copy), str(url))}") from None
            put_folder(predictor.folder, folder)
    except OSError as error:
        raise ArtifactError(f"cannot copy the predictor from {url}: {error}") from error
    return Predictor.load(folder)


def _complete(folder: str | Path) -> Predictor:
    """The predictor in a folder, every file of it checked: on its own it opens a model when that is to predict."""
    predictor = Predictor.load(folder)
    for kind in predictor.manifest["intervals"]:
        head = predictor.manifest["heads"][kind]
        file = PurePosixPath(head["file"])
        if file.is_absolute() or ".." in file.parts:
            raise ArtifactError(f"{predictor.folder / MANIFEST} names a file outside of the folder: {file}")
        path = predictor.folder / file
        if not path.is_file():
            raise ArtifactError(f"{path} is missing: the predictor is incomplete")
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != head["sha256"]:
                raise ArtifactError(f"{path} is damaged: its checksum is not the one in {MANIFEST}")
    adapter = predictor.manifest["encoder"].get("adapter")
    if adapter and fingerprint_of_adapter(predictor.folder / ADAPTER) != adapter:
        raise ArtifactError(f"{predictor.folder / ADAPTER} is damaged: its checksum is not the one in {MANIFEST}")
    return predictor


def _readme(predictor: Predictor) -> str:
    """The card below the block of facts that hubs read; JSON strings are YAML, whatever the name holds."""
    front = [
        "---",
        "library_name: enzyme-stability",
        "license: mit",
        f"model_name: {json.dumps(predictor.name)}",
        "tags:",
        "- protein",
        "- thermostability",
        "---",
    ]
    card = predictor.folder / CARD
    if card.is_file():
        text = card.read_text(encoding="utf-8")
    else:
        text = f"# {predictor.name}\n\n{predictor.manifest['description']}\n"
    return "\n".join(front) + "\n\n" + text

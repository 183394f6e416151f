"""A predictor on disk: a folder with a manifest, ONNX heads and perhaps an adapter; nothing in it is executed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from enzyme_stability.domain import ApplicabilityDomain
from enzyme_stability.errors import ArtifactError
from enzyme_stability.reference import Reference
from enzyme_stability.uncertainty import ConformalInterval

FORMAT = 1
MANIFEST = "predictor.json"
ADAPTER = "adapter"
"""Folder of a fine-tuned language model's update, within that of the predictor."""

_NEEDED = ("format", "name", "description", "encoder", "heads", "intervals", "domain")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what a disk does not let happen inside into one sentence about ``folder``.

    Raises:
        ArtifactError: The disk is full, or the folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"cannot write to {folder}: {error.strerror or error}") from None


def write_manifest(
    folder: Path,
    *,
    name: str,
    description: str,
    encoder: Mapping[str, Any],
    heads: Mapping[str, bytes],
    intervals: Mapping[str, ConformalInterval],
    domain: ApplicabilityDomain,
    training: Mapping[str, Any],
    reference: Reference | None = None,
    adapter: Path | None = None,
) -> None:
    """Write a predictor folder.

    Args:
        folder: Made if it is not there; files of an earlier predictor are replaced.
        name: Name of the predictor.
        description: One sentence.
        encoder: ``kind`` and its settings.
        heads: Serialised ONNX graphs by kind (``plain``, ``with_growth_temperature``).
        intervals: Calibrated interval of each head.
        domain: The domain check.
        training: What the model card needs to know about the run; JSON values only.
        reference: What drift is measured against; None where there is none.
        adapter: Folder of a low-rank update of the language model.

    Raises:
        ArtifactError: The folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob("head_*.onnx"), folder / "CARD.md", folder / MANIFEST):
            old.unlink(missing_ok=True)  # the figures of another model must not stand beside this one
        files = {}
        for kind, graph in heads.items():
            file = f"head_{kind}.onnx"
            (folder / file).write_bytes(graph)
            files[kind] = {"file": file, "sha256": hashlib.sha256(graph).hexdigest()}
        if adapter is not None and adapter != folder / ADAPTER:
            shutil.copytree(adapter, folder / ADAPTER, dirs_exist_ok=True)
        manifest = {
            "format": FORMAT,
            "name": name,
            "description": description,
            "encoder": dict(encoder),
            "heads": files,
            "intervals": {
                kind: {
                    "below": _rounded(interval.below),
                    "above": _rounded(interval.above),
                    "upper_tail_share": interval.upper_tail_share,
                }
                for kind, interval in intervals.items()
            },
            "domain": asdict(domain),
            **({} if reference is None else {"reference": reference.to_dict()}),
            "training": dict(training),
        }
        unfinished = folder / f".{MANIFEST}.part"
        unfinished.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(folder / MANIFEST)


def _rounded(scores: np.ndarray) -> list[float]:
    return [round(float(score), 5) for score in scores]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a predictor folder.

    Raises:
        ArtifactError: It is missing, damaged or of another format.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{folder} is not a predictor: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path} is damaged: it holds no settings")
    missing = [key for key in _NEEDED if key not in manifest]
    if missing:
        raise ArtifactError(f"{path} lacks {', '.join(missing)}")
    if manifest["format"] != FORMAT:
        raise ArtifactError(f"{path} is of format {manifest['format']}; this version reads format {FORMAT}")
    return manifest

"""Embeddings that 'embed' has written, for training on them: only those that the encoder of the run would make."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.embeddings.files import read_embeddings
from enzyme_stability.encoders.composition import CompositionEncoder
from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.storage import fetch

if TYPE_CHECKING:
    import pandas as pd

    from enzyme_stability.embeddings.encoder import LanguageModelEncoder


def made_by(encoder: CompositionEncoder | LanguageModelEncoder) -> dict[str, Any]:
    """What a file of embeddings says of how they were made."""
    if isinstance(encoder, CompositionEncoder):
        return {"model": "composition", "blocks": ",".join(encoder.blocks), "pooling": "mean"}
    return asdict(encoder.space)


def look_up(path: str, encoder: CompositionEncoder | LanguageModelEncoder, table: pd.DataFrame) -> np.ndarray:
    """The embedding of each protein of a table, by its ``id``; shape (n, width), float32.

    Args:
        path: File made by 'embed', local or a URL.
        encoder: What would embed the proteins if there were no file.
        table: As ``read_training_table`` gives it.

    Raises:
        ConfigError: The embeddings were made in another way than ``encoder`` would make them, or nobody knows how.
        DataError: The file cannot be read, a protein is not in it, or two share a name.
    """
    found = read_embeddings(fetch(path))
    if not found.metadata:
        raise ConfigError(f"{path} does not say what made its embeddings: make it by 'enzyme-stability embed'")
    wanted = made_by(encoder)
    if wanted.get("revision") == found.metadata.get("revision"):
        del wanted["model"]  # the same weights may go by the name of a folder
    if other := [name for name, value in wanted.items() if found.metadata.get(name) != value]:
        what = "; ".join(f"{name} {found.metadata.get(name)!s:.80} instead of {wanted[name]!s:.80}" for name in other)
        raise ConfigError(
            f"{path} holds other embeddings than the settings of the encoder ask for ({what}): change them, or make "
            "it again by 'enzyme-stability embed'"
        )
    if "id" not in table:
        raise DataError(f"the table has no column id, by which its proteins would be found in {path}")
    try:
        return found.select(table["id"].astype(str).tolist())
    except DataError as error:
        raise DataError(f"{path}: {error}") from None

"""The names of pretrained protein language models: where their weights are, how large they are, under what licence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from enzyme_stability.errors import ArtifactError

_PROTTRANS = "10.1109/TPAMI.2021.3095381"
_ESM2 = "10.1126/science.ade2574"
_ANKH = "10.48550/arXiv.2301.06568"


@dataclass(frozen=True)
class Checkpoint:
    """A published set of weights.

    Attributes:
        name: Short name, as in ``models pull prot_bert``.
        repository: Where it is on the Hugging Face hub, ``owner/name``.
        revision: Commit that is fetched; None for whatever the branch ``main`` is at the first pull.
        family: Architecture: ``bert``, ``t5`` (the encoder half is used) or ``esm``.
        width: Numbers per residue in an embedding.
        layers: Layers of the encoder.
        parameters: Parameters of the encoder; a download may hold others, such as a decoder.
        download_bytes: Roughly what ``pull`` fetches.
        licence: SPDX identifier of the weights' licence.
        citation: DOI of the publication.
    """

    name: str
    repository: str
    revision: str | None
    family: Literal["bert", "t5", "esm"]
    width: int
    layers: int
    parameters: int
    download_bytes: int
    licence: str
    citation: str


KNOWN_CHECKPOINTS: Mapping[str, Checkpoint] = MappingProxyType(
    {
        checkpoint.name: checkpoint
        for checkpoint in (
            Checkpoint(
                name="prot_bert",
                repository="Rostlab/prot_bert",
                revision="7a894481acdc12202f0a415dd567f6cfdb698908",
                family="bert",
                width=1024,
                layers=30,
                parameters=418_881_536,
                download_bytes=1_680_000_000,
                licence="AFL-3.0",
                citation=_PROTTRANS,
            ),
            Checkpoint(
                name="prot_bert_bfd",
                repository="Rostlab/prot_bert_bfd",
                revision="6c5c8a55a52ff08a664dfd584aa1773f125a0487",
                family="bert",
                width=1024,
                layers=30,
                parameters=418_881_536,
                download_bytes=1_680_000_000,
                licence="AFL-3.0",
                citation=_PROTTRANS,
            ),
            Checkpoint(
                name="prot_t5_xl",  # the encoder half of ProtT5-XL-U50, in half precision
                repository="Rostlab/prot_t5_xl_half_uniref50-enc",
                revision="94a6abc029ae13029317b140b7424e012bf8dfbf",
                family="t5",
                width=1024,
                layers=24,
                parameters=1_208_141_824,
                download_bytes=2_420_000_000,
                licence="AFL-3.0",
                citation=_PROTTRANS,
            ),
            Checkpoint(
                name="esm2_8m",
                repository="facebook/esm2_t6_8M_UR50D",
                revision="c731040fcd8d73dceaa04b0a8e6329b345b0f5df",
                family="esm",
                width=320,
                layers=6,
                parameters=7_409_081,
                download_bytes=31_000_000,
                licence="MIT",
                citation=_ESM2,
            ),
            Checkpoint(
                name="esm2_35m",
                repository="facebook/esm2_t12_35M_UR50D",
                revision="6fbf070e65b0b7291e7bbcd451118c216cff79d8",
                family="esm",
                width=480,
                layers=12,
                parameters=33_269_521,
                download_bytes=136_000_000,
                licence="MIT",
                citation=_ESM2,
            ),
            Checkpoint(
                name="esm2_150m",
                repository="facebook/esm2_t30_150M_UR50D",
                revision="a695f6045e2e32885fa60af20c13cb35398ce30c",
                family="esm",
                width=640,
                layers=30,
                parameters=147_728_601,
                download_bytes=595_000_000,
                licence="MIT",
                citation=_ESM2,
            ),
            Checkpoint(
                name="esm2_650m",
                repository="facebook/esm2_t33_650M_UR50D",
                revision="08e4846e537177426273712802403f7ba8261b6c",
                family="esm",
                width=1280,
                layers=33,
                parameters=649_400_981,
                download_bytes=2_610_000_000,
                licence="MIT",
                citation=_ESM2,
            ),
            Checkpoint(
                name="esm2_3b",
                repository="facebook/esm2_t36_3B_UR50D",
                revision="476b639933c8baad5ad09a60ac1a87f987b656fc",
                family="esm",
                width=2560,
                layers=36,
                parameters=2_832_444_321,
                download_bytes=11_370_000_000,
                licence="MIT",
                citation=_ESM2,
            ),
            Checkpoint(
                name="ankh_base",
                repository="ElnaggarLab/ankh-base",
                revision="d99cb6b966530dfc2ae96bc69d9255c2a07308b0",
                family="t5",
                width=768,
                layers=48,
                parameters=453_170_304,
                download_bytes=2_950_000_000,
                licence="CC-BY-NC-SA-4.0",
                citation=_ANKH,
            ),
            Checkpoint(
                name="ankh_large",
                repository="ElnaggarLab/ankh-large",
                revision="74b371dbfa3ee0a05d32ae74df0c2e0b82d6b9a6",
                family="t5",
                width=1536,
                layers=48,
                parameters=1_151_707_136,
                download_bytes=7_520_000_000,
                licence="CC-BY-NC-SA-4.0",
                citation=_ANKH,
            ),
        )
    }
)
"""By short name."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve_name(name: str) -> tuple[str, str, Checkpoint | None]:
    """What a user's name for a model stands for.

    Args:
        name: A name or repository in ``KNOWN_CHECKPOINTS``, or ``owner/name`` of any other on the hub.

    Returns:
        Name of the local folder, repository on the hub, and what is known of it.

    Raises:
        ArtifactError: The name is none of these; the message suggests close ones.
    """
    for known in KNOWN_CHECKPOINTS.values():
        if name in (known.name, known.repository):
            return known.name, known.repository, known
    if _HUB_ID.fullmatch(name):
        return name.replace("/", "--"), name, None
    raise ArtifactError(
        f"no model '{name}'{did_you_mean(name)}; give one of {', '.join(KNOWN_CHECKPOINTS)}, "
        "owner/name of a repository on the hub, or a folder with config.json"
    )


def did_you_mean(name: str) -> str:
    """A clause that suggests the known name closest to a misspelt one; empty where none is close."""
    spellings = {}
    for known in KNOWN_CHECKPOINTS.values():
        if name in (known.name, known.repository):
            return ""
        for spelling in (known.name, known.repository, known.repository.partition("/")[2]):
            spellings[spelling.lower()] = known.name
    close = difflib.get_close_matches(name.lower().replace("-", "_"), spellings, n=1, cutoff=0.75)
    return f" (did you mean {spellings[close[0]]}?)" if close else ""

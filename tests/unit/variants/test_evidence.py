"""What is gathered about a protein beside its sequence, and which ways of asking for it are refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enzyme_stability.errors import ConfigError, DataError, SequenceError
from enzyme_stability.sequence import AMINO_ACIDS, Record
from enzyme_stability.variant import Variant
from enzyme_stability.variants.evidence import Evidence
from enzyme_stability.variants.model import DeltaTmModel

WILD_TYPE = "MKVLAARRWQGGHDEPTYFCSNIMK"
RELATIVE = "MKVLAAKRWQGGHDEPTYFCSNIMK"
RECORD = Record("p", WILD_TYPE)

Gather = Callable[..., Evidence]


@pytest.fixture(scope="module")
def model() -> DeltaTmModel:
    return DeltaTmModel.builtin(1)


@pytest.fixture(scope="module")
def needy(model: DeltaTmModel, tmp_path_factory: pytest.TempPathFactory) -> DeltaTmModel:
    """A model that takes the scores of a language model."""
    folder = tmp_path_factory.mktemp("model") / "needy"
    shutil.copytree(model.folder, folder)
    settings = {"model": "esm2_8m", "method": "wild-type-marginals"}
    manifest = {**model.manifest, "name": "needy", "language_model": settings}
    (folder / "delta_tm.json").write_text(json.dumps(manifest))
    return DeltaTmModel(folder, 1)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def gather(model: DeltaTmModel, said: list[str]) -> Gather:
    def made(**settings: Any) -> Evidence:
        plain = {"model": model, "msa": None, "database": None, "language_model": None, "method": "masked-marginals"}
        return Evidence(**{**plain, **settings}, threads=1, report=said.append)

    return made


def write_alignment(path: Path, *rows: str) -> Path:
    path.write_text("".join(f">r{k}\n{row}\n" for k, row in enumerate(rows)))
    return path


def test_nothing_asked_for_is_nothing_known(gather: Gather, said: list[str]) -> None:
    evidence = gather()
    assert evidence.of(RECORD) == (None, None)
    assert evidence.scores(WILD_TYPE, [Variant.parse("K2A")], None) == {}
    assert said == []


def test_relatives_are_counted_and_rows_that_do_not_fit_are_named(
    gather: Gather, said: list[str], tmp_path: Path
) -> None:
    rows = [WILD_TYPE, RELATIVE, *[RELATIVE] * 14, *[RELATIVE[:-3]] * 7]
    alignment, scores = gather(msa=write_alignment(tmp_path / "rows.a3m", *rows)).of(RECORD)
    assert alignment is not None
    assert len(alignment.rows) == 1 + 15
    assert scores is None
    assert [line for line in said if line.endswith("p: 15 relatives")] == ["p: 15 relatives"]
    named = [line for line in said if line.startswith("left out of ")]
    assert len(named) == 6
    assert "r16" in named[0]
    assert named[-1].endswith(": 2 further rows")


def test_an_alignment_of_the_protein_alone_says_so(gather: Gather, said: list[str], tmp_path: Path) -> None:
    gather(msa=write_alignment(tmp_path / "alone.a3m", WILD_TYPE)).of(RECORD)
    assert said == ["p: 0 relatives: the sequence alone is used"]


def test_the_protein_is_cleaned_before_it_is_looked_for(gather: Gather, said: list[str], tmp_path: Path) -> None:
    path = write_alignment(tmp_path / "rows.a3m", WILD_TYPE, RELATIVE)
    gather(msa=path).of(Record("p", f"{WILD_TYPE[:5].lower()}--{WILD_TYPE[5:]}*"))
    assert said == ["p: 1 relatives"]
    with pytest.raises(SequenceError):
        gather(msa=path).of(Record("p", "MK1"))


def test_another_proteins_alignment_is_refused(gather: Gather, tmp_path: Path) -> None:
    path = write_alignment(tmp_path / "other.a3m", WILD_TYPE[::-1], RELATIVE[::-1])
    with pytest.raises(DataError, match=r"other\.a3m: no row is the wild type"):
        gather(msa=path).of(RECORD)


def test_profile_scores_are_summed_over_the_substitutions(gather: Gather, tmp_path: Path) -> None:
    profile = np.arange(20.0 * len(WILD_TYPE)).reshape(-1, 20)
    profile[1, AMINO_ACIDS.index("K")] = math.nan  # the residue that is there already
    listed = [Variant.parse(text) for text in ("K2A", "K2A:V3C", "K2K:V3C", "WT")]
    listed.append(Variant.parse("K102A", offset=100))
    found = gather(msa=tmp_path / "rows.a3m").scores(WILD_TYPE, listed, profile)
    assert found == {"profile_score": [20.0, 61.0, 41.0, 0, 20.0]}


def test_profile_scores_are_missing_without_relatives(gather: Gather, tmp_path: Path) -> None:
    found = gather(msa=tmp_path / "alone.a3m").scores(WILD_TYPE, [Variant.parse("K2A"), Variant.parse("WT")], None)
    assert all(math.isnan(score) for score in found["profile_score"])


def test_alignment_and_database_together_are_refused(gather: Gather) -> None:
    with pytest.raises(ConfigError, match="--msa or --database, not both"):
        gather(msa=Path("a"), database=Path("b"))


def test_an_unknown_kind_of_score_is_refused(gather: Gather) -> None:
    with pytest.raises(ConfigError, match="'guess'; give one of masked-marginals, "):
        gather(method="guess")


def test_a_model_brings_its_own_language_model(gather: Gather, needy: DeltaTmModel) -> None:
    assert gather(model=needy).language_model == "esm2_8m"
    assert gather(model=needy, language_model="esm2_8m").language_model == "esm2_8m"
    with pytest.raises(ConfigError, match="needy goes with esm2_8m, not with prot_bert"):
        gather(model=needy, language_model="prot_bert")

"""Training learns the rule, keeps families and held-out proteins apart, and says in the folder what it did."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from made_up_families import Families, Nature, write_table
from transformers.utils import logging

from enzyme_stability.errors import ArtifactError, ConfigError, DataError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant
from enzyme_stability.variants import training
from enzyme_stability.variants.model import MANIFEST, PLAIN, WITH_RELATIVES, DeltaTmModel
from enzyme_stability.variants.scan import SIGN
from enzyme_stability.variants.training import find_relatives, read_examples
from tiny_models import esm_config, save_tokeniser, stir

pytestmark = pytest.mark.usefixtures("mmseqs")

NATURE = Nature(31)


def refusal(families: Families, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_examples(families.config(**settings), families.folder, threads=1)
    return str(caught.value)


def manifest_of(model: DeltaTmModel) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((model.folder / MANIFEST).read_text())
    return manifest


def test_the_rule_behind_the_measurements_is_learned(delta_tm_model: DeltaTmModel) -> None:
    stranger = Nature(77).protein(120)
    rows = Nature(78).measured(stranger, 400, noise=0)
    told = delta_tm_model.predict(stranger, [Variant.parse(text) for _, text, _ in rows]).delta_tm
    truth = np.array([value for _, _, value in rows])
    assert np.corrcoef(told, truth)[0, 1] > 0.9
    figures = delta_tm_model.manifest["training"]["folds"]
    for kind in (PLAIN, WITH_RELATIVES):
        found, formula = (figures[kind][name]["pearson"]["value"] for name in ("delta_tm", "formula"))
        assert found > 0.85
        assert found > formula + 0.1


def test_intervals_and_probabilities_hold_on_the_proteins_left_out(delta_tm_model: DeltaTmModel) -> None:
    for figures in delta_tm_model.manifest["training"]["folds"].values():
        assert figures["coverage"]["nominal"] == 0.9
        assert figures["coverage"]["observed"] == pytest.approx(0.9, abs=0.03)
        assert 1 < figures["mean_width_celsius"] < 6
        assert figures["reliability"]["brier_skill"] > 0.3
        assert figures["delta_tm"]["n"] == 250


def test_the_manifest_says_what_the_model_is_made_of(delta_tm_model: DeltaTmModel, families: Families) -> None:
    manifest = manifest_of(delta_tm_model)
    assert manifest["sign"] == SIGN
    assert "positive = more stable" in manifest["sign"]
    assert set(manifest["heads"]) == set(manifest["intervals"]) == set(manifest["probability"])
    assert set(manifest["heads"]) == {PLAIN, WITH_RELATIVES}
    for part in (manifest["expected_profile"], *manifest["heads"].values()):
        content = (delta_tm_model.folder / part["file"]).read_bytes()
        assert part["sha256"] == hashlib.sha256(content).hexdigest()
    assert (delta_tm_model.folder / "expected_profile.onnx").read_bytes() == families.network.read_bytes()
    said = manifest["training"]
    assert said["relatives_from"] == "database.fasta"
    assert said["config"]["folds"] == 3
    assert manifest["language_model"] is None
    assert not list(delta_tm_model.folder.glob(".*"))


def test_relatives_of_the_held_out_proteins_are_counted_and_left_out(
    delta_tm_model: DeltaTmModel, families: Families
) -> None:
    said = delta_tm_model.manifest["training"]
    assert said["measurements"] == {"dTm": 250, "ddG": 0}  # of 300: the last of six families is out
    assert said["proteins"] == 10
    table, test = (str(families.folder / name) for name in ("table.csv", "test.csv"))
    shared = said["leakage"][table][test]
    assert shared["train"] == {"proteins": 12, "rows": 300}
    assert shared["test"] == {"proteins": 2, "rows": 12}
    assert shared["related"][0] == {"identity": 0.25, "proteins": 1, "rows": 6}


def test_without_a_database_there_is_one_head(plain_delta_tm_model: DeltaTmModel) -> None:
    manifest = manifest_of(plain_delta_tm_model)
    assert set(manifest["heads"]) == {PLAIN}
    assert manifest["training"]["relatives_from"] is None
    assert not (plain_delta_tm_model.folder / "head_with_relatives.onnx").exists()


def test_ddg_is_learned_along_and_not_judged(plain_delta_tm_model: DeltaTmModel) -> None:
    said = plain_delta_tm_model.manifest["training"]
    assert said["measurements"] == {"dTm": 300, "ddG": 100}
    assert said["proteins"] == 13
    assert said["folds"][PLAIN]["delta_tm"]["n"] == 300
    assert len(plain_delta_tm_model.manifest["intervals"][PLAIN]["below"]) == 300


def test_a_second_training_gives_the_same_files(
    plain_delta_tm_model: DeltaTmModel, families: Families, tmp_path: Path
) -> None:
    for leftover in ("head_with_relatives.onnx", "CARD.md"):
        (tmp_path / leftover).write_text("of another model")
    again = families.train(tmp_path, auxiliary=("S8754",))
    assert again.digest == plain_delta_tm_model.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        MANIFEST,
        "expected_profile.onnx",
        "head_plain.onnx",
    ]


def test_examples_are_substitutions_of_the_residues_that_are_there(families: Families) -> None:
    examples, leakage = read_examples(families.config(auxiliary=("S8754",)), families.folder, threads=1)
    table = examples.table
    assert examples.main.tolist() == [True] * 300 + [False] * 100
    assert leakage == {str(families.folder / "table.csv"): {}, "S8754": {}}
    columns = (table[name] for name in ("wild_type", "variant", "place", "before", "after"))
    for chain, variant, place, before, after in zip(*columns, strict=True):
        assert chain[place] == AMINO_ACIDS[before]
        assert variant == f"{AMINO_ACIDS[before]}{place + 1}{AMINO_ACIDS[after]}"
    assert table.groupby("wild_type")["protein"].nunique().max() == 1
    assert table["protein"].nunique() == 13
    assert examples.target[~examples.main].std() == pytest.approx(examples.target[examples.main].std(), rel=0.01)


def test_changes_beyond_the_largest_are_cut_to_learn_from_but_not_to_judge_by(families: Families) -> None:
    chain = NATURE.protein(40)
    other = next(letter for letter in AMINO_ACIDS if letter != chain[0])
    rows = [(chain, f"{chain[0]}1{other}", value) for value in (-30.0, -12.5, -3.0, 0.0, 12.0, 55.0)]
    path = write_table(families.folder / "extremes.csv", rows)
    examples, _ = read_examples(families.config(table=str(path)), families.folder)
    assert examples.target.tolist() == [-12, -12, -3, 0, 12, 12]
    assert examples.table["target"].tolist() == [-30, -12.5, -3, 0, 12, 55]
    narrow, _ = read_examples(families.config(table=str(path), largest_change=2.0), families.folder)
    assert narrow.target.tolist() == [-2, -2, -2, 0, 2, 2]


def test_only_single_substitutions_are_learned_from(families: Families) -> None:
    (chain, single, value), (_, another, _), (_, other, _) = NATURE.measured(NATURE.protein(60), 3)
    rows = [(chain, "WT", 0.0), (chain, single, value), (chain, another, value + 1)]
    path = write_table(families.folder / "mixed.csv", rows)
    with path.open("a") as stream:
        stream.write(f"{chain},{single}:{other},-4.0\n")
    examples, _ = read_examples(families.config(table=str(path)), families.folder)
    assert examples.table["variant"].tolist() == [single, another]


def test_a_table_of_another_quantity_is_refused(families: Families) -> None:
    own = str(families.folder / "table.csv")
    assert refusal(families, table="S8754") == "S8754 holds ddG; dTm is needed here"
    assert refusal(families, auxiliary=(own,)) == f"{own} holds dTm; ddG is needed here"


def test_a_table_of_which_nothing_is_left_is_refused(families: Families) -> None:
    table = str(families.folder / "table.csv")
    assert "nothing is left of" in refusal(families, held_out=(table,))
    wild_types_only = write_table(families.folder / "wild_types.csv", [(families.wild_types[0], "WT", 0.0)])
    assert "has no measured single substitution" in refusal(families, table=str(wild_types_only))


def test_a_table_of_one_value_is_refused(families: Families) -> None:
    rows = [(chain, variant, 2.0) for chain, variant, _ in NATURE.measured(NATURE.protein(60), 2)]
    table = write_table(families.folder / "same.csv", rows)
    assert "all measurements of a table are the same" in refusal(families, table=str(table))


def test_tables_that_are_not_there_are_refused(families: Families) -> None:
    assert "no such file" in refusal(families, table="S4346")
    assert "no such file" in refusal(families, held_out=("missing.csv",))


def test_no_family_is_in_two_folds(families: Families) -> None:
    # nor one whose ends are related over the protein between them alone
    first, last, middle = NATURE.protein(80), NATURE.protein(80), NATURE.protein(20)
    chained = [first, first + middle + last, last]
    rows = [row for chain in (*chained, *families.wild_types) for row in NATURE.measured(chain, 4)]
    path = write_table(families.folder / "chained.csv", rows)
    examples, _ = read_examples(families.config(table=str(path)), families.folder)
    folds = training._folds(examples, families.config(folds=4), threads=1)
    by_protein = dict(zip(examples.table["wild_type"], folds.tolist(), strict=True))
    assert all(
        by_protein[wild_type] == fold for wild_type, fold in zip(examples.table["wild_type"], folds, strict=True)
    )
    for one, other in zip(families.wild_types[::2], families.wild_types[1::2], strict=True):
        assert by_protein[one] == by_protein[other]
    assert len({by_protein[chain] for chain in chained}) == 1
    assert set(folds.tolist()) == {0, 1, 2, 3}


def test_relatives_are_those_of_the_family_and_proteins_without_any_are_left_out(families: Families) -> None:
    found = find_relatives(dict(enumerate(families.wild_types)), families.database, threads=1)
    assert sorted(found) == list(range(8))
    assert {len(alignment.rows) for alignment in found.values()} == {7}


@pytest.fixture
def _folds_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_folds", lambda examples, *_: examples.table["protein"].to_numpy() // 2 % 3)


@pytest.mark.usefixtures("_folds_without_a_search")
def test_a_folder_that_can_not_be_written_is_said(families: Families, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write to"):
        families.train(tmp_path / "file")


@pytest.mark.usefixtures("_folds_without_a_search")
def test_scores_of_a_language_model_are_a_further_input(families: Families, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(6)
    logging.disable_progress_bar()
    checkpoint = transformers.EsmForMaskedLM(esm_config("rotary"))
    stir(checkpoint)
    checkpoint.save_pretrained(tmp_path / "esm")
    save_tokeniser("esm2", tmp_path / "esm")
    logging.enable_progress_bar()
    folder = str(tmp_path / "esm")
    model = families.train(tmp_path / "model", language_model=folder, language_score="wild-type-marginals")
    assert model.language_model == (folder, "wild-type-marginals")
    chain = families.wild_types[0]
    with pytest.raises(ConfigError, match=r"needs the scores of .*give --language-model"):
        model.scan(chain)
    with pytest.raises(ConfigError, match=r"scores of shape \(90, 19\) are not those of 90 residues"):
        model.scan(chain, language_scores=np.zeros((90, 19)))
    low = model.scan(chain, language_scores=np.full((90, 20), -5.0)).estimate.delta_tm
    high = model.scan(chain, language_scores=np.full((90, 20), 5.0)).estimate.delta_tm
    assert np.nanmin(high - low) >= 0  # a likelier substitution is never said to be less stable
    assert np.nanmax(high - low) > 0

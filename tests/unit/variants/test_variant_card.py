"""The card of a delta-Tm model: every figure is given, none is typed; it is of this model, and says the sign."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from enzyme_stability.config.delta_tm import DeltaTmConfig
from enzyme_stability.errors import ArtifactError, DataError
from enzyme_stability.variants.baseline import FORMULA
from enzyme_stability.variants.card import VariantEvaluation, write_delta_tm_card
from enzyme_stability.variants.manifest import MANIFEST
from enzyme_stability.variants.model import DeltaTmModel
from enzyme_stability.variants.scan import SIGN

TEMPLATE = files("enzyme_stability").joinpath("templates/delta_tm_card.md.j2").read_text(encoding="utf-8")


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.061, "high": value + 0.072}


def fold(start: float) -> dict[str, Any]:
    names = ("pearson", "spearman", "rmse", "sign_accuracy", "majority_sign", "protein_spearman")
    figures = {name: figure(start + k / 17) for k, name in enumerate(names)} | {"n": 3708, "proteins": 265}
    return {
        "delta_tm": figures,
        "formula": {**figures, "pearson": figure(start - 0.017)},
        "coverage": {"nominal": 0.87, "observed": start + 0.313},
        "mean_width_celsius": 19.3 + start,
        "reliability": {"base_rate": 0.297, "brier_skill": start / 7, "calibration_error": 0.0223},
    }


def manifest(*kinds: str, **changes: Any) -> dict[str, Any]:
    kinds = kinds or ("plain", "with_relatives")
    training = {
        "config": DeltaTmConfig().model_dump(mode="json"),
        "measurements": {"dTm": 3709, "ddG": 7401},
        "proteins": 375,
        "relatives_from": "secret/pool.fasta.gz",
        "leakage": {},
        "folds": {kind: fold(0.241 + 0.031 * k) for k, kind in enumerate(kinds)},
    }
    nothing = {"file": "none.onnx", "sha256": ""}
    return {
        "format": 1,
        "name": "delta_tm",
        "description": "Made up.",
        "expected_profile": nothing,
        "heads": dict.fromkeys(kinds, nothing),
        "intervals": {key: {"below": [1.0], "above": [1.0], "upper_tail_share": 0.5} for key in kinds},
        "probability": {key: {"intercept": 0.0, "slope": 1.0} for key in kinds},
        "pseudocount": 5.0,
        "training": training,
        **changes,
    }


def write_model(folder: Path, content: dict[str, Any]) -> DeltaTmModel:
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    return DeltaTmModel(folder)


def method(name: str, kind: str, start: float, rows: str = "all", **changes: Any) -> dict[str, Any]:
    names = ("pearson", "spearman", "rmse", "sign_accuracy", "majority_sign", "protein_spearman", "auc")
    found = {key: figure(start + k / 19) for k, key in enumerate((*names, "antisymmetry", "reverse_bias"))}
    about = {"method": name, "kind": kind, "needs": "sequence" if kind == "published" else None, "rows": rows}
    return {**about, "n": 571, "unanswered": 0, "proteins": 39, **found, **changes}


def evaluation(model: DeltaTmModel, **changes: Any) -> VariantEvaluation:
    rate = {"n": 117, "proteins": 8, "hit_rate": figure(0.313), "random": figure(0.257), "baseline": figure(0.287)}
    related = [{"identity": 0.25, "proteins": 16, "rows": 346}]
    content = {
        "name": "S571",
        "description": "A made-up test set",
        "quantity": "dTm",
        "model": model.name,
        "digest": model.digest,
        "measurements": 571,
        "proteins": 39,
        "relatives_from": "pool.fasta.gz",
        "proteins_with_relatives": 37,
        "comparison": [
            method("delta_tm, sequence alone", "ours", 0.233),
            method("formula", "baseline", 0.217, rmse=None, antisymmetry=None),
            method("GeoDTm-Seq", "published", 0.453),
            method("delta_tm, sequence alone", "ours", 0.187, rows="without relatives in S4346 as published"),
        ],
        "hit_rates": {"delta_tm, sequence alone": {"top 10": rate, "top 50": None}},
        "reliability": {},
        "intervals": {
            "delta_tm, sequence alone": {"nominal": 0.91, "observed": figure(0.833), "mean_width_celsius": 20.4}
        },
        "leakage": {"S4346 as published": {"related": related, "same_mutations": 23}},
        "notes": ["a note of its own"],
    }
    return VariantEvaluation.model_validate(content | changes)


def write_card(folder: Path, content: dict[str, Any] | None = None, **changes: Any) -> str:
    folder.mkdir(exist_ok=True)
    model = write_model(folder / "model", content or manifest())
    saved = folder / "evaluations"
    saved.mkdir()
    (saved / "S571.json").write_text(evaluation(model, **changes).model_dump_json(), encoding="utf-8")
    path = write_delta_tm_card(model, saved)
    assert path == model.folder / "CARD.md"
    return path.read_text(encoding="utf-8")


def changed(value: Any) -> Any:
    """The same structure with every number replaced by another one, as different in print."""
    match value:
        case dict():
            return {key: changed(item) for key, item in value.items()}
        case list() | tuple():
            return [changed(item) for item in value]
        case bool() | None:
            return value
        case int():
            return value * 3 + 5
        case float():
            return value * 1.3 + 0.107
        case _:
            return value


def test_no_figure_is_typed_in_the_template() -> None:
    words = re.sub(r"{{.*?}}|{%.*?%}|```.*?```", "", TEMPLATE, flags=re.DOTALL)
    assert re.findall(r"\d+", words) == []
    code = " ".join(re.findall(r"{{.*?}}|{%.*?%}", TEMPLATE, flags=re.DOTALL))
    code = re.sub(r"(figure|number|share)\(\d|\[\d\]|\[1:\]|2 \* m|!= 1", "", code)
    assert re.findall(r"\d+", code) == []


def test_every_figure_follows_the_input(tmp_path) -> None:
    content = manifest()
    # what a setting is does not follow from figures: those of the training stay
    other = {**content, "training": {**changed(content["training"]), "config": content["training"]["config"]}}
    before = write_card(tmp_path / "before", content)
    model = DeltaTmModel(tmp_path / "before" / "model")
    plain = evaluation(model).model_dump(exclude={"digest", "name", "model", "sign", "quantity", "notes"})
    after = write_card(tmp_path / "after", other, **changed(plain))
    stays = {"95", "0.3", "62", "571", "4346", "10", "12", "25", "5", "8754", "669"}
    pairs = zip(before.split("## Settings")[0].splitlines(), after.splitlines(), strict=False)
    for old, new in pairs:
        if "|" not in old and "°C" not in old:
            continue
        for a, b in zip(re.findall(r"\d[\d.,]*", old), re.findall(r"\d[\d.,]*", new), strict=True):
            assert a != b or a.rstrip(".,") in stays or "doi" in old, f"{a} stands in both cards:\n{old}\n{new}"


def test_the_figures_given_are_the_figures_shown(tmp_path) -> None:
    card = write_card(tmp_path)
    for text in (
        "| sequence alone | 3,708 | 0.24 [0.18, 0.31] |",
        "| with relatives | 3,708 | 0.27 [0.21, 0.34] |",
        "| formula | 3,708 | 0.22 [0.16, 0.30] |",
        "3,709 measurements of delta Tm, and beside them, as another task, 7,401 of ddG",
        "in 375 proteins",
        "55.4 % of the measured changes (asked for 87 %)",
        "| **delta_tm, sequence alone** | ours | 571 | 0.23 [0.17, 0.30] |",
        "| GeoDTm-Seq | sequence | 571 | 0.45 [0.39, 0.53] |",
        "Rows: without relatives in S4346 as published.",
        "| S4346 as published | 16 | 346 | 23 |",
        "top 10 of each of 8 proteins: 0.31 [0.25, 0.39] more stable",
        "intervals hold 0.83 [0.77, 0.90] (asked for 0.91), 20.4 °C wide",
        "Relatives were found for 37 of the proteins in pool.fasta.gz.",
        "A note of its own.",
    ):
        assert text in card, text


def test_the_card_says_the_sign_the_sources_and_the_limits(tmp_path) -> None:
    card = write_card(tmp_path)
    assert f"**{SIGN}**" in card
    assert FORMULA in card
    for words in (
        "ProThermDB (doi 10.1093/nar/gkaa1035)",
        "MIT as published by GeoStab",
        "in S571 or S669 were left out",
        "the more frequent one, that of a less stable variant, is right for\n  48 % of the measured",
        "this model is for 42 % (sequence alone), 45 % (with relatives)",
        "**Intervals are wide**, on average 19.5 °C (sequence alone), 19.6 °C (with relatives)",
        "the two correlate by 0.60 [0.54, 0.67], and add up to 1.3 °C on average",
        "**Sequence only**",
        "of purified proteins",
        "choose what to measure first",
    ):
        assert words in card, words
    assert "secret" not in card
    headings = re.findall(r"^## (.*)", card, flags=re.MULTILINE)
    assert headings[0] == "What it predicts"
    assert headings[-3:] == ["Limits", "Licence", "Settings"]


def test_another_unit_has_no_error_column_and_what_is_undefined_is_a_dash(tmp_path) -> None:
    assert "| formula | baseline | 571 | 0.22 [0.16, 0.29] | 0.27 [0.21, 0.34] | - |" in write_card(tmp_path / "dTm")
    card = write_card(tmp_path / "ddG", quantity="ddG", intervals={})
    test = card.split("### S571")[1].split("## Limits")[0]
    assert "RMSE" not in test
    assert "measured is ddG" in test


def test_tables_are_well_formed(tmp_path) -> None:
    card = write_card(tmp_path)
    blocks = [b for b in re.split(r"\n(?!\|)", card) if "\n|" in f"\n{b}"]
    tables = [[line for line in block.splitlines() if line.startswith("|")] for block in blocks]
    assert len(tables) == 5
    for rows in tables:
        assert len(rows) >= 3
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, rows


def test_without_evaluations_there_are_the_folds_alone(tmp_path) -> None:
    model = write_model(tmp_path / "model", manifest())
    empty = tmp_path / "empty"
    empty.mkdir()
    card = write_delta_tm_card(model, empty, unlabelled_proteins="CC BY: UniProt").read_text(encoding="utf-8")
    assert "## Accuracy on proteins left out" in card
    assert "## Accuracy on public tables" not in card
    assert "The way back" not in card
    assert "| profiles of families | proteins without a measurement | CC BY: UniProt |" in card


def test_a_model_of_ones_own_is_named_and_its_folders_stay_private(tmp_path) -> None:
    config = DeltaTmConfig(name="mine", table="/home/me/own.csv", auxiliary=(), held_out=())
    content = manifest("plain", name="mine")
    content["training"] |= {"config": config.model_dump(mode="json"), "measurements": {"dTm": 240, "ddG": 0}}
    card = write_card(tmp_path, content)
    assert "enzyme-stability scan protein.fasta --model model" in card
    assert "/home/me" not in card
    assert "| own.csv | measured variants |" in card
    assert "ddG" not in card.split("## Training")[1].split("## Accuracy")[0]
    assert "figures on related test proteins flatter" in card


def test_evaluations_of_another_model_and_damaged_ones_are_refused(tmp_path) -> None:
    model = write_model(tmp_path / "model", manifest())
    saved = tmp_path / "saved"
    with pytest.raises(DataError, match="saved is no folder of evaluations"):
        write_delta_tm_card(model, saved)
    saved.mkdir()
    (saved / "S571.json").write_text(evaluation(model, digest="other").model_dump_json(), encoding="utf-8")
    with pytest.raises(DataError, match="S571 is of another model"):
        write_delta_tm_card(model, saved)
    (saved / "S571.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"S571\.json is no evaluation"):
        write_delta_tm_card(model, saved)
    assert not (tmp_path / "model" / "CARD.md").exists()


def test_a_manifest_that_lacks_figures_is_named(tmp_path) -> None:
    for number, part in enumerate(("training", "folds", "measurements", "coverage")):
        content = json.loads(json.dumps(manifest()))
        holder = {"training": content, "coverage": content["training"]["folds"]["plain"]}.get(part, content["training"])
        del holder[part]
        model = write_model(tmp_path / f"model{number}", content)
        with pytest.raises(ArtifactError, match="lacks what the card needs"):
            write_delta_tm_card(model, tmp_path)
    model = write_model(tmp_path / "blocked", manifest())
    (tmp_path / "blocked" / "CARD.md").mkdir()
    with pytest.raises(ArtifactError, match="cannot write to"):
        write_delta_tm_card(model, tmp_path)

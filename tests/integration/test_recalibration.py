"""Recalibration from a user's table to a new predictor: what it says, what it writes, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from enzyme_stability import Predictor, Record
from enzyme_stability.cli.calibrate import calibrate
from enzyme_stability.errors import ArtifactError, ConfigError, DataError, EnzymeStabilityError
from enzyme_stability.predictor import MANIFEST, PLAIN, WITH_GROWTH
from enzyme_stability.recalibration import Recalibration, read_measurements, recalibrate

SHIFT_CELSIUS = 9.0

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def proteins(builtin: Predictor, made_up_proteins: pd.DataFrame) -> pd.DataFrame:
    """Proteins measured just as the predictor says, give or take 2 degC; growth temperatures unknown."""
    table = made_up_proteins.iloc[:60][["id", "sequence"]].reset_index(drop=True)
    predicted = [row.tm_celsius for row in builtin.predict(table["sequence"])]
    noise = np.random.default_rng(0).normal(0, 2, len(table))
    return table.assign(predicted=predicted, tm_celsius=np.array(predicted, dtype=float) + noise)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(table: pd.DataFrame, name: str = "measured.csv") -> Path:
        table.drop(columns="predicted", errors="ignore").to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return written


@pytest.fixture(scope="module")
def shifted(builtin: Predictor, proteins: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Recalibration:
    """Recalibrated on measurements that lie 9 degC above the predictions."""
    folder = tmp_path_factory.mktemp("shifted")
    table = proteins.assign(tm_celsius=proteins["tm_celsius"] + SHIFT_CELSIUS).drop(columns="predicted")
    table.to_csv(folder / "dsf.csv", index=False)
    return recalibrate(builtin, folder / "dsf.csv", folder / "mine", name="mine")


def test_another_kind_of_measurement_is_corrected_for(
    builtin: Predictor, proteins: pd.DataFrame, shifted: Recalibration
) -> None:
    assert shifted.helped
    assert "helped: cross-validated MAE" in shifted.summary()
    new = Predictor.load(shifted.predictor.folder)
    assert new.name == "mine"
    assert new.digest != builtin.digest
    moved = np.array([row.tm_celsius for row in new.predict(proteins["sequence"])]) - proteins["predicted"]
    assert moved.mean() == pytest.approx(SHIFT_CELSIUS, abs=1)
    for row, measured in zip(new.predict(proteins["sequence"]), proteins["tm_celsius"], strict=True):
        assert row.tm_lower_celsius < row.tm_celsius < row.tm_upper_celsius  # type: ignore[operator]
        assert abs(row.tm_celsius - measured - SHIFT_CELSIUS) < 12  # type: ignore[operator]


def test_what_was_done_is_told_beside_the_predictor_and_the_old_figures_are_not(
    builtin: Predictor, shifted: Recalibration
) -> None:
    folder = shifted.predictor.folder
    old, new = builtin.manifest, json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert {path.name for path in folder.iterdir()} == {path.name for path in builtin.model_files()} | {"CARD.md"}
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    assert shifted.summary() in card
    assert "dsf.csv" in card
    assert card != (builtin.folder / "CARD.md").read_text(encoding="utf-8")
    assert new["training"]["calibration_proteins"] == 60
    account = new["training"]["recalibration"]
    assert account["from"] == {"name": "builtin", "digest": builtin.digest}
    assert account["proteins"] == 60
    assert account["heads"][PLAIN]["chosen"] == new["correction"]["kind"] != "none"
    assert new["heads"] == old["heads"]
    assert new["intervals"].keys() == old["intervals"].keys()
    assert len(new["intervals"][PLAIN]["below"]) == 60
    assert str(folder.parent) not in json.dumps(new) + card


def test_the_interval_holds_the_measurements_it_was_calibrated_for(
    proteins: pd.DataFrame, shifted: Recalibration
) -> None:
    rows = shifted.predictor.predict(proteins["sequence"], coverage=0.9)
    measured = proteins["tm_celsius"] + SHIFT_CELSIUS
    inside = [r.tm_lower_celsius <= y <= r.tm_upper_celsius for r, y in zip(rows, measured, strict=True)]  # type: ignore[operator]
    assert 0.85 <= np.mean(inside) <= 1
    held = shifted.heads[PLAIN].coverage
    assert held["before"] is not None
    assert held["after"] is not None
    assert 0.8 <= held["after"]["value"] <= 1


def test_coverage_before_is_that_of_the_predictor_as_it_answers(
    builtin: Predictor, proteins: pd.DataFrame, shifted: Recalibration, write: Write, tmp_path: Path
) -> None:
    measured = proteins.assign(tm_celsius=proteins["tm_celsius"] + SHIFT_CELSIUS)
    again = recalibrate(shifted.predictor, write(measured), tmp_path / "again", coverage=0.8)
    for predictor, choice, coverage in ((builtin, shifted, 0.9), (shifted.predictor, again, 0.8)):
        rows = predictor.predict(proteins["sequence"], coverage=coverage)
        pairs = zip(rows, measured["tm_celsius"], strict=True)
        inside = [r.tm_lower_celsius <= y <= r.tm_upper_celsius for r, y in pairs]  # type: ignore[operator]
        before = choice.heads[PLAIN].coverage["before"]
        assert before is not None
        assert before["value"] == pytest.approx(np.mean(inside))


def test_the_same_kind_of_measurement_changes_the_interval_alone(
    builtin: Predictor, proteins: pd.DataFrame, write: Write, tmp_path: Path
) -> None:
    done = recalibrate(builtin, write(proteins), tmp_path / "new")
    assert not done.helped
    assert "did not help" in done.summary()
    assert "correction" not in done.predictor.manifest
    assert done.predictor.name == "builtin-recalibrated"
    before, after = (predictor.predict(proteins["sequence"][:9]) for predictor in (builtin, done.predictor))
    assert [row.tm_celsius for row in after] == [row.tm_celsius for row in before]
    assert [row.tm_upper_celsius for row in after] != [row.tm_upper_celsius for row in before]


def test_a_second_recalibration_replaces_the_first(
    proteins: pd.DataFrame, shifted: Recalibration, write: Write, tmp_path: Path
) -> None:
    measured = proteins.assign(tm_celsius=proteins["tm_celsius"] + SHIFT_CELSIUS)
    again = recalibrate(shifted.predictor, write(measured), tmp_path / "again")
    assert again.predictor.manifest["correction"] == shifted.predictor.manifest["correction"]
    assert any("is replaced" in note for note in again.notes)
    back = recalibrate(shifted.predictor, write(proteins), tmp_path / "back")
    assert "correction" not in back.predictor.manifest


def test_the_growth_temperature_gets_a_correction_of_its_own_where_enough_are_known(
    builtin: Predictor, proteins: pd.DataFrame, write: Write, tmp_path: Path
) -> None:
    growth = np.random.default_rng(1).uniform(15, 80, len(proteins))
    records = [Record("", s, g) for s, g in zip(proteins["sequence"], growth, strict=True)]
    given = np.array([row.tm_celsius for row in builtin.predict(records)], dtype=float)
    measured = given + 0.4 * (growth - 45) - 5
    table = proteins.assign(tm_celsius=measured, growth_temperature=growth)
    done = recalibrate(builtin, write(table), tmp_path / "new")
    assert done.heads[WITH_GROWTH].chosen == "growth"
    after = np.array([row.tm_celsius for row in done.predictor.predict(records)], dtype=float)
    assert np.abs(after - measured).mean() < 1 < np.abs(given - measured).mean()


def test_few_growth_temperatures_give_both_heads_one_correction(
    builtin: Predictor, proteins: pd.DataFrame, write: Write, tmp_path: Path
) -> None:
    table = proteins.assign(tm_celsius=proteins["tm_celsius"] + 9, growth_temperature=[37.0] * 19 + [np.nan] * 41)
    done = recalibrate(builtin, write(table), tmp_path / "new")
    assert done.heads.keys() == {PLAIN}
    assert "too few growth temperatures" in done.summary()
    record = Record("", proteins["sequence"][0], 37.0)
    (before,), (after,) = (predictor.predict([record]) for predictor in (builtin, done.predictor))
    assert after.tm_celsius - before.tm_celsius == pytest.approx(9, abs=3)  # type: ignore[operator]


def test_rows_that_cannot_be_used_are_counted_and_named(proteins: pd.DataFrame, write: Write) -> None:
    odd = [
        {"id": "stop", "sequence": "MKV*LAARRWQLEE", "tm_celsius": 50},
        {"id": "blank", "sequence": proteins["sequence"][0], "tm_celsius": None},
        {"id": "kelvin", "sequence": proteins["sequence"][1], "tm_celsius": 330.0},
        {"id": "again", "sequence": proteins["sequence"][2].lower(), "tm_celsius": proteins["tm_celsius"][2] + 4},
    ]
    found, left_out = read_measurements(write(pd.concat([proteins, pd.DataFrame(odd)])))
    assert len(found) == 60
    assert found["tm_celsius"][2] == pytest.approx(proteins["tm_celsius"][2] + 2)
    assert len(left_out) == 4
    for name, why in (("stop", "stop codon"), ("blank", "tm missing"), ("kelvin", "330"), ("again", "merged")):
        assert any(f"({name})" in row and why in row for row in left_out)


def test_relatives_are_one_family(proteins: pd.DataFrame, builtin: Predictor, write: Write, tmp_path: Path) -> None:
    mutants = proteins.assign(sequence="M" + proteins["sequence"].str[:-3])
    done = recalibrate(builtin, write(pd.concat([proteins, mutants])), tmp_path / "new")
    assert done.heads[PLAIN].proteins == 120
    assert done.heads[PLAIN].clusters <= 60


@pytest.mark.parametrize(
    ("change", "settings", "family", "message"),
    [
        (lambda t: t.iloc[:19], {}, DataError, "19 proteins with a Tm; at least 20"),
        (lambda t: t.assign(tm_celsius=55), {}, DataError, "every Tm is 55"),
        (lambda t: t.assign(sequence=["A" * k + t["sequence"][0] for k in range(60)]), {}, DataError, "all relatives"),
        (lambda t: t.assign(sequence="123"), {}, DataError, "no row of"),
        (lambda t: t.drop(columns="tm_celsius"), {}, DataError, "no column for the tm"),
        (lambda t: t.iloc[:20], {"coverage": 0.95}, ConfigError, "highest it can promise"),
        (lambda t: t, {"coverage": 1.5}, ConfigError, "between 0 and 1"),
        (lambda t: t, {"name": "My predictor"}, ConfigError, "small letters"),
    ],
)
def test_what_cannot_be_judged_is_refused_and_nothing_is_written(
    builtin: Predictor,
    proteins: pd.DataFrame,
    write: Write,
    tmp_path: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    settings: dict[str, Any],
    family: type[EnzymeStabilityError],
    message: str,
) -> None:
    path = write(change(proteins))
    with pytest.raises(family, match=message):
        recalibrate(builtin, path, tmp_path / "new", **settings)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_is_there_is_not_overwritten(builtin: Predictor, proteins: pd.DataFrame, write: Write) -> None:
    path = write(proteins)
    with pytest.raises(ArtifactError, match="exists already"):
        recalibrate(builtin, path, path.parent)
    with pytest.raises(ArtifactError, match="cannot write the predictor"):
        recalibrate(builtin, path, path / "inside_a_file")


def test_the_command_prints_the_verdict_and_names_what_it_left_out(proteins: pd.DataFrame, write: Write) -> None:
    app = typer.Typer()
    app.command()(calibrate)
    table = pd.concat([proteins.assign(tm_celsius=proteins["tm_celsius"] + 9), pd.DataFrame([{"sequence": "MK"}] * 7)])
    path = write(table)
    output = path.parent / "mine"
    done = CliRunner().invoke(app, [str(path), "--output", str(output), "--name", "mine", "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert "helped: cross-validated MAE" in done.stdout
    assert "left out: line 62" in done.stderr
    assert "left out: 2 further rows" in done.stderr
    assert Predictor.load(output).name == "mine"

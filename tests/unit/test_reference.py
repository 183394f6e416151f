"""Reference statistics: bins that hold with ties, a round trip through JSON, and the same proteins as the intervals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enzyme_stability import Predictor
from enzyme_stability.config import TrainConfig
from enzyme_stability.configuration import compose
from enzyme_stability.errors import ArtifactError, DataError
from enzyme_stability.fitting import encode, fit_predictor, set_apart
from enzyme_stability.manifest import MANIFEST
from enzyme_stability.reference import COLUMNS, GIVEN_GROWTH, INPUTS, PREDICTIONS, Histogram, Reference, logged_rows
from enzyme_stability.sequence import Record

numbers = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=200)


# Histograms


@given(numbers)
def test_the_shares_are_those_of_the_very_values(values: list[float]) -> None:
    kept = Histogram.of(np.array(values))
    assert kept.count(np.array(values)) == pytest.approx(kept.counts, abs=len(values) * 1e-6)
    assert len(kept.shares) == len(kept.edges) + 1 <= 11
    assert list(kept.edges) == sorted(set(kept.edges))


def test_bins_hold_about_a_tenth_each_where_nothing_ties() -> None:
    kept = Histogram.of(np.random.default_rng(0).normal(50, 5, 1000))
    assert kept.shares == pytest.approx([0.1] * 10, abs=1e-3)
    assert (kept.mean, kept.sd) == pytest.approx((50, 5), abs=0.5)


def test_ties_share_a_bin_and_fill_it_alone_at_either_end() -> None:
    middle = np.random.default_rng(0).uniform(0.1, 0.9, 200)
    kept = Histogram.of(np.concatenate([np.zeros(400), middle, np.ones(400)]))
    assert kept.shares[0] == kept.shares[-1] == pytest.approx(0.4)
    assert 2 < len(kept.shares) < 10


@pytest.mark.parametrize("moved", [-0.5, 0.5])
def test_a_constant_that_moves_leaves_its_bin(moved: float) -> None:
    kept = Histogram.of(np.full(300, 12.5))
    assert kept.count(np.full(7, 12.5)).tolist() == [0, 7, 0]
    assert kept.count(np.full(7, 12.5 + moved))[1] == 0


def test_values_beyond_the_reference_fall_into_the_outer_bins() -> None:
    kept = Histogram.of(np.arange(100.0))
    assert kept.count(np.array([-1e9, 1e9])).tolist() == [1, *[0] * 8, 1]


def test_a_sample_has_the_shape_of_what_was_binned() -> None:
    values = np.random.default_rng(0).gamma(2, 3, 5000)
    drawn = Histogram.of(values).sample(5000)
    assert np.quantile(drawn, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(values, [0.1, 0.5, 0.9]), rel=0.02)
    assert values.min() - 1e-5 <= drawn.min() < drawn.max() <= values.max() + 1e-5
    ties = Histogram.of(np.full(50, 3.0)).sample(5)
    assert ties == pytest.approx([3.0] * 5, abs=1e-5)


# References


@pytest.fixture(scope="module")
def rows(builtin: Predictor, made_up_proteins: pd.DataFrame) -> pd.DataFrame:
    """What the log holds of made-up proteins, some of them asked for with a growth temperature."""
    residues = made_up_proteins["sequence"].tolist()[:150]
    growth = made_up_proteins["growth_temperature_celsius"].tolist()[:150]
    plain = logged_rows(residues, builtin.predict(residues))
    with_growth = builtin.predict(Record("", r, g) for r, g in zip(residues, growth, strict=True))
    return pd.concat([plain, logged_rows(residues, with_growth, growth_temperature=growth)[pd.notna(growth)]])


@pytest.fixture
def reference(rows: pd.DataFrame) -> Reference:
    return Reference.of(rows)


def test_all_quantities_are_watched_and_answers_of_either_head_apart(reference: Reference, rows: pd.DataFrame) -> None:
    assert set(reference.quantities) == {*INPUTS, *PREDICTIONS}
    assert reference.quantities["share_of_C"].n == reference.quantities["tm_celsius"].n == reference.proteins == 150
    known = rows["growth_temperature_celsius"].notna()
    with_growth = reference.quantities["tm_celsius" + GIVEN_GROWTH]
    assert (with_growth.n, with_growth.mean) == pytest.approx((120, rows.loc[known, "tm_celsius"].mean()), abs=1e-4)
    assert reference.quantities["log10_length"].mean == pytest.approx(np.log10(rows["length"][:150]).mean(), abs=1e-5)


def test_few_answers_with_a_growth_temperature_count_among_the_others(rows: pd.DataFrame) -> None:
    plain = rows["growth_temperature_celsius"].isna().to_numpy()
    few = pd.concat([rows[~plain][:20], rows[plain][20:]])
    reference = Reference.of(few)
    assert set(reference.quantities) == {*INPUTS, *PREDICTIONS[:2]}
    assert reference.values(few)["tm_celsius"].size == reference.proteins == 150 - 4  # of 25, every fifth is unknown


def test_a_protein_counts_once_and_an_error_not_at_all(rows: pd.DataFrame) -> None:
    failed = rows[:1].assign(status="error", sequence_hash=None, tm_celsius=np.nan)
    more = Reference.of(pd.concat([rows, *[rows[5:6]] * 500, failed, failed]))
    once = Reference.of(rows)
    assert more.quantities == once.quantities
    assert (once.error_share, more.error_share) == (0, pytest.approx(2 / (len(rows) + 502), abs=1e-6))


def test_rows_without_a_hash_are_proteins_of_their_own(rows: pd.DataFrame) -> None:
    vectors = rows.assign(sequence_hash=None, length=None)
    reference = Reference.of(vectors)
    assert reference.proteins == len(rows)
    assert reference.quantities.keys() == {*INPUTS, *PREDICTIONS} - {"log10_length"}


def test_widths_are_those_of_the_usual_coverage(rows: pd.DataFrame) -> None:
    narrow = rows.assign(coverage=0.5, tm_lower_celsius=rows["tm_celsius"] - 1, tm_upper_celsius=rows["tm_celsius"] + 1)
    reference = Reference.of(pd.concat([narrow[:110], rows]))
    assert reference.coverage == 0.9
    assert reference.quantities["interval_width_celsius"] == Reference.of(rows).quantities["interval_width_celsius"]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(rows: pd.DataFrame, column: str) -> None:
    with pytest.raises(DataError, match=rf"lacks the columns {column}$"):
        Reference.of(rows.drop(columns=column))


def test_too_few_proteins_make_no_reference(rows: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="at least 100 distinct proteins, and there are 99: take a longer time"):
        Reference.of(pd.concat([rows[:99]] * 3))
    with pytest.raises(DataError, match="at least 1 distinct"):
        Reference.of(rows[:0], minimum=0)


# On disk


def test_a_file_gives_back_the_very_reference(reference: Reference, tmp_path: Path) -> None:
    reference.save(tmp_path / "quiet_week.json")
    assert Reference.load(tmp_path / "quiet_week.json") == reference
    assert [path.name for path in tmp_path.iterdir()] == ["quiet_week.json"]


def test_what_cannot_be_written_or_read_is_one_sentence(reference: Reference, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot write to .*quiet\.json: No such file"):
        reference.save(tmp_path / "absent" / "quiet.json")
    with pytest.raises(ArtifactError, match="cannot be read as a reference"):
        Reference.load(tmp_path / "absent.json")
    (tmp_path / "cut.json").write_bytes(b'{"proteins": \xff')
    with pytest.raises(ArtifactError, match=r"cut\.json cannot be read"):
        Reference.load(tmp_path / "cut.json")


def _damage(values: dict[str, Any], how: str) -> Any:
    length = values["quantities"]["log10_length"]
    match how:
        case "list":
            return [values]
        case "no quantities":
            values["quantities"] = {}
        case "a quantity of another version":
            values["quantities"]["surprise"] = length
        case "descending edges":
            length["edges"] = length["edges"][::-1]
        case "a share too many":
            length["shares"].append(0.0)
        case "shares of nothing":
            length["shares"] = [0.0 for _ in length["shares"]]
        case "negative share":
            length["shares"][0] -= 1
            length["shares"][1] += 1
        case "text":
            length["mean"] = "much"
        case "not a number":
            length["edges"][0] = float("nan")
        case "infinite count":
            length["n"] = float("inf")
        case "no coverage":
            del values["coverage"]
        case "percent":
            values["error_share"] = 3
    return values


@pytest.mark.parametrize(
    "how",
    [
        *("list", "no quantities", "a quantity of another version", "descending edges", "a share too many"),
        *("shares of nothing", "negative share", "text", "not a number", "infinite count", "no coverage", "percent"),
    ],
)
def test_a_damaged_reference_is_refused(reference: Reference, how: str) -> None:
    values = json.loads(json.dumps(reference.to_dict()))
    assert Reference.from_dict(values) == reference
    with pytest.raises(ArtifactError, match=r"^the reference is damaged"):
        Reference.from_dict(_damage(values, how))


# Of predictors


@pytest.fixture
def own(tmp_path: Path, builtin: Predictor) -> Path:
    """A folder with the built-in predictor, whose manifest may be changed."""
    return Path(shutil.copytree(builtin.folder, tmp_path / "own"))


def _change(folder: Path, **keys: Any) -> Predictor:
    manifest = json.loads((folder / MANIFEST).read_text())
    kept = {key: value for key, value in {**manifest, **keys}.items() if value is not None}
    (folder / MANIFEST).write_text(json.dumps(kept))
    return Predictor(folder, threads=1)


@pytest.mark.parametrize("name", Predictor.builtin_names())
def test_predictors_that_ship_carry_the_reference_of_their_calibration_proteins(name: str) -> None:
    predictor = Predictor.builtin(name)
    reference = predictor.reference
    assert set(reference.quantities) == {*INPUTS, *PREDICTIONS}
    assert {one.n for one in reference.quantities.values()} == {predictor.manifest["training"]["calibration_proteins"]}
    assert 0 < reference.out_of_domain_share < 0.06  # each of three checks flags 2 % of them
    assert reference.quantities["tm_celsius"].low > 20


def test_a_predictor_without_a_reference_predicts_and_says_so_when_asked_for_drift(own: Path) -> None:
    predictor = _change(own, reference=None)
    assert predictor.predict(["MKVLAARRWQMKVLAARRWQ"])[0].status != "error"
    with pytest.raises(ArtifactError, match=r"^builtin has no reference statistics: train it again$"):
        _ = predictor.reference


def test_a_recalibrated_predictor_keeps_the_reference_of_its_inputs_alone(own: Path, builtin: Predictor) -> None:
    training = {**builtin.manifest["training"], "recalibration": {"proteins": 100}}
    assert set(_change(own, training=training).reference.quantities) == set(INPUTS)


def test_a_damaged_one_in_a_manifest_names_the_predictor(own: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^the reference of builtin is damaged"):
        _ = _change(own, reference={"proteins": 3}).reference


@pytest.mark.parametrize("head", ["ridge", "stacked"])
def test_training_keeps_what_the_predictor_says_of_proteins_set_apart(
    head: str, made_up_proteins: pd.DataFrame, tmp_path: Path, quick_settings: dict[str, Any]
) -> None:
    config = TrainConfig.parse(quick_settings, "quick")
    if head == "ridge":
        common = ("data.path=t.csv", "encoder=composition", "encoder.blocks=[amino_acids]", "head=ridge")
        config = compose([*common, "head.inner_folds=3", "split.calibration_share=0.3"])
    table = made_up_proteins.assign(
        residues=made_up_proteins["sequence"], growth_temperature=made_up_proteins["growth_temperature_celsius"]
    ).assign(weight=1.0)
    encoded = encode(table, config, lambda _: None)
    predictor = fit_predictor(
        table, encoded, config, tmp_path, checkpoints=tmp_path / "checkpoints", log=lambda _: lambda *_: None
    )
    apart = table[set_apart(table, config) == "calibration"]
    known = apart[apart["growth_temperature"].notna()]
    records = [Record("", *row) for row in zip(known["residues"], known["growth_temperature"], strict=True)]
    growth = known["growth_temperature"].tolist()
    rows = [
        logged_rows(apart["residues"].tolist(), predictor.predict(apart["residues"])),
        logged_rows(known["residues"].tolist(), predictor.predict(records), growth_temperature=growth),
    ]
    kept, again = predictor.reference, Reference.of(pd.concat(rows, ignore_index=True), minimum=1)
    assert kept.proteins == again.proteins == predictor.manifest["training"]["calibration_proteins"]
    assert kept.out_of_domain_share == again.out_of_domain_share
    assert set(kept.quantities) == set(again.quantities) == {*INPUTS, *PREDICTIONS}
    for name, one in kept.quantities.items():
        assert one.edges == pytest.approx(again.quantities[name].edges, abs=0.02), name
        assert one.mean == pytest.approx(again.quantities[name].mean, abs=0.01), name

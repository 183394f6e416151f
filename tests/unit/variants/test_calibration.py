"""A model corrected by measured variants: what its folder holds, what it proposes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from enzyme_stability.errors import ArtifactError, ConfigError, DataError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant
from enzyme_stability.variants.alignment import read_alignment
from enzyme_stability.variants.calibration import VariantCalibration, calibrate_on_variants, next_candidates
from enzyme_stability.variants.measurements import Measurements
from enzyme_stability.variants.model import DeltaTmModel

WILD_TYPE = "FMIPPCATGFYLTLPEPVMRQCSNHAVLRVRWITKWVC"
OFFSET = 26


def measured(count: int, offset: int = OFFSET) -> Measurements:
    """Substitutions to alanine or glycine, each 3 degC above the last."""
    texts = [f"{own}{k + offset}{'G' if own == 'A' else 'A'}" for k, own in enumerate(WILD_TYPE, 1)][:count]
    return Measurements(
        wild_type=WILD_TYPE,
        variants=tuple(Variant.parse(text, offset=offset) for text in texts),
        delta_tm=3.0 * np.arange(count) - 20,
        repeats=np.ones(count),
        standard_error=np.full(count, np.nan),
        noise=None,
        left_out=(),
        notes=(),
    )


@pytest.fixture(scope="module")
def plain() -> DeltaTmModel:
    return DeltaTmModel.builtin(1)


@pytest.fixture(scope="module")
def made(plain: DeltaTmModel, tmp_path_factory: pytest.TempPathFactory) -> VariantCalibration:
    return calibrate_on_variants(plain, measured(12), tmp_path_factory.mktemp("made") / "mine", name="mine")


def test_the_new_model_carries_the_measurements_and_the_old_one_does_not(
    plain: DeltaTmModel, made: VariantCalibration
) -> None:
    assert plain.correction is None
    assert made.model.correction is not None
    assert made.model.is_corrected_for(WILD_TYPE)
    assert not made.model.is_corrected_for(WILD_TYPE[1:])
    assert made.model.correction.variants == measured(12).variants
    assert made.judgement.measurements == 12
    assert "Corrected by 12 variants of one protein of 38 residues." in made.model.manifest["description"]
    assert made.model.digest != plain.digest


def test_the_folder_read_anew_says_the_same(made: VariantCalibration) -> None:
    again = DeltaTmModel(made.model.folder, 1).scan(WILD_TYPE)
    np.testing.assert_array_equal(again.estimate.delta_tm, made.model.scan(WILD_TYPE).estimate.delta_tm)


def test_the_numbering_of_measurements_does_not_matter(
    plain: DeltaTmModel, made: VariantCalibration, tmp_path: Path
) -> None:
    other = calibrate_on_variants(plain, measured(12, offset=-5), tmp_path / "other", name="mine")
    np.testing.assert_allclose(
        other.model.scan(WILD_TYPE).estimate.delta_tm, made.model.scan(WILD_TYPE).estimate.delta_tm
    )


def test_uncorrected_values_are_those_of_the_plain_model(plain: DeltaTmModel, made: VariantCalibration) -> None:
    before = plain.scan(WILD_TYPE)
    after = made.model.scan(WILD_TYPE)
    assert before.uncorrected is None
    assert after.uncorrected is not None
    np.testing.assert_array_equal(after.uncorrected, before.estimate.delta_tm)
    assert np.nanmax(np.abs(after.estimate.delta_tm - before.estimate.delta_tm)) > 1
    np.testing.assert_array_equal(
        made.model.scan(WILD_TYPE, corrected=False).estimate.delta_tm, before.estimate.delta_tm
    )


def test_the_profile_of_the_relatives_is_kept_and_replaced(plain: DeltaTmModel, tmp_path: Path) -> None:
    path = tmp_path / "rows.a3m"
    path.write_text(f">w\n{WILD_TYPE}\n>r\nG{WILD_TYPE[1:]}\n>s\n{WILD_TYPE[:-1]}Y\n")
    alignment = read_alignment(path, WILD_TYPE)
    first = calibrate_on_variants(plain, measured(8), tmp_path / "first", name="first", alignment=alignment).model
    kept, known = first.family(WILD_TYPE), plain.family(WILD_TYPE, alignment)
    assert kept.kind == known.kind
    np.testing.assert_allclose(kept.probabilities, known.probabilities, atol=1e-5)
    np.testing.assert_allclose(kept.effective_sequences, known.effective_sequences, atol=1e-3)
    assert first.family(WILD_TYPE[::-1]).kind == plain.family(WILD_TYPE[::-1]).kind
    second = calibrate_on_variants(first, measured(8), tmp_path / "second", name="second").model
    anew, before = (one.scan(WILD_TYPE).estimate.delta_tm for one in (second, first))
    np.testing.assert_allclose(anew, before, atol=0.005)  # the profile is kept to six digits


def test_an_existing_folder_is_left_alone(plain: DeltaTmModel, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="exists already: name a new folder"):
        calibrate_on_variants(plain, measured(8), tmp_path, name="mine")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_no_folder(plain: DeltaTmModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="cannot write the model"):
        calibrate_on_variants(plain, measured(8), tmp_path / "file" / "mine", name="mine")
    with pytest.raises(DataError, match="3 measured variants"):
        calibrate_on_variants(plain, measured(3), tmp_path / "few", name="few")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_damaged_correction_is_an_error_that_says_so(made: VariantCalibration, tmp_path: Path) -> None:
    manifest = json.loads((made.model.folder / "delta_tm.json").read_text())
    for damage in (None, [], {}, {**manifest["correction"], "measured": [1.0]}):
        folder = tmp_path / "damaged"
        folder.mkdir(exist_ok=True)
        (folder / "delta_tm.json").write_text(json.dumps({**manifest, "correction": damage}))
        if damage is None:
            assert DeltaTmModel(folder, 1).correction is None
        else:
            with pytest.raises(ArtifactError, match="damaged"):
                DeltaTmModel(folder, 1)


# What to measure next


@pytest.mark.parametrize("method", ["greedy", "expected-improvement", "thompson"])
@pytest.mark.parametrize("offset", [0, OFFSET])
def test_what_was_measured_is_not_proposed_in_any_numbering(made: VariantCalibration, method: str, offset: int) -> None:
    scan = made.model.scan(WILD_TYPE, offset=offset)
    proposed = next_candidates(made.model, scan, method=method, size=10_000, per_position=19)
    assert len(proposed) == 19 * len(WILD_TYPE) - 12
    assert not {(one.place, one.substitution) for one in proposed} & {
        (variant.places[0], variant.substitutions[0].substitution) for variant in measured(12).variants
    }
    assert {one.position - one.place for one in proposed} == {offset + 1}


def test_limits_hold_and_greedy_takes_the_highest(made: VariantCalibration) -> None:
    scan = made.model.scan(WILD_TYPE)
    limits = {"size": 6, "keep": {10, 11}, "exclude": "CP", "per_position": 1}
    proposed = next_candidates(made.model, scan, method="greedy", **limits)  # type: ignore[arg-type]
    assert len({one.place for one in proposed}) == len(proposed) == 6
    assert not {one.place for one in proposed} & {10, 11}
    delta = [one.delta_tm for one in proposed]
    assert delta == pytest.approx(sorted(delta, reverse=True))
    free = scan.estimate.delta_tm.copy()
    free[[10, 11]] = np.nan
    free[:, [AMINO_ACIDS.index(residue) for residue in "CP"]] = np.nan
    for variant in measured(12).variants:
        free[variant.places[0], AMINO_ACIDS.index(variant.substitutions[0].substitution)] = np.nan
    assert delta[0] == np.nanmax(free)


def test_the_plain_model_has_nothing_to_explore_from(plain: DeltaTmModel, made: VariantCalibration) -> None:
    with pytest.raises(ConfigError, match="calibrate"):
        next_candidates(plain, plain.scan(WILD_TYPE))
    with pytest.raises(ConfigError, match="knows no measured variants of this protein"):
        next_candidates(made.model, made.model.scan(WILD_TYPE[::-1]))


def test_settings_out_of_bounds_are_refused(made: VariantCalibration) -> None:
    scan = made.model.scan(WILD_TYPE)
    with pytest.raises(ConfigError, match="'luck'; give one of greedy"):
        next_candidates(made.model, scan, method="luck")
    with pytest.raises(ConfigError, match="exclude"):
        next_candidates(made.model, scan, exclude="1")
    with pytest.raises(DataError, match="none of the"):
        next_candidates(made.model, scan, keep=range(len(WILD_TYPE)))

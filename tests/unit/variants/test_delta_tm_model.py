"""The model says of a substitution the same whoever asks and however, and refuses what it can not answer."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from made_up_families import Families, Nature, assert_same, cells, singles

from enzyme_stability.errors import ArtifactError, ConfigError, SequenceError, VariantError
from enzyme_stability.heads.onnx_head import OnnxHead
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant
from enzyme_stability.variants.alignment import Alignment, search_relatives
from enzyme_stability.variants.features import both_ways, indices
from enzyme_stability.variants.gaussian_process import fit_residuals
from enzyme_stability.variants.model import (
    LANGUAGE_MODEL_SCORE,
    MANIFEST,
    PLAIN,
    PROFILE_SCORE,
    WITH_RELATIVES,
    DeltaTmModel,
    normal_share,
)
from enzyme_stability.variants.scan import Estimate

NATURE = Nature(12)
CHAIN = NATURE.protein(110)
WITH_UNKNOWN = f"X{CHAIN[1:40]}XX{CHAIN[42:]}"


def some(chain: str, count: int) -> list[Variant]:
    everything = singles(chain)
    return [everything[k] for k in NATURE.random.permutation(len(everything))[:count]]


@pytest.fixture(scope="module")
def alignment(families: Families) -> Alignment:
    return search_relatives(families.wild_types[0], families.database, threads=1)


@pytest.fixture
def copy(delta_tm_model: DeltaTmModel, tmp_path: Path) -> Path:
    return Path(shutil.copytree(delta_tm_model.folder, tmp_path / "copy"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_scan_is_nan_at_own_and_unknown_residues_and_nowhere_else(delta_tm_model: DeltaTmModel) -> None:
    scan = delta_tm_model.scan(WITH_UNKNOWN, name="made up", offset=7)
    assert (scan.id, scan.wild_type, scan.offset) == ("made up", WITH_UNKNOWN, 7)
    assert scan.notes == ("3 X left out",)
    assert scan.scores == {}
    empty = np.array([[own in {other, "X"} for other in AMINO_ACIDS] for own in WITH_UNKNOWN])
    for table in scan.estimate:
        np.testing.assert_array_equal(np.isnan(table), empty)


@pytest.mark.parametrize("aligned", [False, True])
def test_a_scan_says_of_every_substitution_what_a_list_does_to_the_last_bit(
    aligned: bool, delta_tm_model: DeltaTmModel, families: Families, alignment: Alignment
) -> None:
    chain = families.wild_types[0] if aligned else WITH_UNKNOWN
    relatives = alignment if aligned else None
    scan = delta_tm_model.scan(chain, alignment=relatives, coverage=0.8).estimate
    everything, chosen = singles(chain), some(chain, 300)
    for variants in (everything, chosen, *([one] for one in chosen[:5])):
        found = delta_tm_model.predict(chain, variants, alignment=relatives, coverage=0.8)
        assert_same(found, Estimate(*(cells(table, variants) for table in scan)))


def test_threads_make_no_difference(delta_tm_model: DeltaTmModel) -> None:
    threaded = DeltaTmModel(delta_tm_model.folder, threads=2)
    assert_same(threaded.scan(CHAIN).estimate, delta_tm_model.scan(CHAIN).estimate)


def test_substitutions_add_up_and_their_errors_as_if_independent(delta_tm_model: DeltaTmModel) -> None:
    first, second, third = (Variant.parse(f"{CHAIN[k]}{k + 1}{'W' if CHAIN[k] != 'W' else 'G'}") for k in (3, 50, 90))
    alone = delta_tm_model.predict(CHAIN, [first, second, third])
    triple = Variant.parse(f"{third}:{first}:{second}")
    together = delta_tm_model.predict(CHAIN, [second, triple])
    assert together.delta_tm[1] == pytest.approx(alone.delta_tm.sum(), abs=1e-12)
    below, above = alone.delta_tm - alone.lower, alone.upper - alone.delta_tm
    assert together.lower[1] == pytest.approx(alone.delta_tm.sum() - np.sqrt((below**2).sum()))
    assert together.upper[1] == pytest.approx(alone.delta_tm.sum() + np.sqrt((above**2).sum()))
    assert_same(Estimate(*(values[:1] for values in together)), Estimate(*(values[1:2] for values in alone)))
    total = together.delta_tm[1]
    reach = together.upper[1] - total if total < 0 else total - together.lower[1]
    assert together.probability[1] == pytest.approx(NormalDist(0, reach / NormalDist().inv_cdf(0.95)).cdf(total))


def test_the_wild_type_does_not_change_and_is_neither_more_nor_less_stable(delta_tm_model: DeltaTmModel) -> None:
    own = Variant.parse(f"{CHAIN[4]}5=")
    both = Variant.parse(f"{CHAIN[4]}5=:{some(CHAIN[:1], 1)[0]}")
    found = delta_tm_model.predict(CHAIN, [Variant(()), own, both])
    for values in found[:3]:
        assert values[:2].tolist() == [0, 0]
    assert np.isnan(found.probability).tolist() == [True, True, False]
    single = Variant((both.substitutions[0],))
    assert_same(Estimate(*(values[2:] for values in found)), delta_tm_model.predict(CHAIN, [single]))


def test_no_variants_give_no_answers(delta_tm_model: DeltaTmModel) -> None:
    assert [values.shape for values in delta_tm_model.predict(CHAIN, [])] == [(0,)] * 4


def test_intervals_hold_the_estimate_and_widen_with_coverage(delta_tm_model: DeltaTmModel) -> None:
    variants = singles(CHAIN)
    found = [delta_tm_model.predict(CHAIN, variants, coverage=coverage) for coverage in (0.1, 0.5, 0.8, 0.9, 0.98)]
    for estimate in found:
        assert (estimate.lower <= estimate.delta_tm).all()
        assert (estimate.delta_tm <= estimate.upper).all()
    for narrow, wide in itertools.pairwise(found):
        assert (wide.lower < narrow.lower).all()
        assert (wide.upper > narrow.upper).all()
        np.testing.assert_array_equal(wide.delta_tm, narrow.delta_tm)
        np.testing.assert_array_equal(wide.probability, narrow.probability)


@pytest.mark.parametrize("coverage", [0, 1, -0.5, 1.5, float("nan"), 0.999])
def test_coverage_out_of_bounds_is_refused(coverage: float, delta_tm_model: DeltaTmModel) -> None:
    with pytest.raises(ConfigError, match="coverage"):
        delta_tm_model.scan(CHAIN, coverage=coverage)
    with pytest.raises(ConfigError, match="coverage"):
        delta_tm_model.predict(CHAIN, singles(CHAIN)[:1], coverage=coverage)


def test_the_probability_rises_with_the_change(delta_tm_model: DeltaTmModel) -> None:
    found = delta_tm_model.predict(CHAIN, singles(CHAIN))
    order = np.argsort(found.delta_tm, kind="stable")
    delta, probability = found.delta_tm[order], found.probability[order]
    rises = np.diff(delta) > 1e-6
    assert (np.diff(probability)[rises] > 0).all()
    assert 0 < probability[0] < 0.1
    assert 0.9 < probability[-1] < 1


def test_the_way_back_has_the_same_change_with_the_other_sign(delta_tm_model: DeltaTmModel) -> None:
    family = delta_tm_model.family(CHAIN)
    places = np.arange(len(CHAIN))
    before = indices(CHAIN)
    after = (before + 1 + NATURE.random.integers(0, 19, len(CHAIN))) % 20
    head = OnnxHead(delta_tm_model.folder / "head_plain.onnx", threads=1)
    there = head.predict(both_ways(*family[:2], places, before, after)).tm
    back = head.predict(both_ways(*family[:2], places, after, before)).tm
    np.testing.assert_array_equal(back, -there)
    assert np.abs(there).max() > 1


def test_relatives_change_the_answer_and_give_a_score(
    delta_tm_model: DeltaTmModel, families: Families, alignment: Alignment
) -> None:
    chain = families.wild_types[0]
    plain, aligned = delta_tm_model.scan(chain), delta_tm_model.scan(chain, alignment=alignment)
    assert PROFILE_SCORE not in plain.scores
    score = aligned.scores[PROFILE_SCORE]
    np.testing.assert_array_equal(np.isnan(score), np.isnan(aligned.estimate.delta_tm))
    assert not np.allclose(np.nan_to_num(plain.estimate.delta_tm), np.nan_to_num(aligned.estimate.delta_tm))
    known, unknown = delta_tm_model.family(chain, alignment), delta_tm_model.family(chain)
    assert (known.kind, unknown.kind) == (WITH_RELATIVES, PLAIN)
    assert known.effective_sequences.min() >= 1
    assert unknown.effective_sequences.tolist() == [0] * len(chain)


def test_an_alignment_of_the_protein_alone_is_none(
    delta_tm_model: DeltaTmModel, families: Families, alignment: Alignment
) -> None:
    chain = families.wild_types[0]
    lonely = delta_tm_model.scan(chain, alignment=Alignment(alignment.rows[:1]))
    assert_same(lonely.estimate, delta_tm_model.scan(chain).estimate)
    assert lonely.scores == {}


def test_scores_of_a_language_model_that_are_no_input_stand_beside(delta_tm_model: DeltaTmModel) -> None:
    scores = NATURE.random.normal(size=(len(CHAIN), 20))
    scan = delta_tm_model.scan(CHAIN, language_scores=scores)
    assert scan.scores[LANGUAGE_MODEL_SCORE] is scores
    assert_same(scan.estimate, delta_tm_model.scan(CHAIN).estimate)
    assert delta_tm_model.language_model is None


def test_lower_case_blanks_and_gaps_make_no_difference(delta_tm_model: DeltaTmModel) -> None:
    plain = delta_tm_model.scan(CHAIN)
    for text in (CHAIN.lower(), f"{CHAIN[:20]} \n{CHAIN[20:]}*", f"--{CHAIN[:60]}-.-{CHAIN[60:]}"):
        scan = delta_tm_model.scan(text)
        assert scan.wild_type == CHAIN
        assert_same(scan.estimate, plain.estimate)
        variants = singles(CHAIN)[:30]
        assert_same(delta_tm_model.predict(text, variants), delta_tm_model.predict(CHAIN, variants))
    assert delta_tm_model.scan(f"-{CHAIN}").notes == ("1 gap removed",)


def test_numbering_makes_no_difference(delta_tm_model: DeltaTmModel) -> None:
    plain = delta_tm_model.predict(CHAIN, singles(CHAIN))
    assert_same(delta_tm_model.predict(CHAIN, singles(CHAIN, offset=-30)), plain)
    pairs = zip(singles(CHAIN), singles(CHAIN, offset=500), strict=True)
    mixed = [pair[number % 2] for number, pair in enumerate(pairs)]
    assert_same(delta_tm_model.predict(CHAIN, mixed), plain)


def test_variants_that_do_not_fit_and_sequences_that_are_none_are_refused(delta_tm_model: DeltaTmModel) -> None:
    good = singles(CHAIN)[0]
    with pytest.raises(VariantError, match="there is no position 111"):
        delta_tm_model.predict(CHAIN, [good, Variant.parse("A111V")])
    with pytest.raises(VariantError, match="the wild type has X at position 41, not A"):
        delta_tm_model.predict(WITH_UNKNOWN, [Variant.parse("A41V")])
    for text in ("", "MKV", "MKVLAARRWQ?", "X" * 30):
        with pytest.raises(SequenceError):
            delta_tm_model.scan(text)
        with pytest.raises(SequenceError):
            delta_tm_model.predict(text, [good])


def test_a_protein_of_2500_residues_takes_seconds(delta_tm_model: DeltaTmModel) -> None:
    chain = NATURE.protein(2500)
    started = time.perf_counter()
    scan = delta_tm_model.scan(chain)
    assert time.perf_counter() - started < 5
    assert np.isfinite(scan.estimate.delta_tm).sum() == 19 * 2500


def corrected(folder: Path, model: DeltaTmModel) -> DeltaTmModel:
    """A model that has seen measurements which are three degrees above what it says."""
    variants = some(CHAIN, 30)
    estimate = model.predict(CHAIN, variants).delta_tm
    measured = estimate + 3 + NATURE.random.normal(0, 0.3, len(variants))
    learned = fit_residuals(variants, measured, estimate, None, CHAIN)
    rewrite(folder, lambda manifest: manifest.update(correction=learned.to_dict()))
    return DeltaTmModel(folder, threads=1)


def test_a_correction_is_for_its_own_wild_type_alone(delta_tm_model: DeltaTmModel, copy: Path) -> None:
    model = corrected(copy, delta_tm_model)
    assert model.is_corrected_for(CHAIN)
    variants = some(CHAIN, 50)
    gain = model.predict(CHAIN, variants).delta_tm - delta_tm_model.predict(CHAIN, variants).delta_tm
    assert gain.mean() == pytest.approx(3, abs=1)
    other = f"{CHAIN[:-1]}{'A' if CHAIN[-1] != 'A' else 'G'}"
    assert not model.is_corrected_for(other)
    assert_same(model.scan(other).estimate, delta_tm_model.scan(other).estimate)
    theirs = singles(other)[:60]
    assert_same(model.predict(other, theirs), delta_tm_model.predict(other, theirs))


def test_a_correction_can_be_left_out(delta_tm_model: DeltaTmModel, copy: Path) -> None:
    model = corrected(copy, delta_tm_model)
    plain = delta_tm_model.scan(CHAIN).estimate
    scan = model.scan(CHAIN)
    assert scan.uncorrected is not None
    np.testing.assert_array_equal(scan.uncorrected, plain.delta_tm)
    assert_same(model.scan(CHAIN, corrected=False).estimate, plain)
    variants = some(CHAIN, 20)
    assert_same(model.predict(CHAIN, variants, corrected=False), delta_tm_model.predict(CHAIN, variants))


def test_a_corrected_scan_is_the_corrected_list_in_any_numbering(delta_tm_model: DeltaTmModel, copy: Path) -> None:
    model = corrected(copy, delta_tm_model)
    scan = model.scan(CHAIN, coverage=0.8).estimate
    for offset in (0, 100):
        variants = singles(CHAIN, offset)
        found = model.predict(CHAIN, variants, coverage=0.8)
        for values, table in zip(found, scan, strict=True):
            np.testing.assert_allclose(values, cells(table, variants), atol=1e-9)
    assert (scan.lower[~np.isnan(scan.lower)] < scan.upper[~np.isnan(scan.upper)]).all()
    with pytest.raises(ConfigError, match="coverage"):
        model.scan(CHAIN, coverage=1)


@pytest.mark.parametrize(
    ("mean", "deviation", "share"),
    [(0, 1, 0.5), (1, 1, 0.841345), (-2, 2, 0.158655), (9, 0, 1), (-9, 0, 0), (0, 0, 0.5)],
)
def test_the_share_of_a_normal_distribution_above_nought(mean: float, deviation: float, share: float) -> None:
    assert normal_share(np.array([mean]), np.array([deviation])).tolist() == [pytest.approx(share, abs=1e-6)]


def test_the_name_and_the_digest_tell_models_apart(
    delta_tm_model: DeltaTmModel, plain_delta_tm_model: DeltaTmModel
) -> None:
    assert delta_tm_model.name == "delta_tm"
    assert delta_tm_model.digest == DeltaTmModel.load(delta_tm_model.folder).digest
    assert delta_tm_model.digest != plain_delta_tm_model.digest


def test_all_files_of_a_model_are_listed(delta_tm_model: DeltaTmModel, copy: Path) -> None:
    names = {MANIFEST, "expected_profile.onnx", "head_plain.onnx", "head_with_relatives.onnx"}
    assert {path.name for path in delta_tm_model.files()} == names
    (copy / "CARD.md").write_text("a card")
    assert {path.name for path in DeltaTmModel(copy).files()} == {*names, "CARD.md"}


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no folder"):
        DeltaTmModel(tmp_path / "missing")
    with pytest.raises(ArtifactError, match=f"{MANIFEST} is missing"):
        DeltaTmModel(tmp_path)
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(ArtifactError, match="cannot be read"):
        DeltaTmModel(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"format": 1}', "\udc80"])
def test_a_manifest_that_is_none_is_refused(text: str, copy: Path) -> None:
    (copy / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError, match=MANIFEST):
        DeltaTmModel(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"intervals": []},
        {"intervals": {PLAIN: {"below": [1.0]}}},
        {"probability": {PLAIN: {"intercept": "low", "slope": 1}}},
        {"probability": None},
        {"pseudocount": "much"},
        {"correction": {}},
        {"correction": {"wild_type": CHAIN}},
        {"family": {}},
        {"family": "large"},
        {"family": {"kind": PLAIN, "probabilities": [[0.05] * 20], "effective_sequences": []}},
        {"family": {"kind": PLAIN, "probabilities": [[0.05] * 19], "effective_sequences": [1.0]}},
    ],
)
def test_a_damaged_manifest_is_refused(change: dict[str, Any], copy: Path) -> None:
    rewrite(copy, lambda manifest: manifest.update(change))
    with pytest.raises(ArtifactError):
        DeltaTmModel(copy)


@pytest.mark.parametrize("part", ["format", "name", "expected_profile", "heads", "intervals", "pseudocount"])
def test_a_manifest_without_a_part_is_refused(part: str, copy: Path) -> None:
    rewrite(copy, lambda manifest: manifest.pop(part))
    with pytest.raises(ArtifactError, match=f"is damaged: {part}: Field required"):
        DeltaTmModel(copy)


@pytest.mark.parametrize("file", ["expected_profile.onnx", "head_plain.onnx"])
def test_missing_and_altered_networks_are_refused(file: str, copy: Path) -> None:
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=rf"{file} is damaged: its checksum"):
        DeltaTmModel(copy).scan(CHAIN)
    with pytest.raises(ArtifactError, match=rf"{file} is damaged: its checksum"):
        DeltaTmModel(copy).files()
    (copy / file).unlink()
    with pytest.raises(ArtifactError, match=rf"{file} is missing"):
        DeltaTmModel(copy).scan(CHAIN)


def test_a_network_in_the_place_of_another_is_refused(copy: Path) -> None:
    def swap(manifest: dict[str, Any]) -> None:
        manifest["expected_profile"], manifest["heads"][PLAIN] = manifest["heads"][PLAIN], manifest["expected_profile"]

    rewrite(copy, swap)
    with pytest.raises(ArtifactError, match=r"head_plain\.onnx does not foretell profiles"):
        DeltaTmModel(copy).scan(CHAIN)


def test_a_manifest_can_not_name_a_file_outside_its_folder(copy: Path, delta_tm_model: DeltaTmModel) -> None:
    outside = copy.parent / "head_plain.onnx"
    shutil.copyfile(delta_tm_model.folder / "head_plain.onnx", outside)
    for name in ("../head_plain.onnx", str(outside)):
        manifest = json.loads((copy / MANIFEST).read_text())
        manifest["heads"][PLAIN]["file"] = name
        (copy / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(ArtifactError, match=r"is damaged: heads\.plain\.file"):
            DeltaTmModel(copy).scan(CHAIN)

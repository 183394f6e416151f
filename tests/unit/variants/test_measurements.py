"""A table of measured variants is read as people write it, every row left out is named, and a gain must beat chance."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enzyme_stability.errors import DataError
from enzyme_stability.variants.measurements import MINIMUM_MEASUREMENTS, NOISE, judge, read_measurements

WILD_TYPE = "ACDEFGHIKLMNPQRSTVWY"
FIVE = "A1V,1.5\nC2A,-2\nD3E,0.25\nE4K,-7\nF5L,3\n"


def written(folder: Path, content: str | bytes, name: str = "measured.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder: Path, content: str | bytes, **settings: float) -> list[tuple[str, float]]:
    found = read_measurements(written(folder, content), WILD_TYPE, **settings)  # type: ignore[arg-type]
    return [(str(variant), value) for variant, value in zip(found.variants, found.delta_tm.tolist(), strict=True)]


EXPECTED = [("A1V", 1.5), ("C2A", -2.0), ("D3E", 0.25), ("E4K", -7.0), ("F5L", 3.0)]
PLAIN = "variant,delta_tm_celsius\n" + FIVE


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        "\ufeff" + PLAIN,
        PLAIN.replace(",", "\t"),
        PLAIN.replace(".", "#").replace(",", ";").replace("#", ","),
        "sep=;\r\n" + PLAIN.replace(",", ";"),
        PLAIN.replace("-", "\N{MINUS SIGN}"),
        PLAIN.replace("variant,delta_tm_celsius", "Mutation,ΔTm (°C)"),
        PLAIN.replace("variant,delta_tm_celsius", "mutant,dTm"),
        PLAIN.replace("A1V,", '"p.Ala1Val",'),
        "\n" + PLAIN.replace("C2A", "\nc2a"),
        PLAIN.encode("utf-16"),
        gzip.compress(PLAIN.encode(), mtime=0),
    ],
)
def test_the_same_values_are_read_from_every_dialect(tmp_path: Path, content: str | bytes) -> None:
    assert read(tmp_path, content) == EXPECTED


def test_tm_becomes_a_difference_to_the_rows_of_the_wild_type(tmp_path: Path) -> None:
    table = "variant,Tm (°C)\nWT,59\nA1V,61.5\nC2A,58\nD3E,60.25\nE4K,53\nF5L,63\nWT,61\n"
    assert read(tmp_path, table) == EXPECTED
    assert [value for _, value in read(tmp_path, table, wild_type_tm=50.0)] == [11.5, 8, 10.25, 3, 13]
    with pytest.raises(DataError, match="row named WT"):
        read(tmp_path, table.replace("WT,59\n", "").replace("WT,61\n", ""))


def test_repeats_are_averaged_and_tell_the_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{name},{value + rng.normal(0, 0.5):.6f}" for name, value in EXPECTED for _ in range(40)]
    found = read_measurements(written(tmp_path, "variant,dtm\n" + "\n".join(rows)), WILD_TYPE)
    assert found.repeats.tolist() == [40.0] * 5
    np.testing.assert_allclose(found.delta_tm, [value for _, value in EXPECTED], atol=0.3)
    assert found.noise == pytest.approx(0.5, abs=0.1)
    few = read_measurements(written(tmp_path, PLAIN + "A1V,1.5\n"), WILD_TYPE)
    assert few.noise is not None
    assert 0.5 < few.noise / NOISE < 1, "two equal values do not make a measurement without noise"
    assert read_measurements(written(tmp_path, PLAIN), WILD_TYPE).noise is None


def test_repeats_with_unchanged_residues_and_in_another_order_are_the_same_variant(tmp_path: Path) -> None:
    table = PLAIN + "G6A:H7N,1\nH7N:G6A,3\nG6A/H7N/I8I,5\n"
    assert ("G6A:H7N", 3.0) in read(tmp_path, table)


def test_standard_errors_are_kept_and_combined(tmp_path: Path) -> None:
    table = "variant,dtm,sd\nA1V,1,0.5\nA1V,2,0.5\nC2A,1,\nD3E,1,0\nE4K,1,2\nF5L,1,0.1\nG6A,1,-1\n"
    found = read_measurements(written(tmp_path, table), WILD_TYPE)
    np.testing.assert_allclose(found.standard_error, [0.5 / 2**0.5, np.nan, np.nan, 2, 0.1])
    assert found.left_out == ("line 8 (G6A): the standard error -1 is below 0",)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("A1_,2", "no variant"),
        (",2", "empty"),
        ("G1V,2", "has A at position 1, not G"),
        ("A1GV,2", "an insertion"),
        ("A99V,2", "no position 99"),
        ("G6A,n.d.", "'n.d.' is not a finite number"),
        ("G6A,inf", "not a finite number"),
        ("G6A,1e999", "not a finite number"),
        ("G6A,1_0", "not a finite number"),
        ("G6A,", "no value"),
        ("G6A,-150", "beyond ±100"),
        ("G6A,H7N,2", "3 fields, but the header has 2"),
        ("G6A", "1 fields, but the header has 2"),
    ],
)
def test_a_bad_row_is_left_out_with_its_line_and_reason(tmp_path: Path, row: str, reason: str) -> None:
    found = read_measurements(written(tmp_path, PLAIN.replace("C2A", f"{row}\nC2A")), WILD_TYPE)
    assert len(found.variants) == 5
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith("line 3 (")
    assert reason in found.left_out[0]


def test_too_few_good_rows_are_an_error_that_says_why_the_others_are_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has 4 measured variants.*at least 5.*line 6 \(F5L\): 'x' is not"):
        read(tmp_path, PLAIN.replace("F5L,3", "F5L,x"))


def test_rows_of_the_wild_type_are_no_variants(tmp_path: Path) -> None:
    found = read_measurements(written(tmp_path, PLAIN + "WT,0.5\nWT,-0.5\n"), WILD_TYPE)
    assert len(found.variants) == 5
    assert found.noise is not None
    assert "0 by definition" in found.notes[0]


def test_another_numbering_is_recognised(tmp_path: Path) -> None:
    shifted = "variant,dtm\nA27V,1\nC28A,1\nD29E,1\nE30K,1\nF31L,1\n"
    with pytest.raises(DataError, match="with an offset of 26, 5 of 5 variants fit, instead of 0"):
        read(tmp_path, shifted)
    found = read_measurements(written(tmp_path, shifted), WILD_TYPE, offset=26)
    assert [variant.places[0] for variant in found.variants] == [0, 1, 2, 3, 4]
    assert found.notes == ()
    few = read_measurements(written(tmp_path, shifted + "X1A,1\nA1V,2\n"), WILD_TYPE, offset=26)
    assert few.notes == (), "most fit as they are"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (
            b"mutation,ddg\nA1V,2\n",
            "'delta_tm_celsius' or 'tm_celsius' are needed; those of the table are mutation, ddg",
        ),
        (b"PK\x03\x04\x00\x00", "save a spreadsheet as CSV"),
        (gzip.compress(PLAIN.encode(), mtime=0)[:-12], "gzip data is damaged"),
        (PLAIN.encode() + b'"G6A,2\n', "cannot be read"),
    ],
)
def test_what_is_no_table_is_an_error_in_words(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_a_missing_file_and_a_folder_are_errors_in_words(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_measurements(path, WILD_TYPE)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=80), st.binary(max_size=80)), st.booleans())
def test_any_content_gives_measurements_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes, with_header: bool
) -> None:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    path = written(tmp_path_factory.mktemp("any"), PLAIN.encode() * with_header + data)
    try:
        found = read_measurements(path, WILD_TYPE)
    except DataError:
        return
    assert len(found.variants) >= MINIMUM_MEASUREMENTS
    assert np.isfinite(found.delta_tm).all()


def judged(n: int, quality: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    measured = rng.normal(-2, 4, n)
    return measured, measured + rng.normal(0, 4, n), measured + rng.normal(0, quality, n)


def test_a_gain_must_be_over_both_the_plain_model_and_the_constant() -> None:
    measured, plain, corrected = judged(40, 1.0)
    alone = {"one_out": np.eye(40, dtype=bool)}
    assert judge(measured, plain, {"one_out": corrected}, alone).helps
    assert not judge(measured, corrected, {"one_out": corrected}, alone).helps, "as good as the plain model"
    constant = (measured.sum() - measured) / 39
    assert not judge(measured, plain + 9, {"one_out": constant}, alone).helps, "as good as a constant"


def test_five_measurements_cannot_prove_more_than_five_coins() -> None:
    measured, plain, corrected = judged(5, 1e-6)
    out = {"one_out": np.eye(5, dtype=bool)}
    chance = judge(measured, plain, {"one_out": corrected}, out).figures["one_out"]["plain"]["chance"]
    assert chance == pytest.approx(1 / 32, abs=0.01)


def test_values_left_out_together_count_as_one_piece_of_evidence() -> None:
    measured, plain, corrected = judged(40, 1.0)
    same = np.kron(np.eye(4), np.ones((10, 10))) > 0
    schemes = {"one_out": np.eye(40, dtype=bool), "position_out": same}
    judgement = judge(measured, plain, dict.fromkeys(schemes, corrected), schemes)
    assert judgement.helps
    assert not judgement.helps_elsewhere, "four positions are four coins"
    assert judgement.verdict.startswith("helps: with each of 40 values left out")
    assert "at positions without a measurement it does not help beyond chance" in judgement.verdict


def test_figures_are_those_of_the_textbook() -> None:
    from scipy.stats import pearsonr, spearmanr

    measured, plain, corrected = judged(30, 2.0)
    measured[4] = measured[5]
    judgement = judge(measured, plain, {"one_out": corrected}, {"one_out": np.eye(30, dtype=bool)})
    figures = judgement.figures["one_out"]["plain"]
    assert figures["mae"] == pytest.approx(np.abs(plain - measured).mean())
    assert figures["rmse"] == pytest.approx(np.sqrt(((plain - measured) ** 2).mean()))
    assert figures["pearson"] == pytest.approx(pearsonr(plain, measured).statistic)
    assert figures["spearman"] == pytest.approx(spearmanr(plain, measured).statistic)
    assert judgement.figures["one_out"]["constant"]["spearman"] is None
    left_one_out = [np.delete(measured, k).mean() for k in range(30)]
    assert judgement.figures["one_out"]["constant"]["mae"] == pytest.approx(np.abs(left_one_out - measured).mean())


def test_the_prior_noise_is_that_of_pairs_1_7_apart() -> None:
    draws = np.random.default_rng(0).normal(0, NOISE, (2, 100_000))
    assert np.median(np.abs(draws[0] - draws[1])) == pytest.approx(1.7, abs=0.02)

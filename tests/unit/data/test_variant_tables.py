"""Tables of variants are read as they were measured: the right residue, the published predictions, errors by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from enzyme_stability.data.variant_tables import (
    PUBLIC_TABLES,
    PUBLISHED_METHODS,
    REVERSE,
    VARIANT_COLUMNS,
    read_variant_table,
    substitutions_of,
    table_path,
)
from enzyme_stability.errors import DataError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant

WILD_TYPE = "MKTAYIAKQRQISFVKSHFSRQ"
OTHER = "GSHMLEDPVDAFKAERQWWL"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> pd.DataFrame:
    return read_variant_table(path, Path("nowhere"))


def test_a_table_of_ones_own_is_read_and_its_numbers_are_places(tmp_path) -> None:
    path = write(
        tmp_path / "own.csv",
        "Sequence,variant,offset,delta_tm_celsius,pH,temperature_celsius",
        f"{WILD_TYPE},K28R,26,-1.5,7,25",
        f"{OTHER},G1A:E6P,,2,,",
        f"{WILD_TYPE.lower()},wt,26,0,8,",
    )
    table = read(path)
    assert list(table.columns) == VARIANT_COLUMNS
    assert table["variant"].tolist() == ["K2R", "G1A:E6P", "WT"]
    assert table["protein"].tolist() == [0, 1, 0]
    assert table["substitutions"].tolist() == [1, 2, 0]
    assert table["target"].tolist() == [-1.5, 2, 0]
    assert table["ph"].tolist() == pytest.approx([7, np.nan, 8], nan_ok=True)
    assert table["temperature"].tolist() == pytest.approx([25, np.nan, np.nan], nan_ok=True)
    assert set(table["quantity"]) == {"dTm"}


def test_the_sequence_of_the_variant_will_do_and_predictions_keep_their_direction(tmp_path) -> None:
    path = write(
        tmp_path / "own.tsv",
        "wild_type\tvariant_sequence\tdelta_tm_celsius\tmine_dir\tmine_inv\tHoTMuSiC_pred",
        f"{WILD_TYPE}\t{WILD_TYPE[:4]}F{WILD_TYPE[5:]}\t3.5\t1\t-2\t",
    )
    row = read(path).iloc[0]
    assert (row["variant"], row["mine"], row["mine (reverse)"]) == ("Y5F", 1.0, -2.0)
    assert np.isnan(row["HoTMuSiC"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{WILD_TYPE},K3R,1", r"line 3: K3R: the wild type has T at position 3, not K"),
        (f"{WILD_TYPE},delK2,1", r"line 3: .* deletion"),
        (f"{WILD_TYPE},K2R,", r"line 3: 'delta_tm_celsius' is missing or no number"),
        (f"{WILD_TYPE},K2R,high", r"line 3: 'delta_tm_celsius' is missing or no number"),
        (f"{WILD_TYPE},,1", r"line 3: the wild type or the variant is missing"),
        ("MK1,K2R,1", r"line 3: '1' at position 3 is not an amino acid"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, row: str, message: str) -> None:
    path = write(tmp_path / "own.csv", "wild_type,variant,delta_tm_celsius", f"{WILD_TYPE},K2R,1", row)
    with pytest.raises(DataError, match=rf"own\.csv, {message}"):
        read(path)


def test_an_unknown_residue_is_no_substitution(tmp_path) -> None:
    path = write(
        tmp_path / "own.csv",
        "wild_type,variant_sequence,delta_tm_celsius",
        f"{WILD_TYPE},{WILD_TYPE.replace('Y', 'X')},1",
    )
    with pytest.raises(DataError, match="line 2: Y5X is no substitution"):
        read(path)


def test_what_is_no_such_table_says_what_there_is(tmp_path) -> None:
    with pytest.raises(DataError, match="S572: no such file; the public tables are S4346, S571, S8754, S669, M1261"):
        read_variant_table("S572", tmp_path)
    with pytest.raises(DataError, match=r"variants/S571\.csv: no such file$"):
        read_variant_table("S571", tmp_path)
    lacking = write(tmp_path / "own.csv", "wild_type,mutant", f"{WILD_TYPE},K2R")
    with pytest.raises(DataError, match=r"'delta_tm_celsius' are needed; the file has \['wild_type', 'mutant'\]"):
        read(lacking)
    with pytest.raises(DataError, match=r"empty\.csv: the table has no rows"):
        read(write(tmp_path / "empty.csv", "wild_type,variant,delta_tm_celsius"))
    (tmp_path / "noise.csv").write_bytes(b"\xff\xfe\x00\x81" * 30)
    with pytest.raises(DataError, match=r"noise\.csv"):
        read(tmp_path / "noise.csv")


def test_the_substitutions_of_a_table_know_their_row() -> None:
    rows, before, after = substitutions_of(pd.DataFrame({"variant": ["K2R", "WT", "K2R:I6V"]}, index=[7, 8, 9]))
    assert rows.tolist() == [0, 2, 2]
    assert "".join(AMINO_ACIDS[k] for k in before) == "KKI"
    assert "".join(AMINO_ACIDS[k] for k in after) == "RRV"
    assert [part.size for part in substitutions_of(pd.DataFrame({"variant": ["WT"]}))] == [0, 0, 0]


def test_a_name_is_a_public_table_and_anything_else_a_path(tmp_path: Path) -> None:
    assert table_path("S571", tmp_path) == tmp_path / "variants" / "S571.csv"
    assert table_path("own.csv", tmp_path) == Path("own.csv")


SIZES = {
    "S4346": (4346, 346, 1),
    "S571": (571, 39, 1),
    "S8754": (8754, 298, 1),
    "S669": (669, 93, 1),
    "M1261": (1261, 132, 15),
}
"""Measurements, proteins, and most substitutions in a variant."""


@pytest.mark.parametrize("name", SIZES)
def test_a_public_table_is_complete(data_root: Path, name: str) -> None:
    table = read_variant_table(name, data_root)
    assert (len(table), table["protein"].nunique(), table["substitutions"].max()) == SIZES[name]
    assert table["protein"].drop_duplicates().tolist() == list(range(SIZES[name][1]))
    assert table["quantity"].unique().tolist() == [PUBLIC_TABLES[name].quantity]
    assert table[VARIANT_COLUMNS].drop(columns="temperature").notna().all(axis=None)
    assert all(
        Variant.parse(text).apply(wild_type) != wild_type
        for wild_type, text in zip(table["wild_type"], table["variant"], strict=True)
    )


def test_a_variant_is_taken_from_the_sequences_and_not_from_its_name(data_root: Path) -> None:
    names = pd.read_csv(data_root / "variants" / "S4346.csv")["name"]
    table = read_variant_table("S4346", data_root)
    assert names[0] == "rcsb_1A0N_B_A132F_8"
    assert table["variant"][0] == "A43F"


def test_every_published_prediction_has_the_sign_of_the_target(data_root: Path) -> None:
    found = set()
    for name in ("S571", "S669", "M1261"):
        table = read_variant_table(name, data_root)
        for method in PUBLISHED_METHODS:
            if method in table:
                found.add(method)
                assert table[method].corr(table["target"]) > 0.1, method
            if method + REVERSE in table:
                assert table[method + REVERSE].corr(table["target"]) < 0.01, method
    assert found == set(PUBLISHED_METHODS)


def test_what_a_method_did_not_answer_stays_missing(data_root: Path) -> None:
    table = read_variant_table("S669", data_root).drop(columns=VARIANT_COLUMNS)
    missing = table.isna().sum()
    assert missing.sum() == 108
    assert missing[["DDGun", "DDGun" + REVERSE, "FoldX", "FoldX" + REVERSE]].tolist() == [27, 27, 2, 8]

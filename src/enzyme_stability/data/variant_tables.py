"""Tables of measured variants: the public ones as their authors published them, and a user's own.

A row is one measurement of one variant. The target is dTm = Tm(variant) - Tm(wild type) in degC, or ddG in kcal/mol;
of both, positive = more stable. Every public table has this sign already, and so has every published prediction in
them: its Pearson correlation with the target is between 0.11 and 0.61. Those of programs that print the opposite sign
were turned by the authors of the tables, so nothing is turned here.

Source:
    GeoStab, github.com/Gonglab-THU/GeoStab (MIT), from ProThermDB (doi 10.1093/nar/gkaa1035) and ThermoMutDB
    (doi 10.1093/nar/gkaa925); the predictions in S669 are those of Pancotti et al. 2022, doi 10.1093/bib/bbab555.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from enzyme_stability.data.frames import read_table
from enzyme_stability.errors import DataError, SequenceError, VariantError
from enzyme_stability.sequence import AMINO_ACIDS, clean_sequence
from enzyme_stability.variant import Variant

Quantity = Literal["dTm", "ddG"]
"""What was measured: dTm in degC or ddG in kcal/mol; positive = more stable."""

VARIANT_COLUMNS = ["protein", "wild_type", "variant", "substitutions", "ph", "temperature", "target", "quantity"]
"""Columns of ``read_variant_table``; after them one a published prediction."""

REVERSE = " (reverse)"
"""Ending of the column with the predictions for the way back, from the variant to the wild type."""


@dataclass(frozen=True)
class PublicTable:
    """One public table of variants.

    Attributes:
        path: File, relative to the data folder.
        target: Its column with the measured change.
        quantity: What that is.
        description: One line for people.
    """

    path: str
    target: str
    quantity: Quantity
    description: str


PUBLIC_TABLES = {
    "S4346": PublicTable("variants/S4346.csv", "dTm", "dTm", "GeoDTm's training set, single substitutions"),
    "S571": PublicTable("variants/S571.csv", "dTm", "dTm", "GeoDTm's test set, single substitutions"),
    "S8754": PublicTable("variants/S8754.csv", "ddG", "ddG", "GeoDDG's training set, single substitutions"),
    "S669": PublicTable("variants/S669.csv", "ddG", "ddG", "ddG benchmark, single substitutions"),
    "M1261": PublicTable("variants/M1261.csv", "ddG", "ddG", "ddG benchmark, two to fifteen substitutions"),
}
"""The public tables by name."""

PUBLISHED_METHODS: dict[str, Literal["sequence", "structure"]] = {
    "GeoDTm-Seq": "sequence",
    "GeoDTm-3D": "structure",
    "AUTO-MUTE": "structure",
    "HoTMuSiC": "structure",
    "GeoDDG-Seq": "sequence",
    "GeoDDG-3D": "structure",
    "MAESTRO": "structure",
    "FoldX": "structure",
    "PremPS": "structure",
    "Dynamut": "structure",
    "mCSM": "structure",
    "SDM": "structure",
    "DUET": "structure",
    "I-Mutant3.0": "structure",  # in S669 its direct predictions are those of SAAFEC-SEQ to the last digit
    "I-Mutant3.0-Seq": "sequence",
    "MUPro": "sequence",
    "SAAFEC-SEQ": "sequence",
    "DDGun3D": "structure",
    "DDGun": "sequence",
    "ACDC-NN-Seq": "sequence",
    "ACDC-NN": "structure",
    "INPS-Seq": "sequence",
    "INPS3D": "structure",
    "PopMusic": "structure",
    "ThermoNet": "structure",
    "DDMut": "structure",
    "DynaMut2": "structure",
}
"""The methods whose predictions stand in the public tables, and what each has to be given of the wild type."""

_ENDINGS = {"_dir": "", "_pred": "", "_inv": REVERSE}
_NAMES = {
    "wild_type": ("wild_type", "sequence", "wild_type_sequence", "wt_seq"),
    "variant_sequence": ("variant_sequence", "mut_seq"),
    "variant": ("variant", "mutation"),
    "offset": ("offset",),
    "ph": ("ph",),
    "temperature": ("temperature_celsius", "temperature", "temp"),
    "target": ("delta_tm_celsius",),
}
"""Column names taken without asking, best first; upper and lower case count the same."""


def table_path(name_or_path: str | Path, root: Path) -> Path:
    """The file that ``read_variant_table`` reads; it need not be there."""
    declared = PUBLIC_TABLES.get(str(name_or_path))
    return root / declared.path if declared else Path(name_or_path)


def read_variant_table(name_or_path: str | Path, root: Path) -> pd.DataFrame:
    """Read a public table by its name, or any table by its path.

    A table of one's own has the columns ``wild_type`` (or ``sequence``), ``variant`` and ``delta_tm_celsius``, and may
    have ``offset`` (number of the first residue, less 1), ``ph`` and ``temperature_celsius``. In place of ``variant``
    the whole ``variant_sequence`` will do.

    Args:
        name_or_path: One of ``PUBLIC_TABLES``, or a CSV, TSV or Parquet file.
        root: Data folder that the paths of the public tables are relative to.

    Returns:
        A row a measurement, in the order of the file:

        - ``protein``: number of the distinct wild type, from 0 by first appearance;
        - ``wild_type``: its residues, ``X`` where one is unknown;
        - ``variant``: as ``enzyme_stability.variant.Variant`` writes it, residues counted from 1 along ``wild_type``;
          the numbers in the names of the public tables are those of the PDB, and are not used;
        - ``substitutions``: how many;
        - ``ph``, and ``temperature`` in degC, NaN where not given;
        - ``target``: the measured change, positive = more stable, and ``quantity``: dTm (degC) or ddG (kcal/mol);
        - a column by name of each published method, in the unit of the target, and its predictions for the way back
          under the name with ``REVERSE``. What a method did not answer is NaN: 108 values of S669 (DDGun 2 x 27, the
          others 2 to 8 a column).

    Raises:
        DataError: The file is missing or no such table, or a row makes no sense; the message names file and line.
    """
    declared = PUBLIC_TABLES.get(str(name_or_path))
    path = table_path(name_or_path, root)
    if not path.is_file():
        names = "" if declared else f"; the public tables are {', '.join(PUBLIC_TABLES)}"
        raise DataError(f"{path}: no such file{names}")
    raw = read_table(path)
    raw.columns = raw.columns.astype(str).str.strip()
    own = {column.lower(): column for column in reversed(list(raw.columns))}
    found = {key: next((own[name] for name in names if name in own), None) for key, names in _NAMES.items()}
    target = declared.target if declared else found["target"]
    wild_type, described = found["wild_type"], found["variant_sequence"] or found["variant"]
    if wild_type is None or described is None or target not in raw:
        wanted = "'wild_type', 'variant' and 'delta_tm_celsius'" if declared is None else "wt_seq, mut_seq and target"
        raise DataError(f"{path}: the columns {wanted} are needed; the file has {list(raw.columns)}")
    if raw.empty:
        raise DataError(f"{path}: the table has no rows")
    offsets = _numbers(raw, found["offset"]).fillna(0)
    whole = found["variant_sequence"] is not None
    rows = [
        _row(path, line, *cells, whole=whole)
        for line, cells in enumerate(zip(raw[wild_type], raw[described], offsets, strict=True), start=2)
    ]
    wild_types, variants = [residues for residues, _ in rows], [variant for _, variant in rows]
    measured = _numbers(raw, target)
    if (missing := np.flatnonzero(~np.isfinite(measured))).size:
        raise DataError(f"{path}, line {missing[0] + 2}: '{target}' is missing or no number; leave the row out")
    table = pd.DataFrame(
        {
            "protein": pd.factorize(np.array(wild_types, dtype=object))[0],
            "wild_type": wild_types,
            "variant": [str(variant) for variant in variants],
            "substitutions": [len(variant.substitutions) for variant in variants],
            "ph": _numbers(raw, found["ph"]),
            "temperature": _numbers(raw, found["temperature"]),
            "target": measured,
            "quantity": declared.quantity if declared else "dTm",
        }
    )[VARIANT_COLUMNS]
    return pd.concat([table, _predictions(raw)], axis=1)


def substitutions_of(table: pd.DataFrame) -> tuple[npt.NDArray[np.int64], ...]:
    """The substitutions in all variants of a table.

    Returns:
        Three arrays of shape (m,): number of the row, from 0; the residue that is replaced, and the one in its place,
        as columns of ``AMINO_ACIDS``.

    Raises:
        VariantError: A variant cannot be read.
    """
    listed = [
        (row, AMINO_ACIDS.index(one.wild_type), AMINO_ACIDS.index(one.substitution))
        for row, text in enumerate(table["variant"])
        for one in Variant.parse(text).substitutions
    ]
    return tuple(np.array(listed, dtype=np.int64).reshape(-1, 3).T)


def _row(
    path: Path, line: int, wild_type: object, described: object, offset: float, *, whole: bool
) -> tuple[str, Variant]:
    if not isinstance(wild_type, str) or not isinstance(described, str):
        raise DataError(f"{path}, line {line}: the wild type or the variant is missing; leave the row out")
    try:
        chain = clean_sequence(wild_type).chain
        other = clean_sequence(described).chain if whole else _applied(described, chain, offset)
        variant = Variant.between(chain, other)
    except (SequenceError, VariantError) as error:
        raise DataError(f"{path}, line {line}: {error}") from None
    if unknown := [one for one in variant.substitutions if "X" in one]:
        raise DataError(f"{path}, line {line}: {unknown[0]} is no substitution of one known residue by another")
    return chain, variant


def _applied(text: str, chain: str, offset: float) -> str:
    if not offset.is_integer():
        raise VariantError(f"an offset is a whole number, not {offset:g}")
    return Variant.parse(text, offset=int(offset)).apply(chain)


def _numbers(raw: pd.DataFrame, column: str | None) -> pd.Series:
    if column is None:
        return pd.Series(np.nan, index=raw.index)
    return pd.to_numeric(raw[column], errors="coerce").astype(float)


def _predictions(raw: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for column in raw.columns:
        for ending, kind in _ENDINGS.items():
            if column.endswith(ending):
                columns[column.removesuffix(ending) + kind] = _numbers(raw, column)
    return pd.DataFrame(columns, index=raw.index)

"""Measured variants of one protein: how they are read from a table, and how well something told of them holds.

Values are delta Tm = Tm(variant) - Tm(wild type) in degC; positive = more stable.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from enzyme_stability.errors import DataError, VariantError
from enzyme_stability.variant import Variant, fitting_offset
from enzyme_stability.variants.scan import FloatArray

MINIMUM_MEASUREMENTS = 5
LARGEST_CHANGE = 100.0
"""degC. Nothing changes a Tm by more than what separates freezing from boiling water."""

REPEAT_DIFFERENCE = 1.7
"""degC between the highest and the lowest value of one variant: the median over the 357 variants that S4346 has
several times. Each was at another pH (and any two of the values differ by 1.1 degC in the median), so this is a
cautious guess of how far apart repeats are, for as long as there are none."""

NOISE = REPEAT_DIFFERENCE / (2**0.5 * NormalDist().inv_cdf(0.75))
"""Standard deviation of one measurement in degC under which half of all pairs are further apart than that."""

CHANCE = 0.05
"""Below this p value a smaller error counts as more than chance."""

_COLUMNS = {
    "variant": ("variant", "variants", "mutation", "mutant", "mutations"),
    "delta_tm_celsius": ("delta_tm", "dtm", "ddtm"),
    "tm_celsius": ("tm", "melting_temperature", "tm_value"),
    "standard_error": ("standard_error", "se", "sem", "sd", "standard_deviation", "std"),
}
_UNIT = re.compile(r"(_deg)?_(celsius|c)$")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_LARGEST_BYTES = 20_000_000
_PRIOR_REPEATS = 2  # measurements' worth of NOISE in the noise of a few repeats
_SHOWN = 5
_FLIPS = 4999


@dataclass(frozen=True)
class Measurements:
    """Measured variants of one protein, each once.

    Attributes:
        wild_type: Residues of the protein.
        variants: ``n`` variants in the order of the table.
        delta_tm: Tm(variant) - Tm(wild type) in degC, the mean of repeats, shape (n,).
        repeats: Measurements behind each value, shape (n,).
        standard_error: Of each value in degC as the table has it, shape (n,); NaN where unknown.
        noise: Standard deviation of one measurement in degC as repeats show it, drawn towards ``NOISE`` the more the
            fewer they are; ``None`` without repeats.
        left_out: Why each row that was not used was not, with its line.
        notes: What else to know.
    """

    wild_type: str
    variants: tuple[Variant, ...]
    delta_tm: FloatArray
    repeats: FloatArray
    standard_error: FloatArray
    noise: float | None
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    line: int
    variant: str
    value: str
    error: str
    problem: str


@dataclass(frozen=True)
class _Value:
    where: str
    variant: Variant
    value: float
    error: float


def read_measurements(
    path: str | Path, wild_type: str, *, offset: int = 0, wild_type_tm: float | None = None
) -> Measurements:
    """Read measured variants of one protein from CSV or TSV, also gzipped or separated by ``;`` with decimal commas.

    Args:
        path: Table with a column ``variant`` and one of ``delta_tm_celsius`` or ``tm_celsius``, under these or other
            usual names, and perhaps ``standard_error``, the uncertainty of the value in degC.
        wild_type: Residues of the protein.
        offset: Number of the first residue, less 1.
        wild_type_tm: Tm of the wild type in degC, for a column of Tm; by default the mean of the rows named ``WT``.

    Raises:
        DataError: The table cannot be read, its columns are missing, there is no Tm of the wild type, or fewer than
            ``MINIMUM_MEASUREMENTS`` variants are left; the message says why.
    """
    rows, is_delta = _read_rows(Path(path))
    left_out: list[str] = []
    parsed: list[Variant] = []
    values = [value for row in rows if (value := _value(row, wild_type, offset, parsed, left_out))]
    notes = _offset_hint(parsed, wild_type, offset)
    own = [one.value for one in values if not one.variant.substitutions]
    if not is_delta:
        if wild_type_tm is None and not own:
            raise DataError(f"{path} has Tm but none of the wild type: add a row named WT or give its Tm")
        reference = float(np.mean(own)) if wild_type_tm is None else wild_type_tm
        values = [replace(one, value=one.value - reference) for one in values]
    elif any(own):
        notes.append("the wild type has a delta Tm of 0 by definition: its rows tell of the noise alone")
    groups: dict[Variant, list[_Value]] = {}
    for one in values:
        if abs(one.value) > LARGEST_CHANGE:
            reason = f"a delta Tm of {one.value:g} °C is beyond ±{LARGEST_CHANGE:g} °C"
            left_out.append(f"{one.where}: {reason}")
        else:
            groups.setdefault(one.variant, []).append(one)
    noise = _noise([[one.value for one in group] for group in groups.values()])
    groups.pop(Variant((), offset), None)
    if len(groups) < MINIMUM_MEASUREMENTS:
        reasons = [*left_out[:_SHOWN], *[f"{len(left_out) - _SHOWN:,} more rows"] * (len(left_out) > _SHOWN), *notes]
        raise DataError(
            f"{path} has {len(groups)} measured variants that can be used; at least {MINIMUM_MEASUREMENTS} are needed"
            + (f" (left out: {'; '.join(reasons)})" if reasons else "")
        )
    return Measurements(
        wild_type=wild_type,
        variants=tuple(groups),
        delta_tm=np.array([np.mean([one.value for one in group]) for group in groups.values()]),
        repeats=np.array([float(len(group)) for group in groups.values()]),
        standard_error=np.array([_error_of_mean([one.error for one in group]) for group in groups.values()]),
        noise=noise,
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


def _value(row: _Row, wild_type: str, offset: int, parsed: list[Variant], left_out: list[str]) -> _Value | None:
    """The value of a row, its variant without substitutions by the same residue; or None, with the reason noted."""
    where = f"line {row.line} ({row.variant or 'no variant'})"
    try:
        if row.problem:
            raise ValueError(row.problem)
        variant = Variant.parse(row.variant, offset=offset)
        parsed.append(variant)
        variant.check(wild_type)
        value = _number(row.value)
        error = _number(row.error) if row.error else 0.0
        if error < 0:
            raise ValueError(f"the standard error {error:g} is below 0")
    except (VariantError, ValueError) as problem:
        left_out.append(f"{where}: {problem}")
        return None
    changed = tuple(one for one in variant.substitutions if one.wild_type != one.substitution)
    return _Value(where, Variant(changed, offset), value, error or np.nan)


def _number(text: str) -> float:
    plain = text.replace("\N{MINUS SIGN}", "-").removesuffix("°C").strip()
    if not plain:
        raise ValueError("no value")
    if not _NUMBER.fullmatch(plain) or not np.isfinite(float(plain)):
        raise ValueError(f"'{text}' is not a finite number")
    return float(plain)


def _noise(groups: Sequence[Sequence[float]]) -> float | None:
    degrees = sum(len(group) - 1 for group in groups)
    squares = sum(float(np.var(group)) * len(group) for group in groups)
    if degrees == 0:
        return None
    return float(np.sqrt((_PRIOR_REPEATS * NOISE**2 + squares) / (_PRIOR_REPEATS + degrees)))


def _error_of_mean(errors: Sequence[float]) -> float:
    return float(np.sqrt(np.sum(np.square(errors))) / len(errors))


def _offset_hint(parsed: Sequence[Variant], wild_type: str, offset: int) -> list[str]:
    def fitting(candidate: int) -> int:
        return sum(_fits(replace(variant, offset=candidate), wild_type) for variant in changed)

    changed = [variant for variant in parsed if variant.substitutions]
    now, other = fitting(offset), fitting_offset(changed, wild_type)
    if other is None or not fitting(other) > max(now, len(changed) / 2):
        return []
    return [f"with an offset of {other}, {fitting(other)} of {len(changed)} variants fit, instead of {now}"]


def _fits(variant: Variant, wild_type: str) -> bool:
    try:
        variant.check(wild_type)
    except VariantError:
        return False
    return True


def _read_rows(path: Path) -> tuple[list[_Row], bool]:
    """Rows of a table, and whether their values are delta Tm."""
    lines = io.StringIO(_text(path), newline="").readlines()
    # Excel may write the separator in a line of its own before the header
    first = next((k for k, line in enumerate(lines) if line.strip() and not line.lower().startswith("sep=")), None)
    if first is None:
        raise DataError(f"{path}: the file is empty")
    delimiter = max("\t;,", key=lines[first].count)
    reader = csv.reader(lines[first:], delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        header = next(reader)
        table = [(first + reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except csv.Error as error:
        raise DataError(f"{path}, line {first + reader.line_num}: the row cannot be read: {error}") from None
    found = _find_columns(header)
    value = "delta_tm_celsius" if "delta_tm_celsius" in found else "tm_celsius"
    if not {"variant", value} <= found.keys():
        needed = "'variant' and 'delta_tm_celsius' or 'tm_celsius'"
        raise DataError(f"{path}: the columns {needed} are needed; those of the table are {', '.join(header)}")
    rows = []
    for line, cells in table:
        wrong = len(cells) < len(header) or any(cells[len(header) :])
        problem = f"{len(cells)} fields, but the header has {len(header)}" if wrong else ""
        texts = {name: cells[place] if place < len(cells) else "" for name, place in found.items()}
        number, deviation = texts.get(value, ""), texts.get("standard_error", "")
        if delimiter != ",":
            number, deviation = number.replace(",", "."), deviation.replace(",", ".")
        rows.append(_Row(line, texts["variant"], number, deviation, problem))
    return rows, value == "delta_tm_celsius"


def _find_columns(header: Sequence[str]) -> dict[str, int]:
    plain = [re.sub(r"[^a-z0-9]+", "_", re.sub("[\u03b4\u2206]", "delta_", name.lower())).strip("_") for name in header]
    names = [_UNIT.sub("", name) for name in plain]
    return {
        column: names.index(usual)
        for column, known in _COLUMNS.items()
        if (usual := next((name for name in known if name in names), None))
    }


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_BYTES + 1)
        if data.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(data)) as unpacked:
                data = unpacked.read(_LARGEST_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path}: the gzip data is damaged; copy or download it again") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read ({reason}); check the path and its permissions") from None
    if len(data) > _LARGEST_BYTES:
        raise DataError(f"{path} is larger than {_LARGEST_BYTES:,} bytes, too large for the variants of one protein")
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = data.decode(encoding, errors="replace")
    if "\0" in text:
        raise DataError(f"{path} is not a text table; save a spreadsheet as CSV in UTF-8")
    return text


@dataclass(frozen=True)
class Judgement:
    """How close a corrected model comes to values that were left out, against the plain one and a constant.

    Attributes:
        measurements: Values there are.
        figures: By scheme, ``one_out`` and ``position_out`` (missing where too little remains), and by what is judged,
            ``plain`` and ``corrected`` model and ``constant``, the mean of the values that were not left out: ``mae``
            and ``rmse`` in degC, ``pearson``, ``spearman``, ``None`` where not defined; and ``chance``, the one-sided
            p value of the corrected model having the smaller absolute errors.
    """

    measurements: int
    figures: dict[str, dict[str, dict[str, float | None]]]

    @property
    def helps(self) -> bool:
        """Whether the errors with one value left out are below those of model and constant, both beyond chance."""
        return self._beyond_chance("one_out")

    @property
    def helps_elsewhere(self) -> bool:
        """Whether the same holds for positions that were not measured."""
        return "position_out" in self.figures and self._beyond_chance("position_out")

    @property
    def verdict(self) -> str:
        """Whether it helps, in words with the figures."""
        mae = {
            scheme: {kind: f"{of['mae']:.2f}" for kind, of in kinds.items()} for scheme, kinds in self.figures.items()
        }
        errors = {
            scheme: f"{of['corrected']} °C, {of['plain']} of the plain model and {of['constant']} of one constant"
            for scheme, of in mae.items()
        }
        said = (
            f"with each of {self.measurements} values left out in turn, the mean error of delta Tm (positive = more "
            f"stable) is {errors['one_out']}"
        )
        if not self.helps:
            return f"does not help beyond chance: {said}; keep the plain model"
        if "position_out" not in errors:
            return f"helps: {said}; whether it helps at positions without a measurement cannot be told"
        new = "it helps too" if self.helps_elsewhere else "it does not help beyond chance"
        return f"helps: {said}; at positions without a measurement {new}: {errors['position_out']}"

    def _beyond_chance(self, scheme: str) -> bool:
        return all((self.figures[scheme][kind]["chance"] or 0) < CHANCE for kind in ("plain", "constant"))


def judge(
    measured: FloatArray,
    plain: FloatArray,
    corrected: Mapping[str, FloatArray],
    left_out: Mapping[str, npt.NDArray[np.bool_]],
) -> Judgement:
    """Compare models on values that were left out.

    The p values are of a sign-flip test of the paired differences between absolute errors; values that were left out
    together flip together.

    Args:
        measured: delta Tm in degC, shape (n,).
        plain: What the plain model says in degC, shape (n,).
        corrected: By scheme what the corrected model says, shape (n,), each value told without those left out with it.
        left_out: By scheme, the values that each value was left out with, itself among them, shape (n, n).
    """
    figures = {}
    for scheme, out in left_out.items():
        rows = ~out.all(axis=1)
        if rows.sum() < MINIMUM_MEASUREMENTS:
            continue
        constant = (~out @ measured)[rows] / (~out).sum(axis=1)[rows]
        told = {"plain": plain[rows], "corrected": corrected[scheme][rows], "constant": constant}
        error = {kind: np.abs(values - measured[rows]) for kind, values in told.items()}
        together = np.unique(out[rows], axis=0, return_inverse=True)[1]
        figures[scheme] = {
            kind: {
                "mae": float(error[kind].mean()),
                "rmse": float(np.sqrt((error[kind] ** 2).mean())),
                # the mean of the others is the lower the higher the value left out: no failure to rank, but no ranking
                "pearson": _correlation(measured[rows], values) if kind != "constant" else None,
                "spearman": _correlation(_ranks(measured[rows]), _ranks(values)) if kind != "constant" else None,
                "chance": _chance(error[kind] - error["corrected"], together) if kind != "corrected" else None,
            }
            for kind, values in told.items()
        }
    return Judgement(measured.size, figures)


def _correlation(a: FloatArray, b: FloatArray) -> float | None:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else None


def _ranks(values: FloatArray) -> FloatArray:
    _, place, times = np.unique(values, return_inverse=True, return_counts=True)
    ranks: FloatArray = (np.cumsum(times) - (times - 1) / 2)[place]
    return ranks


def _chance(gain: FloatArray, together: npt.NDArray[np.int64]) -> float:
    totals = np.bincount(together, gain)
    flipped = np.random.default_rng(0).choice([-1.0, 1.0], (_FLIPS, totals.size)) @ totals
    return float((1 + (flipped >= totals.sum()).sum()) / (1 + _FLIPS))

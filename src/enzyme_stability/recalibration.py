"""Recalibration: correct a predictor for a user's own kind of measurement, where that helps, and write it anew."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.correction import Correction
from enzyme_stability.correction_choice import UPPER_TAIL_SHARE, Choice, MeasuredProteins, Raw, choose_correction
from enzyme_stability.encoders.composition import amino_acid_frequencies
from enzyme_stability.errors import ArtifactError, ConfigError, DataError
from enzyme_stability.manifest import MANIFEST
from enzyme_stability.predictor import PLAIN, WITH_GROWTH, Predictor
from enzyme_stability.uncertainty import ConformalInterval

if TYPE_CHECKING:
    import pandas as pd

MINIMUM_PROTEINS = 20
"""Below it neither a correction nor an interval of 90 % can be had: its two tails need 19 proteins."""

ENOUGH_TO_TRAIN = 500
"""Proteins from which a predictor trained on them alone is worth a try."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")

_CARD = """\
# {name}

{origin} recalibrated on {proteins} proteins of {table}.

```
{summary}
```

## What to know

- The figures hold for proteins measured in the same way as these, and for nothing else. The figures of {origin} do
  not hold for this predictor, nor these for {origin}.
- Proteins that are at least 30 % identical over half of both chains were never in two folds. A correction was judged
  on families it had not learned from.
- Whether {origin} itself has learned from these proteins, or from their relatives, cannot be known here. Where it has,
  the figures without a correction are too good for a new protein, and the interval is rather too narrow.
- The correction was chosen among the candidates by the figures above, which flatters those of the chosen one a bit.
- The domain flag is that of {origin}: it tells how far a protein is from what {origin} learned from.
"""


@dataclass(frozen=True)
class Recalibration:
    """A recalibrated predictor and the account of how it came about.

    Attributes:
        predictor: The new predictor.
        heads: What was chosen for each head (``plain``, ``with_growth_temperature``) that could be judged on its own.
        left_out: Why each row without a place of its own has none, in words; merged measurements among them.
        notes: What else to know.
    """

    predictor: Predictor
    heads: dict[str, Choice]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def helped(self) -> bool:
        """Whether a correction was taken for any head."""
        return any(choice.helped for choice in self.heads.values())

    def summary(self) -> str:
        """Figures of every candidate, and in words whether recalibrating helped."""
        return _summary(self.heads, self.notes)


def recalibrate(
    predictor: Predictor,
    table: Path,
    output: Path,
    *,
    name: str | None = None,
    coverage: float = 0.9,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> Recalibration:
    """Correct a predictor for the kind of measurement in a table, if that helps, and calibrate its interval on it.

    A correction that the predictor carries already is replaced, not added to.

    Args:
        predictor: The predictor to start from; it stays as it is.
        table: File with sequences and Tm, and growth temperatures where they are known.
        output: New folder for the recalibrated predictor.
        name: Its name; by default the old one with ``-recalibrated``.
        coverage: Coverage of the intervals that are compared; the table must be large enough for it.
        seed: Seed of the folds and the bootstrap.
        report: Called with a sentence on what happens next.

    Raises:
        DataError: The table cannot be read, or has too few proteins or families to judge anything on.
        ConfigError: The name cannot be used, or ``coverage`` needs more proteins than there are.
        ArtifactError: ``output`` exists already or cannot be written.
        MissingDependencyError: MMseqs2 is not installed.
    """
    name = name or f"{predictor.name}-recalibrated"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"the name '{name}' cannot be used: small letters, digits, '_', '.' and '-' only")
    if output.exists():
        raise ArtifactError(f"{output} exists already: name a new folder")
    report(f"reading {table}")
    rows, left_out = read_measurements(table)
    report(f"predicting {len(rows)} proteins and looking for relatives among them")
    parts = _parts(predictor, rows, table, coverage)
    heads, corrections, intervals = {}, {}, {}
    for kind, proteins in parts.items():
        report(f"cross-validating corrections of the head '{kind}' on {proteins.measured.size} proteins")
        heads[kind], intervals[kind] = choose_correction(proteins, coverage, seed)
        corrections[kind] = proteins.fit(heads[kind].chosen)
    notes = _notes(predictor, heads)
    card = _CARD.format(
        name=name, origin=predictor.name, proteins=len(rows), table=table.name, summary=_summary(heads, notes)
    )
    manifest = {
        **{key: value for key, value in predictor.manifest.items() if key != "correction"},
        "name": name,
        "description": f"{predictor.manifest['description']} Recalibrated on {len(rows)} proteins of {table.name}.",
        "intervals": {kind: _saved(intervals.get(kind, intervals[PLAIN])) for kind in predictor.manifest["intervals"]},
        "training": {
            **predictor.manifest.get("training", {}),
            "calibration_proteins": heads[PLAIN].proteins,
            "recalibration": {
                "from": {"name": predictor.name, "digest": predictor.digest},
                "table": table.name,
                "proteins": len(rows),
                "rows_left_out": len(left_out),
                "coverage": coverage,
                "seed": seed,
                "heads": {kind: asdict(choice) for kind, choice in heads.items()},
            },
        },
    }
    if any(choice.helped for choice in heads.values()):
        manifest["correction"] = replace(corrections[PLAIN], given_growth=corrections.get(WITH_GROWTH)).to_dict()
    made = _write(predictor, output, manifest, card)
    return Recalibration(made, heads, tuple(left_out), tuple(notes))


def read_measurements(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Proteins of a table with one Tm each, the median of its measurements.

    Returns:
        Columns ``sequence``, ``tm_celsius`` and ``growth_temperature`` (degC, NaN where unknown), one row a protein;
        and for each row of the file without one of its own the reason.

    Raises:
        DataError: The table cannot be read, fewer than ``MINIMUM_PROTEINS`` are left, or their Tm are all the same.
    """
    from enzyme_stability.config import PreparationSettings
    from enzyme_stability.data.preparation import prepare_test_table
    from enzyme_stability.data.readers import HIGHEST_GROWTH_TEMPERATURE, LOWEST_GROWTH_TEMPERATURE

    prepared, bounds = prepare_test_table(path, Path()), PreparationSettings()
    rows = prepared.table.rename(columns={"growth_temperature_celsius": "growth_temperature"})
    left_out = [f"line {r.line} ({r.id}): {r.reason} {r.detail}".rstrip() for r in prepared.removed.itertuples()]

    for column, low, high in (
        ("tm_celsius", bounds.tm_minimum_celsius, bounds.tm_maximum_celsius),
        ("growth_temperature", LOWEST_GROWTH_TEMPERATURE, HIGHEST_GROWTH_TEMPERATURE),
    ):
        odd = rows[column].notna() & ~rows[column].between(low, high)
        left_out += [
            f"line {line} ({name}): {column} is {value:g}, which is not within {low:g} to {high:g} degC"
            for line, name, value in rows.loc[odd, ["line", "id", column]].itertuples(index=False)
        ]
        rows = rows[~odd]
    again = rows.loc[rows["sequence"].duplicated(), ["line", "id"]].itertuples(index=False)
    left_out += [f"line {line} ({name}): another measurement of one protein, merged" for line, name in again]
    found = rows.groupby("sequence", sort=False)[["tm_celsius", "growth_temperature"]].median().reset_index()
    if len(found) < MINIMUM_PROTEINS:
        first = f"; {len(left_out)} rows were left out, the first: {left_out[0]}" if left_out else ""
        raise DataError(f"{path} has {len(found)} proteins with a Tm; at least {MINIMUM_PROTEINS} are needed{first}")
    if found["tm_celsius"].nunique() == 1:
        raise DataError(f"{path}: every Tm is {found['tm_celsius'].iloc[0]:g} degC, which tells nothing about errors")
    return found, left_out


def _parts(predictor: Predictor, rows: pd.DataFrame, table: Path, coverage: float) -> dict[str, MeasuredProteins]:
    """What each head is judged on: the plain one on every protein, the other where the growth temperature is known."""
    from enzyme_stability.data.homology import cluster, number_by_appearance

    # Joined wherever there is a hit: a relative in another fold would let a correction look better than it is.
    clusters = cluster(rows["sequence"].tolist(), connected=True)
    if not clusters.any():
        raise DataError(f"the {len(rows)} proteins of {table} are all relatives; add some of other families")

    def proteins(kind: str, use: np.ndarray) -> MeasuredProteins:
        residues = rows.loc[use, "sequence"].tolist()
        growth = rows.loc[use, "growth_temperature"].to_numpy() if kind == WITH_GROWTH else None
        raw = Raw(*predictor.raw_output(residues, growth, corrected=False)[:3])
        frequencies = amino_acid_frequencies(residues)
        earlier = Correction.from_dict(predictor.manifest.get("correction") or Correction("none").to_dict())
        scores = predictor.manifest["intervals"][kind]
        own = ConformalInterval(np.array(scores["below"]), np.array(scores["above"]), scores["upper_tail_share"])
        return MeasuredProteins(
            measured=rows.loc[use, "tm_celsius"].to_numpy(),
            raw=raw,
            interval=np.stack(own.interval(*earlier.apply(*raw, frequencies, growth), coverage)),
            frequencies=frequencies,
            growth_temperature=growth,
            clusters=number_by_appearance(clusters[use]),
        )

    parts = {PLAIN: proteins(PLAIN, np.ones(len(rows), dtype=bool))}
    known = rows["growth_temperature"].notna().to_numpy()
    has_ranks = (known.sum() + 1) * (1 - coverage) * UPPER_TAIL_SHARE >= 1
    enough = known.sum() >= MINIMUM_PROTEINS and has_ranks and np.unique(clusters[known]).size > 1
    if predictor.takes_growth_temperature and enough:
        parts[WITH_GROWTH] = proteins(WITH_GROWTH, known)
    return parts


def _notes(predictor: Predictor, heads: Mapping[str, Choice]) -> list[str]:
    notes = []
    if predictor.takes_growth_temperature and WITH_GROWTH not in heads:
        notes.append(
            "too few growth temperatures are known to judge predictions that are given one: they get the same "
            "correction and interval, unchecked"
        )
    if "correction" in predictor.manifest:
        notes.append("the correction that the predictor carried is replaced; 'none' is the predictor without it")
    if heads[PLAIN].proteins >= ENOUGH_TO_TRAIN:
        notes.append("so many proteins may be worth a predictor of their own: see 'enzyme-stability train'")
    return notes


def _summary(heads: Mapping[str, Choice], notes: list[str] | tuple[str, ...]) -> str:
    titles = {PLAIN: "From the sequence alone", WITH_GROWTH: "Given the growth temperature"}
    parts = [f"{titles[kind]}: {choice.summary()}" for kind, choice in heads.items()]
    return "\n\n".join([*parts, *(f"Note: {note}." for note in notes)])


def _saved(interval: ConformalInterval) -> dict[str, Any]:
    below, above = ([round(float(score), 5) for score in scores] for scores in (interval.below, interval.above))
    return {"below": below, "above": above, "upper_tail_share": interval.upper_tail_share}


def _write(predictor: Predictor, output: Path, manifest: Mapping[str, Any], card: str) -> Predictor:
    """Write the folder under another name first, so that a failure leaves nothing that looks like a predictor."""
    part = output.with_name(f".{output.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        for path in predictor.model_files():
            copy = part / path.relative_to(predictor.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        (part / "CARD.md").write_text(card, encoding="utf-8")
        part.replace(output)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise ArtifactError(f"cannot write the predictor to {output}: {error.strerror or error}") from None
    return Predictor(output)

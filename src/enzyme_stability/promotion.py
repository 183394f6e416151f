"""Judges a version of a predictor before an alias of the registry may name it."""

from __future__ import annotations

import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.artefacts import push
from enzyme_stability.config.promotion import PromotionTerms
from enzyme_stability.errors import ArtifactError, ConfigError, DataError
from enzyme_stability.manifest import MANIFEST
from enzyme_stability.measured import GIVEN_GROWTH, known_growth_temperature, predict_table
from enzyme_stability.predictor import Predictor
from enzyme_stability.registry import Alias, Registry, Version
from enzyme_stability.storage import file_names, read_file, write_file

if TYPE_CHECKING:
    import pandas as pd

PRODUCTION = "production"
_TERMS = "terms.json"
_GROWTH_COLUMNS = ("growth_temperature_celsius", "predicted_growth_temperature_celsius")
_KEPT = ["id", "sequence", "tm_celsius", "growth_temperature"]
_LEAST_PROTEINS = 30
_ASKED = {"composition": (200, 7), "language_model": (16, 3)}
"""Proteins and rounds of the checks of invariance and speed, by the kind of encoder."""


@dataclass(frozen=True)
class Check:
    """One of the things a version is judged by.

    Attributes:
        name: What was looked at.
        passed: Whether the version keeps to the terms.
        finding: What was found, in a sentence.
    """

    name: str
    passed: bool
    finding: str


@dataclass(frozen=True)
class Verdict:
    """What came of an attempt to promote.

    Attributes:
        checks: What was looked at.
        compared_with: The version that the alias, or else production, named until now; None where there was none.
        record: Address of the record of this verdict.
    """

    checks: list[Check]
    compared_with: int | None
    record: str

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the version."""
        return all(check.passed for check in self.checks)


def add(registry: Registry, folder: str | Path, name: str | None = None, note: str = "") -> tuple[str, Version]:
    """Add a predictor to a registry.

    Args:
        registry: The registry.
        folder: Folder of the predictor, or the name of a built-in one.
        name: Name in the registry; else the predictor's own.
        note: Kept with the version.

    Returns:
        The name and the version; the one that it has already where the very same predictor was added before.

    Raises:
        ArtifactError: The folder holds no complete predictor, or the registry cannot be written.
    """
    predictor = Predictor.load(folder)
    name = name or predictor.name
    version = registry.add(name, predictor.digest, note)
    place = registry.place(name, version.number)
    if MANIFEST not in file_names(place):  # an earlier attempt may have been cut short
        push(folder, place)
    return name, version


def set_benchmark(registry: Registry, name: str, tables: Mapping[str, pd.DataFrame], terms: PromotionTerms) -> None:
    """Say what every version of a predictor is judged on from now on.

    Args:
        registry: The registry.
        name: Of the predictor.
        tables: Measured proteins by the name of the table, as ``prepare_test_table`` makes them.
        terms: What a version must keep to.

    Raises:
        DataError: A table has too few proteins.
        ArtifactError: The registry cannot be written.
    """
    address = registry.benchmark(name)
    for label, table in tables.items():
        if len(table) < _LEAST_PROTEINS:
            raise DataError(f"{label} has {len(table)} proteins: a benchmark needs at least {_LEAST_PROTEINS}")
        if table["tm_celsius"].isna().any():
            raise DataError(f"{label} holds no melting temperatures, so nothing can be judged on it")
    for label, table in tables.items():
        growth = known_growth_temperature(table, _GROWTH_COLUMNS)
        kept = table.assign(growth_temperature=growth).reindex(columns=_KEPT)
        write_file(f"{address}/{label}.csv", kept.to_csv(index=False).encode())
    written = {"tables": sorted(tables), "terms": terms.model_dump(mode="json")}
    write_file(f"{address}/{_TERMS}", (json.dumps(written, indent=1) + "\n").encode())


def read_benchmark(registry: Registry, name: str) -> tuple[dict[str, pd.DataFrame], PromotionTerms]:
    """The tables and terms that versions of a predictor are judged by.

    Raises:
        ConfigError: None were set yet.
        ArtifactError: They are damaged, or as ``read_file``.
    """
    import pandas as pd

    address = registry.benchmark(name)
    content = read_file(f"{address}/{_TERMS}")
    if content is None:
        raise ConfigError(
            f"{registry.url} does not say what {name} is judged on: name tables once with "
            f"'enzyme-stability registry benchmark {name} TABLE... --registry {registry.url}'"
        )
    try:
        written = json.loads(content)
        terms = PromotionTerms.parse(written["terms"], f"{address}/{_TERMS}")
        tables = {}
        for label in written["tables"]:
            table = read_file(f"{address}/{label}.csv")
            if table is None:
                raise ArtifactError(f"{address}/{label}.csv is missing: set the benchmark again")
            tables[label] = pd.read_csv(io.BytesIO(table), dtype={"id": str})
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{address} is damaged, set the benchmark again: {error}") from None
    return tables, terms


def promote(
    registry: Registry,
    name: str,
    number: int,
    alias: str,
    *,
    override: str = "",
    threads: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Let an alias name a version, where that version is no worse than the one it would replace.

    Args:
        registry: The registry.
        name: Of the predictor.
        number: Of the version.
        alias: Such as ``staging`` or ``production``.
        override: Why it is promoted whatever is found; kept with the verdict.
        threads: Threads of the predictors; 0 takes all cores.
        report: Told each finding as it is made.

    Returns:
        The verdict; where it is not ``passed`` and there is no ``override``, the alias names what it named before.

    Raises:
        ArtifactError: There is no such version, or the registry cannot be read or written.
        ConfigError: No benchmark was set, or the alias is none.
    """
    version = registry.version(name, number)
    current = registry.alias(name, alias) or registry.alias(name, PRODUCTION)
    tables, terms = read_benchmark(registry, name)
    checks = []
    for check in _checks(registry, name, version, current, tables, terms, threads):
        report(f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.finding}")
        checks.append(check)
    passed = all(check.passed for check in checks)
    record = registry.record(
        name,
        {
            "alias": alias,
            "version": asdict(version),
            "compared_with": None if current is None else current.version,
            "passed": passed,
            "override": override,
            "checks": [asdict(check) for check in checks],
            "terms": terms.model_dump(mode="json"),
        },
    )
    if passed or override:
        registry.point(name, alias, number)
    return Verdict(checks, None if current is None else current.version, record)


def _checks(
    registry: Registry,
    name: str,
    version: Version,
    current: Alias | None,
    tables: Mapping[str, pd.DataFrame],
    terms: PromotionTerms,
    threads: int,
) -> Iterator[Check]:
    with _opened(registry, name, version.number, threads) as candidate:
        if candidate.digest != version.sha256:
            yield Check("files", False, "its files are not those that were added: the checksum of the manifest differs")
            return
        if current is None:
            yield from _judge(candidate, None, tables, terms)
        else:
            with _opened(registry, name, current.version, threads) as other:
                yield from _judge(candidate, other, tables, terms)


@contextmanager
def _opened(registry: Registry, name: str, number: int, threads: int) -> Iterator[Predictor]:
    """A version that computes everything itself: what others have embedded would make it look fast."""
    with tempfile.TemporaryDirectory(prefix="enzyme-stability-", ignore_cleanup_errors=True) as store:
        yield Predictor.load(registry.place(name, number), threads, Path(store))


def _judge(
    candidate: Predictor, current: Predictor | None, tables: Mapping[str, pd.DataFrame], terms: PromotionTerms
) -> Iterator[Check]:
    for label, table in tables.items():
        ours = predict_table(candidate, table, terms.nominal_coverage)
        theirs = None if current is None else predict_table(current, table, terms.nominal_coverage)
        yield from _accuracy(label, ours, theirs, terms)
    records = [str(sequence) for table in tables.values() for sequence in table["sequence"]]
    asked, rounds = _ASKED["composition" if _counts(candidate) else "language_model"]
    some = [records[k] for k in np.linspace(0, len(records) - 1, min(asked, len(records))).astype(int)]
    yield _invariance(candidate, some, terms)
    if current is not None:
        yield _speed(candidate, current, some, rounds, terms)


def _counts(predictor: Predictor) -> bool:
    return bool(predictor.manifest["encoder"]["kind"] == "composition")


def _accuracy(label: str, ours: pd.DataFrame, theirs: pd.DataFrame | None, terms: PromotionTerms) -> Iterator[Check]:
    from enzyme_stability.metrics import interval_figures, metrics, paired_difference

    for suffix, how in (("", label), (GIVEN_GROWTH, f"{label}, growth temperature given")):
        known = ours.get("growth_temperature") if suffix else ours["tm_celsius"]
        if f"predicted_celsius{suffix}" not in ours or known is None or known.count() < _LEAST_PROTEINS:
            continue
        rows = ours[known.notna()]
        predicted = rows[["tm_celsius"]].join(rows[[f"{c}{suffix}" for c in _PREDICTED]].set_axis(_PREDICTED, axis=1))
        if theirs is None:
            found = metrics(predicted)["spearman"]
            good = found is not None and found["low"] > 0
            finding = "the order of its predictions is that of chance" if not good else ""
            yield Check(f"ranking on {how}", good, finding or f"Spearman {_figure(found)}")
        else:
            other = theirs.get(f"predicted_celsius{suffix}", theirs["predicted_celsius"])[known.notna()]
            lost = paired_difference(predicted["tm_celsius"], predicted["predicted_celsius"], other)["mae"]
            good = lost["low"] <= 0 and lost["value"] <= terms.most_lost_celsius
            yield Check(
                f"error on {how}",
                good,
                f"mean absolute error {_figure(lost, '+')} degC against the current version",
            )
        held = interval_figures(predicted)["overall"]["coverage"]
        good = terms.lowest_coverage <= held["value"] <= terms.highest_coverage
        band = f"{terms.lowest_coverage:.0%} to {terms.highest_coverage:.0%} wanted"
        yield Check(f"coverage on {how}", good, f"{held['value']:.1%} of the intervals hold the measured Tm ({band})")


_PREDICTED = ["predicted_celsius", "lower_celsius", "upper_celsius", "in_domain"]


def _figure(figure: Mapping[str, float], sign: str = "") -> str:
    return "{:{s}.2f} ({:{s}.2f} to {:{s}.2f})".format(figure["value"], figure["low"], figure["high"], s=sign)


def _invariance(candidate: Predictor, sequences: Sequence[str], terms: PromotionTerms) -> Check:
    """Whether an answer depends on anything but the sequence."""

    def answers(asked: Sequence[str]) -> np.ndarray:
        rows = candidate.predict(asked, coverage=terms.nominal_coverage)
        return np.array([[r.tm_celsius, r.tm_lower_celsius, r.tm_upper_celsius] for r in rows], dtype=float)

    asked = answers(sequences)
    few = min(10, len(sequences))
    others = {
        "order": (asked, answers(sequences[::-1])[::-1]),
        "letter case": (asked, answers([s.lower() for s in sequences])),
        "batch": (asked[:few], np.concatenate([answers([s]) for s in sequences[:few]])),
    }
    changes = {what: float(np.abs(one - other).max()) for what, (one, other) in others.items()}
    what, most = max(changes.items(), key=lambda change: change[1])
    if not np.isfinite(asked).all():
        return Check("invariance", False, "an answer is no number")
    finding = (
        f"answers depend on the {what} by {most:.3f} degC" if most else "one answer whatever order, batch and case"
    )
    return Check("invariance", most <= terms.most_changed_celsius, finding)


def _speed(
    candidate: Predictor, current: Predictor, sequences: Sequence[str], rounds: int, terms: PromotionTerms
) -> Check:
    """Both in turns, so that what else the machine does falls on both."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for round_ in range(rounds + 1):
        for new, predictor in ((True, candidate), (False, current)):
            with tempfile.TemporaryDirectory(prefix="enzyme-stability-", ignore_cleanup_errors=True) as store:
                fresh = predictor if _counts(predictor) else Predictor(predictor.folder, store=Path(store))
                fresh.predict(sequences[:1])  # reads the files
                began = time.perf_counter()
                fresh.predict(sequences[1:] or sequences)
                if round_:  # the first warms up
                    seconds[new].append(time.perf_counter() - began)
    ratio = statistics.median(seconds[True]) / statistics.median(seconds[False])
    return Check("speed", ratio <= terms.most_times_slower, f"{ratio:.2f} times as long as the current version")


def verdict_in_words(name: str, number: int, alias: str, verdict: Verdict, override: str) -> str:
    """One sentence on what came of an attempt to promote."""
    failed = ", ".join(check.name for check in verdict.checks if not check.passed)
    if verdict.passed:
        return f"{name}@{alias} is version {number} now"
    if override:
        return f"{name}@{alias} is version {number} now, although it failed on {failed}: {override}"
    return f"{name} version {number} is not promoted to {alias}: it failed on {failed} (record: {verdict.record})"


def terms_of(settings: Sequence[str]) -> PromotionTerms:
    """The terms that ``name=value`` settings make of the usual ones.

    Raises:
        ConfigError: A setting is misspelt or out of bounds.
    """
    given: dict[str, Any] = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise ConfigError(f"{setting!r} is no setting: give name=value, as in lowest_coverage=0.8")
        given[name] = value
    return PromotionTerms.parse(given, "the terms")

"""How good the predictions given turned out to be: figures over what was measured later, and when to worry.

A protein counts once, however often it was measured: with the median of its measurements, and beside the prediction
that the newest of them came with. Every error is predicted minus measured, degC.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy import Select, func, select

from enzyme_stability.errors import ConfigError, MissingDependencyError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.tables import FeedbackRow

CONFIDENCE = 0.95
"""Of the interval of the observed coverage, and of the bias."""

MINIMUM_ORGANISM = 5
"""Proteins an organism must have to get figures of its own."""

NOTICEABLE_BIAS_CELSIUS = 2.0
"""A bias below it is no reason to worry, however sure it is: proteome-wide Tm of one protein differ by more."""

_MINIMUM_CORRELATION = 3  # two proteins are always in perfect order, or in its opposite

Window = int | Literal["week"]
"""Proteins in a window, or ``week`` for calendar weeks, Monday to Sunday, UTC."""

_Key = TypeVar("_Key")
_Query = TypeVar("_Query", bound=Select[*tuple[Any, ...]])


@dataclass(frozen=True, slots=True)
class Figures:
    """Predictions against measurements of some proteins; temperatures in degC.

    Attributes:
        n: Proteins.
        mae: Mean absolute error.
        rmse: Root mean square error.
        bias: Mean of predicted minus measured.
        bias_error: Half width of the 95 % interval of the bias (Student's t); None for one protein.
        spearman: Rank correlation; None with fewer than three proteins, or where all values are the same.
        asked_coverage: Share of proteins that the intervals were to hold.
        coverage: Share that they do hold.
        coverage_low: Lower end of its exact 95 % interval (Clopper and Pearson, doi 10.1093/biomet/26.4.404).
        coverage_high: Upper end.
    """

    n: int
    mae: float
    rmse: float
    bias: float
    bias_error: float | None
    spearman: float | None
    asked_coverage: float
    coverage: float
    coverage_low: float
    coverage_high: float


@dataclass(frozen=True, slots=True)
class Period:
    """A week, or a number of proteins one after the other.

    Attributes:
        start: Of the week; or when the first of the proteins came back.
        end: End of the week, exclusive; or when the last of them came back.
        figures: Of the proteins that came back within it.
    """

    start: dt.datetime
    end: dt.datetime
    figures: Figures


@dataclass(frozen=True, slots=True)
class Performance:
    """What the measurements say of the predictions.

    Attributes:
        since: Measurements that came back at this time or later.
        until: And before this one; None is now.
        model_hash: Digest of the predictor they are about; None is any.
        measurements: That came back and have a prediction.
        unpredicted: That came back without one; they count in no figure.
        overall: Of all proteins; None where there is none.
        organisms: Figures of each organism of at least ``MINIMUM_ORGANISM`` proteins, the most numerous first.
        periods: Figures as time goes by, oldest first.
        alerts: What should not be so, a sentence each. Judged on all proteins together, and on nothing else: of many
            organisms and weeks some would always look odd.
    """

    since: dt.datetime
    until: dt.datetime | None
    model_hash: str | None
    measurements: int
    unpredicted: int
    overall: Figures | None
    organisms: dict[str, Figures]
    periods: tuple[Period, ...]
    alerts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: points in time are ISO 8601."""

        def written(items: list[tuple[str, Any]]) -> dict[str, Any]:
            return {name: v.isoformat() if isinstance(v, dt.datetime) else v for name, v in items}

        return asdict(self, dict_factory=written)


class _Protein(NamedTuple):
    when: dt.datetime
    organism: str | None
    measured: float
    predicted: float
    lower: float
    upper: float
    asked: float


def performance(
    database: Database,
    *,
    since: dt.datetime,
    until: dt.datetime | None = None,
    model_hash: str | None = None,
    window: Window = "week",
) -> Performance:
    """Compare what came back with what had been predicted.

    There is an alert where the share of measurements within their interval differs from what was asked for by more
    than chance explains, and where the bias does and is above ``NOTICEABLE_BIAS_CELSIUS`` as well.

    Args:
        database: With the feedback.
        since: Start, by the time of arrival.
        until: End, exclusive; None is now.
        model_hash: Digest of the predictor to judge; None takes the predictions of all.
        window: What the figures over time are made of. A number makes windows of as many proteins, counted back from
            the newest; the oldest may hold fewer.

    Raises:
        ArtifactError: The database cannot be read.
        ConfigError: ``window`` is below 1.
        MissingDependencyError: SciPy is not installed.
    """
    if window != "week" and window < 1:
        raise ConfigError(f"a window of {window} proteins holds none; give at least 1")
    proteins, measurements = _proteins(database, since, until, model_hash)
    unpredicted = _period(select(func.count()), since, until, None).where(FeedbackRow.tm_celsius.is_(None))
    with database.session(read_only=True) as session:
        alone = session.scalar(unpredicted) or 0
    overall = _figures(proteins) if proteins else None
    return Performance(
        since=since,
        until=until,
        model_hash=model_hash,
        measurements=measurements,
        unpredicted=alone,
        overall=overall,
        organisms=_by_organism(proteins),
        periods=tuple(_weeks(proteins) if window == "week" else _counted(proteins, window)),
        alerts=_alerts(overall) if overall else (),
    )


def gauges(
    database: Database, *, since: dt.datetime, until: dt.datetime | None = None, model_hash: str | None = None
) -> dict[str, float]:
    """The plain figures for a metrics page, without SciPy; the arguments are those of ``performance``.

    Returns:
        ``rows`` (proteins); and, where there are any, ``mae_celsius``, ``bias_celsius``, ``coverage`` and
        ``asked_coverage``.

    Raises:
        ArtifactError: The database cannot be read.
    """
    proteins, _ = _proteins(database, since, until, model_hash)
    if not proteins:
        return {"rows": 0.0}
    error, inside = _errors(proteins), _inside(proteins)
    return {
        "rows": float(error.size),
        "mae_celsius": float(np.abs(error).mean()),
        "bias_celsius": float(error.mean()),
        "coverage": float(inside.mean()),
        "asked_coverage": float(np.mean([p.asked for p in proteins])),
    }


def _period(query: _Query, since: dt.datetime, until: dt.datetime | None, model_hash: str | None) -> _Query:
    query = query.select_from(FeedbackRow).where(FeedbackRow.received_at >= since)
    if until is not None:
        query = query.where(FeedbackRow.received_at < until)
    return query if model_hash is None else query.where(FeedbackRow.model_hash == model_hash)


def _proteins(
    database: Database, since: dt.datetime, until: dt.datetime | None, model_hash: str | None
) -> tuple[list[_Protein], int]:
    """The proteins in the order of their newest measurement, and how many measurements they had."""
    columns = (
        *(FeedbackRow.sequence_hash, FeedbackRow.received_at, FeedbackRow.organism, FeedbackRow.measured_tm_celsius),
        *(FeedbackRow.tm_celsius, FeedbackRow.tm_lower_celsius, FeedbackRow.tm_upper_celsius, FeedbackRow.coverage),
    )
    query = _period(select(*columns), since, until, model_hash).where(FeedbackRow.tm_celsius.is_not(None))
    measured: dict[str, list[float]] = defaultdict(list)
    newest: dict[str, _Protein] = {}
    count = 0
    with database.session(read_only=True) as session:
        for found in session.execute(query.order_by(FeedbackRow.received_at, FeedbackRow.id)):
            values: list[Any] = list(found)
            name, row = values[0], _Protein(*values[1:])
            earlier = newest.pop(name, None)  # popped, so that it moves to the end
            measured[name].append(row.measured)
            organism = row.organism or (earlier and earlier.organism)
            newest[name] = row._replace(measured=float(np.median(measured[name])), organism=organism)
            count += 1
    return list(newest.values()), count


def _errors(proteins: Sequence[_Protein]) -> npt.NDArray[np.float64]:
    return np.array([p.predicted - p.measured for p in proteins])


def _inside(proteins: Sequence[_Protein]) -> npt.NDArray[np.bool_]:
    return np.array([p.lower <= p.measured <= p.upper for p in proteins])


def _figures(proteins: Sequence[_Protein]) -> Figures:
    try:
        from scipy.stats import binomtest, t
    except ImportError:
        raise MissingDependencyError("Judging predictions by what came back", "monitor") from None
    error, inside = _errors(proteins), _inside(proteins)
    n = len(proteins)
    band = binomtest(int(inside.sum()), n).proportion_ci(CONFIDENCE, method="exact")
    spread = None if n == 1 else float(t.ppf((1 + CONFIDENCE) / 2, n - 1) * error.std(ddof=1) / math.sqrt(n))
    return Figures(
        n=n,
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        bias=float(error.mean()),
        bias_error=spread,
        spearman=_spearman(proteins),
        asked_coverage=float(np.mean([p.asked for p in proteins])),
        coverage=float(inside.mean()),
        coverage_low=float(band.low),
        coverage_high=float(band.high),
    )


def _spearman(proteins: Sequence[_Protein]) -> float | None:
    from scipy.stats import spearmanr

    measured, predicted = [p.measured for p in proteins], [p.predicted for p in proteins]
    if len(proteins) < _MINIMUM_CORRELATION or len(set(measured)) == 1 or len(set(predicted)) == 1:
        return None
    return float(spearmanr(measured, predicted).statistic)


def _by_organism(proteins: Sequence[_Protein]) -> dict[str, Figures]:
    groups = _grouped(proteins, lambda p: p.organism)
    enough = {name: group for name, group in groups.items() if name and len(group) >= MINIMUM_ORGANISM}
    return {str(name): _figures(enough[name]) for name in sorted(enough, key=lambda name: (-len(enough[name]), name))}


def _weeks(proteins: Sequence[_Protein]) -> list[Period]:
    def monday(protein: _Protein) -> dt.date:
        day = protein.when.astimezone(dt.UTC).date()
        return day - dt.timedelta(days=day.weekday())

    starts = {dt.datetime.combine(day, dt.time(), dt.UTC): g for day, g in _grouped(proteins, monday).items()}
    return [Period(start, start + dt.timedelta(weeks=1), _figures(group)) for start, group in sorted(starts.items())]


def _counted(proteins: Sequence[_Protein], size: int) -> list[Period]:
    first = len(proteins) % size
    cuts = [0, *range(first or size, len(proteins) + 1, size)]
    groups = [proteins[start:end] for start, end in pairwise(cuts)]
    return [Period(group[0].when, group[-1].when, _figures(group)) for group in groups]


def _grouped(proteins: Sequence[_Protein], key: Callable[[_Protein], _Key]) -> dict[_Key, list[_Protein]]:
    groups: dict[_Key, list[_Protein]] = defaultdict(list)
    for protein in proteins:
        groups[key(protein)].append(protein)
    return groups


def _alerts(overall: Figures) -> tuple[str, ...]:
    alerts = []
    if not overall.coverage_low <= overall.asked_coverage <= overall.coverage_high:
        off = "wide" if overall.coverage > overall.asked_coverage else "narrow"
        alerts.append(
            f"{overall.coverage:.1%} of {overall.n} measured proteins lie within their interval ({CONFIDENCE:.0%} "
            f"interval {overall.coverage_low:.1%} to {overall.coverage_high:.1%}), asked for were "
            f"{overall.asked_coverage:.1%}: the intervals are too {off}"
        )
    sure = overall.bias_error is not None and abs(overall.bias) > overall.bias_error
    if sure and abs(overall.bias) > NOTICEABLE_BIAS_CELSIUS:
        alerts.append(
            f"predictions are {abs(overall.bias):.1f} +- {overall.bias_error:.1f} degC too "
            f"{'high' if overall.bias > 0 else 'low'} on the average of {overall.n} measured proteins"
        )
    return tuple(alerts)
